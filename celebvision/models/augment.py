"""Random changes to a batch of training faces, on the device, one kernel per kind of change and batch."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """How strongly `augment` changes each image; every range is symmetric and drawn uniformly.

    flip: probability of a left-right flip.
    shift: largest shift, as a share of the height and the width.
    scale: largest change of size, as a share: 0.1 is 0.9..1.1.
    rotation_deg: largest rotation.
    brightness: largest amount added to all channels, in units of the normalised input.
    contrast, saturation: largest change, as a share.
    erase: probability that a rectangle of 10..45 % of each side is replaced by the mean colour.
    """

    flip: float = 0.5
    shift: float = 0.06
    scale: float = 0.12
    rotation_deg: float = 10.0
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    erase: float = 0.5


def augment(images: Tensor, generator: torch.Generator, strength: Augmentation) -> Tensor:
    """Change each image of a batch at random and independently.

    Numbers are drawn from `generator`, a CPU one: the same seed gives the same changes on every device, and the
    draws (13 per image) are too few to be worth a kernel on the GPU.

    Args:
        images: float32, B 3 H W, normalised to about -1..1 (see `Preprocessing.normalise`). Left as it is.

    Returns:
        float32, B 3 H W, channels_last strides; values may leave the input's range by what `brightness`,
        `contrast` and `saturation` add, since clamping would need the range's bounds and buys nothing.
    """
    draws = torch.rand(13, len(images), generator=generator)
    # Planes of one colour each until the end: on the CPU these kernels are faster on them than on channels_last.
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 is coarse for coordinates
        images = _warp(images.contiguous(), draws[:5], strength)
        images = _recolour(images, draws[5:8], strength)
        images = _erase(images, draws[8:13], strength)
    return images.contiguous(memory_format=torch.channels_last)


def _warp(images: Tensor, draws: Tensor, strength: Augmentation) -> Tensor:
    """Flip, shift, scale and rotate in one bilinear sampling; what lies outside is reflected."""
    height, width = images.shape[2:]
    flip, zoom, angle, down, right = draws
    signs = 1 - 2 * (flip < strength.flip).float()
    zoom = 1 + strength.scale * (2 * zoom - 1)
    angle = math.radians(strength.rotation_deg) * (2 * angle - 1)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    # Grid coordinates run -1..1 along both sides, so a rotation that keeps angles needs the sides' ratio.
    aspect = height / width
    across = torch.stack((signs * cos, -signs * sin * aspect, 2 * strength.shift * (2 * right - 1)), dim=1)
    along = torch.stack((sin / aspect, cos, 2 * strength.shift * (2 * down - 1)), dim=1)
    theta = torch.stack((across, along), dim=1).to(images.device)  # B 2 3
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _recolour(images: Tensor, draws: Tensor, strength: Augmentation) -> Tensor:
    """Jitter saturation, contrast and brightness: one 3x3 colour matrix and one offset per image."""
    limits = torch.tensor([strength.brightness, strength.contrast, strength.saturation])
    offset, contrast, saturation = limits[:, None, None, None] * (2 * draws[:, :, None, None] - 1)
    grey = torch.full((3, 3), 1 / 3)
    matrix = (1 + contrast) * (grey + (1 + saturation) * (torch.eye(3) - grey))  # B 3 3
    planes = images.flatten(2)
    return torch.baddbmm(offset.to(images.device), matrix.to(images.device), planes).view_as(images)


def _erase(images: Tensor, draws: Tensor, strength: Augmentation) -> Tensor:
    """Blank one rectangle in a share of the images (random erasing, Zhong et al. 2017, arXiv:1708.04896)."""
    height, width = images.shape[2:]
    chosen, tall, wide, top, left = draws
    tall, wide = 0.10 + 0.35 * tall, 0.10 + 0.35 * wide
    top, left = top * (1 - tall), left * (1 - wide)
    rows, columns = torch.arange(height) / height, torch.arange(width) / width
    in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None]) & (chosen < strength.erase)[:, None]
    in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    inside = (in_rows[:, :, None] & in_columns[:, None, :]).to(images.device)  # B H W
    return images.masked_fill_(inside[:, None], 0.0)
