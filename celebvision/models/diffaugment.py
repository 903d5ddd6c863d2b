"""Differentiable augmentation, so that a discriminator cannot learn a small style set by heart.

Zhao et al. 2020 (arXiv:2006.10738): what is real and what is drawn are changed in the same random ways before they
are judged, and the generator's gradient flows through the change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Kind = Literal["colour", "translation", "cutout"]
SHIFT = 1 / 8  # of a side, at most
CUT = 1 / 2  # of a side


def diff_augment(images: Tensor, kinds: Sequence[Kind], generator: torch.Generator) -> Tensor:
    """Change each image, float B 3 H W about -1..1, at random and independently; numbers come from `generator`."""
    draws = torch.rand(len(images), 7, generator=generator)
    if "colour" in kinds:
        images = _colour(images, draws[:, :3])
    if "translation" in kinds:
        images = _translate(images, draws[:, 3:5])
    if "cutout" in kinds:
        images = _cut(images, draws[:, 5:7])
    return images


def _colour(images: Tensor, draws: Tensor) -> Tensor:
    """Add up to a half to the brightness, and change saturation by up to all and contrast by up to a half."""
    brightness, saturation, contrast = draws.to(images.device, images.dtype).view(-1, 3, 1, 1, 1).unbind(1)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + 2 * saturation * (images - grey)
    middle = images.mean((1, 2, 3), keepdim=True)
    return middle + (0.5 + contrast) * (images - middle)


def _translate(images: Tensor, draws: Tensor) -> Tensor:
    """Shift by up to an eighth of each side; what comes in is 0, mid-grey."""
    height, width = images.shape[2:]
    down, right = round(height * SHIFT), round(width * SHIFT)
    padded = functional.pad(images, (right, right, down, down))
    tops, lefts = (draws * torch.tensor([2 * down + 1, 2 * right + 1])).long().T.tolist()
    places = zip(padded, tops, lefts, strict=True)
    return torch.stack([one[:, top : top + height, left : left + width] for one, top, left in places])


def _cut(images: Tensor, draws: Tensor) -> Tensor:
    """Blank a rectangle of half of each side, whose centre may lie anywhere."""
    height, width = images.shape[2:]
    masks = torch.ones(len(images), 1, height, width, dtype=images.dtype)
    for mask, (down, right) in zip(masks, draws.tolist(), strict=True):
        top, left = int(down * (height + 1)) - int(height * CUT / 2), int(right * (width + 1)) - int(width * CUT / 2)
        mask[:, max(0, top) : top + int(height * CUT), max(0, left) : left + int(width * CUT)] = 0
    return images * masks.to(images.device)
