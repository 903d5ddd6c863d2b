"""What two pictures have in common in content and in style, by VGG's features (Gatys et al. 2016, CVPR)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from celebvision.models.vgg import VGG

Maps = Mapping[str, Tensor]  # by layer


@dataclass(frozen=True)
class Losses:
    """Of each picture: float32 B."""

    content: Tensor
    style: Tensor
    variation: Tensor
    total: Tensor  # weighted sum of the three

    @property
    def by_name(self) -> dict[str, Tensor]:
        """As columns of a result are called."""
        return {"content_loss": self.content, "style_loss": self.style}


class Perceptual:
    """Content, style and total-variation losses of pictures, each picture for itself.

    Content is the squared distance of features, style that of their Gram matrices (equations 1 and 3 to 5). Departure
    from the paper: each layer's distance is a share of the square of what is wanted there. So 0 is the same, 1 is as
    far as nothing at all, layers count alike whatever their scale, and a weight means the same for every file of
    weights, every size of picture and every set of layers.

    Args:
        vgg: gives the layers that are named.
        content_layers, style_layers: where is measured; losses are means over them.
        content_weight, style_weight, variation_weight: of `Losses.total`.
    """

    def __init__(
        self,
        vgg: VGG,
        content_layers: Sequence[str],
        style_layers: Sequence[str],
        content_weight: float = 1.0,
        style_weight: float = 1.0,
        variation_weight: float = 0.0,
    ) -> None:
        self.vgg, self.content_layers, self.style_layers = vgg, tuple(content_layers), tuple(style_layers)
        self.content_weight, self.style_weight, self.variation_weight = content_weight, style_weight, variation_weight

    @torch.no_grad()
    def content(self, images: Tensor) -> dict[str, Tensor]:
        """What `losses` holds pictures' content against: features, of `images`, B 3 H W, 0..1."""
        maps = self.vgg(images)
        return {layer: maps[layer] for layer in self.content_layers}

    @torch.no_grad()
    def style(self, images: Tensor) -> dict[str, Tensor]:
        """What `losses` holds pictures' style against: Gram matrices, B C C, of `images`, B 3 H W, 0..1."""
        maps = self.vgg(images)
        return {layer: gram(maps[layer]) for layer in self.style_layers}

    def losses(self, images: Tensor, content: Maps, style: Maps) -> Losses:
        """How far `images`, B 3 H W, 0..1, are from this content and this style, of one picture or of B."""
        maps = self.vgg(images)
        of_content = [distance(maps[layer], content[layer]) for layer in self.content_layers]
        of_style = [distance(gram(maps[layer]), style[layer]) for layer in self.style_layers]
        zeros = images.new_zeros(len(images))
        in_content = torch.stack(of_content).mean(0) if of_content else zeros
        in_style = torch.stack(of_style).mean(0) if of_style else zeros
        variation = total_variation(images) if self.variation_weight else zeros
        total = self.content_weight * in_content + self.style_weight * in_style + self.variation_weight * variation
        return Losses(in_content, in_style, variation, total)


def gram(features: Tensor) -> Tensor:
    """Which features go together, wherever they are: B C C, of B C H W; mean over places of their products."""
    vectors = features.flatten(2)
    return _single(vectors @ vectors.transpose(1, 2)) / vectors.shape[2]


def distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance as a share of the square of what is wanted; B, of B … and of 1 … or B …."""
    found, wanted = _single(found).flatten(1), _single(wanted).flatten(1)
    return (found - wanted).square().mean(1) / wanted.square().mean(1).clamp_min(1e-12)


def total_variation(images: Tensor) -> Tensor:
    """Mean squared difference of neighbours, B, of B C H W: large where a picture is noisy."""
    down, right = images[:, :, 1:] - images[:, :, :-1], images[:, :, :, 1:] - images[:, :, :, :-1]
    return down.square().mean((1, 2, 3)) + right.square().mean((1, 2, 3))


def mixed(styles: Sequence[Maps], weights: Sequence[float]) -> dict[str, Tensor]:
    """One style of several, in these shares of their sum: the weighted mean of their Gram matrices.

    To be near that mean is to be near to all of them: the weighted sum of squared distances is the same but for a
    constant.
    """
    whole = sum(weights)
    shares = list(zip(styles, weights, strict=True))
    return {
        layer: sum((style[layer] * (weight / whole) for style, weight in shares), torch.zeros(()))
        for layer in styles[0]
    }


def _single(values: Tensor) -> Tensor:
    """In float32 at least: sums of many squares lose too much in half precision."""
    return values.float() if values.dtype.itemsize < 4 else values
