"""VGG's convolutions as a measure of pictures (Simonyan and Zisserman 2014, arXiv:1409.1556), frozen and cut off."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # convolutions of each, with a pooling between two
WIDTHS = (64, 128, 256, 512, 512)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AVERAGE_SCALE = 2.0  # the largest of four values of a feature map is about twice their average
ENDING = re.compile(r"features\.\d+\.(weight|bias)")


class VGG(nn.Module):
    """The layers of VGG that are asked for, named `conv1_1` … `conv5_4`, each behind its ReLU.

    What lies above the highest of them is left out. Parameters have torchvision's key names and never learn.

    Args:
        arch: vgg16 or vgg19; vgg16 has no fourth convolution in blocks 3 to 5.
        layers: names of the layers that `forward` gives.
        pooling: max, as it was trained, or average, which Gatys et al. (2016) found to give smoother pictures; that
            is multiplied by two, so that features stay as large as the weights expect them.
        padding: of the first convolution: zeros, or replicate, which draws no dark frame around a picture.
    """

    def __init__(
        self,
        arch: str,
        layers: Iterable[str],
        pooling: Literal["max", "average"] = "max",
        padding: Literal["zeros", "replicate"] = "zeros",
    ) -> None:
        super().__init__()
        self.arch, self.pooling, self.padding = arch, pooling, padding
        known = names_of(arch)
        self.layers = tuple(dict.fromkeys(layers))
        if unknown := [layer for layer in self.layers if layer not in known]:
            raise ValueError(f"{arch} has no layer {', '.join(unknown)}; there are: {', '.join(known)}")
        if not self.layers:
            raise ValueError(f"name a layer of {arch} at least; there are: {', '.join(known)}")
        self.names: dict[str, str] = {}  # of the layers, by their place in `features`
        last = max(known.index(layer) for layer in self.layers)
        parts: list[nn.Module] = []
        inputs = 3
        for name in known[: last + 1]:
            block, number = (int(part) for part in name.removeprefix("conv").split("_"))
            if number == 1 and block > 1:
                parts.append(nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2))
            self.names[str(len(parts) + 1)] = name
            parts += [nn.Conv2d(inputs, WIDTHS[block - 1], 3, padding=1), nn.ReLU(inplace=True)]
            inputs = WIDTHS[block - 1]
        self.features = nn.Sequential(*parts)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features, B C h w in the type of the weights, by layer, of `images`, float32, B 3 H W, 0..1."""
        first = self.features[0]
        assert isinstance(first, nn.Conv2d)
        # No buffers: those would be rounded with the weights where these are in bfloat16.
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        maps = ((images - mean) / std).to(first.weight.dtype)
        if self.padding == "replicate":
            maps = functional.conv2d(functional.pad(maps, (1, 1, 1, 1), mode="replicate"), first.weight, first.bias)
        else:
            maps = first(maps)
        found = {}
        for place, part in list(self.features.named_children())[1:]:
            maps = part(maps)
            if isinstance(part, nn.AvgPool2d):
                maps = AVERAGE_SCALE * maps
            if self.names.get(place) in self.layers:
                found[self.names[place]] = maps
        return found

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights by torchvision's key names. Later layers and the classifier are left out.

        Raises:
            ValueError: a layer is missing, or of another shape; the message says which, and what was expected.
        """
        own = self.state_dict()
        if missing := sorted(own.keys() - weights.keys()):
            found = sorted(key for key in weights if ENDING.fullmatch(key))
            raise ValueError(
                f"not {self.arch}'s weights: missing {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}; "
                f"expected torchvision's names, features.0.weight to features.{len(self.features) - 2}.bias; "
                f"found {', '.join(found[:3] or sorted(weights)[:3]) or 'nothing'}{' …' if len(weights) > 3 else ''}"
            )
        for key, value in own.items():
            if weights[key].shape != value.shape:
                raise ValueError(
                    f"not {self.arch}'s weights: {key} is {list(weights[key].shape)}, expected {list(value.shape)}"
                )
        self.load_state_dict({key: weights[key] for key in own})


def names_of(arch: str) -> list[str]:
    """The names of all layers, the lowest first. Raises `ValueError` for an unknown `arch`."""
    if arch not in BLOCKS:
        raise ValueError(f"unknown arch {arch!r}; there are: {', '.join(BLOCKS)}")
    return [f"conv{block}_{number + 1}" for block, count in enumerate(BLOCKS[arch], start=1) for number in range(count)]
