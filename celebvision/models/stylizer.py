"""A loaded generator that redraws pictures of any size, shared by batch jobs and the upload page."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from celebvision.models.adain import AdaIN
from celebvision.models.classifier import has_bfloat16
from celebvision.models.cyclegan import GRID, SMALLEST, CycleGAN
from celebvision.models.style_net import StyleNet

TILE = 1024  # pixels: what is larger than a square of it is drawn in such tiles


class Stylizer:
    """A generator made ready for inference: in bfloat16 where the device computes in it, in tiles where it must be.

    A picture of more than `tile` x `tile` pixels is drawn in tiles. Two things would show where they meet. A tile
    does not see beyond its edge: so tiles overlap by what an output pixel depends on, and what depends on an edge is
    thrown away. And a tile's own statistics would normalise it to a brightness of its own: so all tiles take the
    statistics of the whole picture, shrunk to one tile (thumbnail instance normalisation, Chen et al. 2022). What is
    drawn is then the same wherever the tiles' borders lie.

    Args:
        network: Left as it is; of several styles, with one chosen.
        device: where to run.
        tile: side of a tile in pixels, a multiple of 4.
    """

    def __init__(
        self, network: CycleGAN | StyleNet | AdaIN, device: torch.device | str = "cpu", tile: int = TILE
    ) -> None:
        self.device = torch.device(device)
        network = copy.deepcopy(network).eval().requires_grad_(False)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.autocast = has_bfloat16(self.device)
        self.margin = -(-network.reach // GRID) * GRID
        self.tile = tile
        if tile % GRID or tile <= 2 * self.margin:
            raise ValueError(f"tile: a multiple of {GRID} over {2 * self.margin}, which is the overlap; got {tile}")

    @torch.inference_mode()
    def draw(self, pictures: Tensor) -> Tensor:
        """Redraw pictures of one size.

        Args:
            pictures: uint8, B H W 3, RGB, any H and W from 1 on; on any device.

        Returns:
            uint8, B H W 3, on the CPU. The same pictures give the same bytes on the same kind of device.

        Raises:
            ValueError: another type or shape.
        """
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3 or 0 in pictures.shape:
            raise ValueError(f"expected uint8 pictures, B H W 3; got {pictures.dtype} {list(pictures.shape)}")
        height, width = pictures.shape[1:3]
        if height * width > self.tile**2:
            return torch.stack([self._in_tiles(picture) for picture in pictures])
        return self._forward(_filled(pictures))[:, :height, :width]

    def _forward(self, pixels: Tensor) -> Tensor:
        """Redraw uint8 B H W 3, H and W such as the network takes, to the same."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            drawn: Tensor = self.network(self._normalised(pixels))
        values = drawn.float().add_(1).mul_(127.5).round_()
        return values.permute(0, 2, 3, 1).to(torch.uint8).cpu().contiguous()

    @contextmanager
    def _statistics_of(self, pixels: Tensor) -> Iterator[None]:
        """Until the block ends, the network normalises by the statistics of this picture, uint8 1 H W 3."""
        with ExitStack() as stack:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                thumbnail = self._normalised(_thumbnail(pixels, self.tile))
                stack.enter_context(self.network.statistics_of(thumbnail))
            yield

    def _normalised(self, pixels: Tensor) -> Tensor:
        return (pixels.to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1).to(
            torch.bfloat16 if self.autocast else torch.float32, memory_format=torch.channels_last
        )

    def _in_tiles(self, picture: Tensor) -> Tensor:
        """Redraw one picture, uint8 H W 3."""
        height, width = picture.shape[:2]
        filled = _filled(picture[None])
        drawn = torch.empty_like(filled[0], device="cpu")
        with self._statistics_of(filled):
            for top, bottom in _spans(filled.shape[1], self.tile, self.margin):
                for left, right in _spans(filled.shape[2], self.tile, self.margin):
                    upper, first = max(0, top - self.margin), max(0, left - self.margin)
                    part = filled[:, upper : bottom + self.margin, first : right + self.margin]
                    redrawn = self._forward(part)[0]
                    drawn[top:bottom, left:right] = redrawn[top - upper : bottom - upper, left - first : right - first]
        return drawn[:height, :width]


def _spans(length: int, tile: int, margin: int) -> Iterator[tuple[int, int]]:
    """What of a side each tile is kept of: borders lie on the network's grid, and a tile has a margin beyond them."""
    step = tile - 2 * margin
    for start in range(0, length, step):
        yield start, min(start + step, length)


def _filled(pixels: Tensor) -> Tensor:
    """Repeat the last row and column until both sides suit the network. uint8, B H W 3."""
    height, width = (max(SMALLEST, -(-side // GRID) * GRID) for side in pixels.shape[1:3])
    if (height, width) == tuple(pixels.shape[1:3]):
        return pixels
    rows = torch.arange(height).clamp_max(pixels.shape[1] - 1)
    columns = torch.arange(width).clamp_max(pixels.shape[2] - 1)
    return pixels[:, rows][:, :, columns]


def _thumbnail(pixels: Tensor, tile: int) -> Tensor:
    """The picture shrunk to the pixels of one tile, uint8 1 H W 3; its shape stays but for the grid."""
    share = tile / (pixels.shape[1] * pixels.shape[2]) ** 0.5
    size = [max(SMALLEST, int(side * share) // GRID * GRID) for side in pixels.shape[1:3]]
    shrunk = functional.interpolate(pixels.permute(0, 3, 1, 2).float(), size, mode="bilinear", antialias=True)
    return shrunk.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
