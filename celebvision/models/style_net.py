"""The feed-forward network of several styles (Johnson et al. 2016, arXiv:1603.08155)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from celebvision.models.cyclegan import (
    GRID,
    SMALLEST,
    Block,
    Down,
    Normalisation,
    Residual,
    Up,
    initialise,
    reflect,
    statistics_of,
)
from celebvision.models.preprocessing import Preprocessing

EDGE = 9  # pixels of a side of the first and the last convolution
LIGHT = 0.5  # deviation of the first drawn pictures, before tanh
STYLE_NAME = re.compile(r"[A-Za-z0-9_-]+")  # it stands in flags, in names of figures and on pictures


class StyleNet(nn.Module):
    """The transform network: redraws pictures in any of its styles, or in a mixture of them.

    Two strided convolutions, residual blocks at a quarter of the size, and back. Departures from the paper:

    - Instance normalisation (Ulyanov et al. 2016, arXiv:1607.08022) instead of batch normalisation.
    - One network for many styles: each has a scale and an offset of its own behind each normalisation, and all share
      the convolutions (Dumoulin et al. 2017, arXiv:1610.07629). A mixture is the weighted mean of scales and offsets.
    - Resize-convolution (nearest, then 3x3) on the way up, and reflection padding everywhere.
    - `skip`: the picture's light, normalised and in each style's own colours, is added to what is drawn, so that the
      network begins with it, and bright does not turn dark. Features at half the size on the way down are added to
      those on the way up (Ronneberger et al. 2015, arXiv:1505.04597, who join the channels).
    - Statistics can be set from outside (`statistics_of`), so that a picture drawn in tiles has no seams.

    Args:
        styles: their names, in the order of shares.
        size: side of the pictures that it is trained on, in pixels; it draws pictures of any size.
        width: channels of the first convolution.
        blocks: residual blocks.
        skip: hand on light and features of half the size; versions older than this argument do not.
    """

    def __init__(
        self, styles: list[str], size: int = 128, width: int = 32, blocks: int = 5, skip: bool = False
    ) -> None:
        if not styles or len(set(styles)) < len(styles) or not all(STYLE_NAME.fullmatch(name) for name in styles):
            raise ValueError(f"styles: names of letters, digits, '_' and '-', none twice, one at least; got {styles}")
        if size < SMALLEST or size % GRID:
            raise ValueError(f"size: a multiple of {GRID}, at least {SMALLEST}; got {size}")
        if width < 1 or blocks < 1:
            raise ValueError(f"width and blocks must be positive: {width=} {blocks=}")
        super().__init__()
        self.styles = list(styles)
        self.skip = skip
        self.preprocessing = Preprocessing(size, size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        self.reach = 8 * blocks + 30  # pixels around one of the output that it depends on

        def norm(channels: int) -> ConditionalNorm:
            return ConditionalNorm(channels, len(styles))

        self.first = Block(3, width, kernel=EDGE, norm=norm)
        self.down = nn.Sequential(
            Down(width, 2 * width, antialias=False, norm=norm), Down(2 * width, 4 * width, antialias=False, norm=norm)
        )
        self.blocks = nn.Sequential(*(Residual(4 * width, norm=norm) for _ in range(blocks)))
        self.up = nn.Sequential(Up(4 * width, 2 * width, norm=norm), Up(2 * width, width, norm=norm))
        self.last = nn.Conv2d(width, 3, EDGE)
        self.apply(initialise)
        if skip:
            self.light = ConditionalNorm(3, len(styles))
            nn.init.constant_(self.light.weight, LIGHT)
            nn.init.zeros_(self.last.weight)

    def forward(self, images: Tensor, shares: Tensor | None = None) -> Tensor:
        """Draw `images`, float, B 3 H W, -1..1, H and W multiples of 4 and at least 16; the same shape and range.

        Args:
            shares: float32, B S, of each style in each picture; None: as chosen.

        Raises:
            ValueError: none are given, none were chosen, and there are several styles.
        """
        if shares is None and len(self.styles) == 1:
            shares = images.new_ones(len(images), 1, dtype=torch.float32)
        for norm in self._norms():
            norm.shares = shares
        halved = self.down[0](self.first(images))
        features = self.up[0](self.blocks(self.down[1](halved)))
        features = self.up[1](features + halved if self.skip else features)
        drawn = self.last(reflect(features, EDGE // 2))
        return torch.tanh(drawn + self.light(images.mean(1, keepdim=True).expand_as(images)) if self.skip else drawn)

    def choose(self, shares: Sequence[float]) -> None:
        """Draw in this mixture, one share a style, from now on; made once, of the weights as they are.

        Raises:
            ValueError: not one for each style, one below 0, or none above.
        """
        if len(shares) != len(self.styles) or min(shares) < 0 or not sum(shares) > 0:
            wanted = f"one for each of {', '.join(self.styles)}, none below 0 and one above"
            raise ValueError(f"shares: {wanted}; got {list(shares)}")
        for norm in self._norms():
            norm.choose(torch.tensor(shares) / sum(shares))

    @contextmanager
    def statistics_of(self, images: Tensor) -> Iterator[None]:
        """Until the block ends, normalise by the statistics of `images` (1 3 H W), whatever is drawn."""
        with statistics_of(self, images):
            yield

    def _norms(self) -> Iterator[ConditionalNorm]:
        return (module for module in self.modules() if isinstance(module, ConditionalNorm))


class ConditionalNorm(Normalisation):
    """Instance normalisation with a learnt scale and offset per style and channel (Dumoulin et al. 2017)."""

    def __init__(self, channels: int, styles: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(styles, channels))
        self.bias = nn.Parameter(torch.zeros(styles, channels))
        self.shares: Tensor | None = None  # B S, of the batch that is drawn
        self.scale: Tensor | None  # C, of the mixture that was chosen; made of the weights, and not kept with them
        self.offset: Tensor | None
        self.register_buffer("scale", None, persistent=False)
        self.register_buffer("offset", None, persistent=False)

    def choose(self, shares: Tensor) -> None:
        """Mix scale and offset in these shares, S."""
        shares = shares.to(self.weight.device)
        self.scale, self.offset = shares @ self.weight.detach(), shares @ self.bias.detach()

    def forward(self, features: Tensor) -> Tensor:
        if self.shares is not None:
            with torch.autocast(features.device.type, enabled=False):
                scale, offset = self.shares @ self.weight, self.shares @ self.bias
            return self.normalised(features, scale, offset)
        if self.scale is None or self.offset is None:
            raise ValueError("several styles: give shares, or choose a style first")
        return self.normalised(features, self.scale, self.offset)


ARCHITECTURE = StyleNet
