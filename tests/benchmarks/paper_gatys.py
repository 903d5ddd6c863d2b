"""Style transfer by optimisation as the paper writes it down and as anyone would type it first: one picture at a time,
float32, Adam. What our batches are measured against, and by whose losses both are judged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torchvision
from torch import Tensor, nn

CONTENT = "conv5_2"
STYLE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Paper:
    """One style and what it weighs; pictures are float32, 1 3 H W, 0..1."""

    def __init__(self, arch: str, weights: Mapping[str, Tensor], style: Tensor, style_weight: float) -> None:
        network = getattr(torchvision.models, arch)(weights=None).features.requires_grad_(False)
        network.load_state_dict({key.removeprefix("features."): value.float() for key, value in weights.items()})
        self.layers = list(network)
        self.mean, self.std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
        self.style_weight = style_weight
        with torch.no_grad():
            self.style = {name: gram(maps) for name, maps in self.features(style).items() if name in STYLE}

    def features(self, image: Tensor) -> dict[str, Tensor]:
        found, block, number = {}, 1, 0
        maps = (image - self.mean) / self.std
        for layer in self.layers:
            maps = torch.relu(maps) if isinstance(layer, nn.ReLU) else layer(maps)
            if isinstance(layer, nn.ReLU):
                number += 1
                found[f"conv{block}_{number}"] = maps
            elif isinstance(layer, nn.MaxPool2d):
                block, number = block + 1, 0
            if {CONTENT, *STYLE} <= found.keys():
                break
        return found

    def losses(self, image: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Of content and of style, each a share of what is wanted."""
        maps = self.features(image)
        style = [share(gram(maps[name]), self.style[name]) for name in STYLE]
        return share(maps[CONTENT], content), torch.stack(style).mean()

    def draw(self, photo: Tensor, steps: int, learning_rate: float) -> Tensor:
        with torch.no_grad():
            content = self.features(photo)[CONTENT]
        image = photo.clone().requires_grad_()
        optimizer = torch.optim.Adam([image], learning_rate)
        for _ in range(steps):
            optimizer.zero_grad()
            in_content, in_style = self.losses(image, content)
            (in_content + self.style_weight * in_style).backward()
            optimizer.step()
            with torch.no_grad():
                image.clamp_(0, 1)
        return image.detach()

    @torch.no_grad()
    def judged(self, drawn: Tensor, photo: Tensor) -> tuple[float, float]:
        in_content, in_style = self.losses(drawn, self.features(photo)[CONTENT])
        return float(in_content), float(in_style)


def gram(maps: Tensor) -> Tensor:
    flat = maps[0].flatten(1)
    return flat @ flat.T / flat.shape[1]


def share(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).square().mean() / wanted.square().mean()
