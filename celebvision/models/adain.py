"""Any style by the statistics of its features: AdaIN (Huang and Belongie 2017, arXiv:1703.06868)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from celebvision.models.cyclegan import SMALLEST, Normalisation, reflect, statistics_of
from celebvision.models.gatys import shorter_side
from celebvision.models.perceptual import mixed
from celebvision.models.preprocessing import Preprocessing
from celebvision.models.vgg import BLOCKS, VGG, WIDTHS

CONTENT_LAYER = "conv4_1"
GRID = 8  # the encoder shrinks by it and the decoder grows back
EPSILON = 1e-5  # of a variance, as batch normalisation has it


class AdaIN(nn.Module):
    """Draws pictures in the style of pictures that it never saw.

    VGG's features of a picture, up to conv4_1, get the style pictures' mean and deviation in each channel, and a
    decoder draws a picture of them. VGG is frozen; only the decoder learns. Departures from the paper:

    - The decoder ends in tanh, so that it draws nothing that is no colour.
    - Of the encoder only the first convolution is padded by what is there (by replication), the others by zeros, as
      VGG was trained.
    - Statistics can be set from outside (`statistics_of`), so that a picture drawn in tiles has no seams.

    Args:
        arch: vgg19 or vgg16, of the encoder.
        size: side of the pictures that it is trained on, in pixels; it draws pictures of any size.
        width: channels of the decoder's layers, as a share of the encoder's.
    """

    def __init__(self, arch: str = "vgg19", size: int = 128, width: float = 1.0) -> None:
        if size < SMALLEST or size % GRID:
            raise ValueError(f"size: a multiple of {GRID}, at least {SMALLEST}; got {size}")
        if not 0 < width <= 4:
            raise ValueError(f"width: a share of the encoder's channels, above 0 and up to 4; got {width}")
        super().__init__()
        self.preprocessing = Preprocessing(size, size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        self.encoder = VGG(arch, [CONTENT_LAYER], padding="replicate")
        self.norm = AdaptiveNorm()
        self.decoder = Decoder(arch, width)
        # Pixels around one of the output that it depends on: what convolutions see there and back, and the grid's own
        # cell. Rounded to the grid, so that tiles begin where cells do.
        there = 2 + 2 * 2 + 4 * BLOCKS[arch][2] + 8
        self.reach = -(-(2 * there + GRID - 1) // GRID) * GRID

    def forward(self, images: Tensor) -> Tensor:
        """Draw `images`, float, B 3 H W, -1..1, H and W 16 at least, as chosen; the same shape and range.

        Raises:
            ValueError: no style was chosen.
        """
        height, width = images.shape[2:]
        features = self.encode(_filled(images))
        drawn: Tensor = self.decoder(self.norm(features))
        return drawn[:, :, :height, :width]

    def encode(self, images: Tensor) -> Tensor:
        """The encoder's features, B C h w, of `images`, float, B 3 H W, -1..1, at an eighth of the size."""
        features: Tensor = self.encoder((images.float() + 1) / 2)[CONTENT_LAYER]
        return features

    @torch.no_grad()
    def target(self, images: Tensor, styles: Tensor) -> Tensor:
        """What the decoder is to draw in training: features of `images` with the statistics of `styles`.

        Both are float, B 3 H W, -1..1, H and W multiples of 8, a style picture for each picture. Gives B C h w.
        """
        statistics = _statistics(self.encode(styles))
        return self.norm.normalised(self.encode(images), statistics["deviation"], statistics["mean"])

    @torch.no_grad()
    def statistics(self, pictures: Sequence[Tensor], weights: Sequence[float]) -> dict[str, Tensor]:
        """What `choose` takes: the mean of these style pictures' statistics, in shares of `weights`; on the CPU.

        Args:
            pictures: uint8, 1 H W 3 each, of any size; brought to the shorter side that the network learnt at.

        Raises:
            ValueError: no picture, not one weight a picture, a weight below 0, or none above.
        """
        if not pictures or len(weights) != len(pictures) or min(weights) < 0 or not sum(weights) > 0:
            wanted = "a picture at least, and a weight for each, none below 0 and one above"
            raise ValueError(f"expected {wanted}; got {len(pictures)} pictures and {list(weights)}")
        device = next(self.parameters()).device
        found = []
        for picture in pictures:
            image = shorter_side(picture.to(device).permute(0, 3, 1, 2).float() / 255, self.preprocessing.height)
            found.append(_statistics(self.encode(_filled(2 * image - 1))))
        return {name: value[0].cpu() for name, value in mixed(found, weights).items()}

    def choose(self, statistics: Mapping[str, Tensor], alpha: float = 1.0) -> None:
        """Draw by these statistics from now on.

        Args:
            statistics: `mean` and `deviation`, float32, C, as `statistics` gives them.
            alpha: strength, 0..1: 0 draws the picture itself (section 7.3 of the paper).

        Raises:
            ValueError: statistics of another encoder, or such an alpha.
        """
        channels = WIDTHS[3]
        if any(statistics[name].shape != (channels,) for name in ("mean", "deviation")):
            shapes = {name: list(value.shape) for name, value in statistics.items()}
            raise ValueError(f"statistics: expected mean and deviation, {channels} each; got {shapes}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha: a share 0..1; got {alpha}")
        device = next(self.parameters()).device
        self.norm.scale, self.norm.offset = (statistics[name].to(device) for name in ("deviation", "mean"))
        self.norm.alpha = alpha

    @contextmanager
    def statistics_of(self, images: Tensor) -> Iterator[None]:
        """Until the block ends, normalise by the statistics of `images` (1 3 H W), whatever is drawn."""
        with statistics_of(self, images):
            yield


class AdaptiveNorm(Normalisation):
    """Adaptive instance normalisation: scale and offset are a style's (equation 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = 1.0
        self.scale: Tensor | None  # C, as chosen; not kept with the weights
        self.offset: Tensor | None
        self.register_buffer("scale", None, persistent=False)
        self.register_buffer("offset", None, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        if self.scale is None or self.offset is None:
            raise ValueError("no style was chosen: choose one first")
        drawn = self.normalised(features, self.scale, self.offset)
        return drawn if self.alpha == 1 else torch.lerp(features, drawn.to(features.dtype), self.alpha)


class Decoder(nn.Module):
    """The encoder mirrored: nearest neighbours where it pools, reflection padding, no normalisation."""

    def __init__(self, arch: str, width: float) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        inputs = WIDTHS[3]
        for block in (2, 1, 0):
            outputs = max(1, round(width * WIDTHS[block]))
            # The last convolution of a block leads to the next one's channels: the mirror of the block's first.
            parts += [Padded(inputs, outputs), nn.ReLU(inplace=True), nn.UpsamplingNearest2d(scale_factor=2)]
            for _ in range(BLOCKS[arch][block] - 1):
                parts += [Padded(outputs, outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        self.parts = nn.Sequential(*parts, Padded(inputs, 3))

    def forward(self, features: Tensor) -> Tensor:
        """Pictures, B 3 H W, -1..1, of features, B C h w."""
        return torch.tanh(self.parts(features))


class Padded(nn.Module):
    """A 3x3 convolution of what is reflected at the edges; the size stays."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3)

    def forward(self, features: Tensor) -> Tensor:
        drawn: Tensor = self.conv(reflect(features, 1))
        return drawn


def _statistics(features: Tensor) -> dict[str, Tensor]:
    """Mean and deviation of each channel over its places, float32 B C, of features, B C h w."""
    variance, mean = torch.var_mean(features.float(), dim=(2, 3), correction=0)
    return {"mean": mean, "deviation": (variance + EPSILON).sqrt()}


def _filled(images: Tensor) -> Tensor:
    """Repeat the last row and column, B 3 H W, until both sides are multiples of 8."""
    down, right = (-side % GRID for side in images.shape[2:])
    if not down and not right:
        return images
    with torch.autocast(images.device.type, enabled=False):
        return functional.pad(images, (0, right, 0, down), mode="replicate")


ARCHITECTURE = AdaIN
