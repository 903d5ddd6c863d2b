"""CycleGAN's networks (Zhu et al. 2017, arXiv:1703.10593)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from celebvision.models.preprocessing import Preprocessing

GRID = 4  # the generator shrinks by it and grows back, so both sides of its input are multiples of it
SMALLEST = 16  # pixels of a side: a quarter of it must still be larger than what is reflected around it
FIRST_DEVIATION = 0.02  # of initial weights (section 7.1 of the paper's appendix)
BLUR = (1.0, 2.0, 1.0)
WITHIN = 0.98  # of tanh's range, in which its inverse is not too steep

Norm = Callable[[int], nn.Module]  # makes the normalisation of so many channels


class CycleGAN(nn.Module):
    """One direction of a CycleGAN: the ResNet generator, from pictures to pictures in another manner.

    Two strided convolutions, residual blocks at a quarter of the size, and back, each with instance normalisation
    (Johnson et al. 2016, with the paper's 6 blocks for 128 pixels and 9 for 256). Departures from the paper:

    - Resize-convolution (nearest, then 3x3) on the way up instead of transposed convolution, whose uneven overlap
      leaves a checkerboard (Odena et al. 2016).
    - `antialias`: on the way down each convolution keeps the size, and a blur takes every second pixel (Zhang 2019,
      arXiv:1904.11486), so that a shifted face is drawn with the same lines.
    - `skip`: what it draws is added to the picture, so that it begins with that and learns what to change.
    - Instance normalisation has a learnt scale and offset, as batch normalisation would.
    - Its statistics can be set from outside (`statistics_of`), so that a picture drawn in tiles has no seams.

    Args:
        size: side of the pictures that it is trained on, in pixels; it draws pictures of any size.
        width: channels of the first convolution.
        blocks: residual blocks.
        antialias: blur where it shrinks.
        skip: add what is drawn to the picture, for short trainings and manners that leave faces where they are.
    """

    def __init__(
        self, size: int = 128, width: int = 64, blocks: int = 9, antialias: bool = False, skip: bool = False
    ) -> None:
        if size < SMALLEST or size % GRID:
            raise ValueError(f"size: a multiple of {GRID}, at least {SMALLEST}; got {size}")
        if width < 1 or blocks < 1:
            raise ValueError(f"width and blocks must be positive: {width=} {blocks=}")
        super().__init__()
        self.preprocessing = Preprocessing(size, size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        self.reach = 8 * blocks + (32 if antialias else 28)  # pixels around one of the output that it depends on
        self.first = Block(3, width, kernel=7)
        self.down = nn.Sequential(
            Down(width, 2 * width, antialias=antialias), Down(2 * width, 4 * width, antialias=antialias)
        )
        self.blocks = nn.Sequential(*(Residual(4 * width) for _ in range(blocks)))
        self.up = nn.Sequential(Up(4 * width, 2 * width), Up(2 * width, width))
        self.last = nn.Conv2d(width, 3, 7)
        self.skip = skip
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Draw `images`, float, B 3 H W, -1..1, H and W multiples of 4 and at least 16; the same shape and range.

        The range is tanh's: -1 is black, 1 is white, which `preprocessing` makes of pixels.
        """
        features = self.up(self.blocks(self.down(self.first(images))))
        drawn = self.last(reflect(features, 3))
        return torch.tanh(drawn + torch.atanh(images.clamp(-WITHIN, WITHIN)) if self.skip else drawn)

    @contextmanager
    def statistics_of(self, images: Tensor) -> Iterator[None]:
        """Until the block ends, normalise by the statistics of `images` (1 3 H W), whatever is drawn."""
        with statistics_of(self, images):
            yield


class PatchGAN(nn.Module):
    """The discriminator, which says of each overlapping patch of 70x70 pixels how real it looks.

    As in the paper: 4x4 convolutions, instance normalisation in all but the first and the last, no sigmoid (the loss
    is least squares). With 2 strided layers instead of 3 a patch has 34x34 pixels, with 1, 16x16 (Isola et al. 2017).

    Args:
        width: channels of the first convolution; the next ones double them, up to eight times.
        layers: strided convolutions.
    """

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = width
        for layer in range(1, layers + 1):
            wider = width * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            parts += [nn.Conv2d(channels, wider, 4, stride=stride, padding=1, bias=False), InstanceNorm(wider)]
            parts += [nn.LeakyReLU(0.2)]
            channels = wider
        self.parts = nn.Sequential(*parts, nn.Conv2d(channels, 1, 4, padding=1))
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Judge `images`, float, B 3 H W, -1..1: B 1 h w, about 1 where a patch looks real and 0 where it does not."""
        judged: Tensor = self.parts(images)
        return judged


class Normalisation(nn.Module):
    """Instance normalisation (Ulyanov et al. 2016, arXiv:1607.08022); whoever inherits knows scale and offset."""

    def __init__(self) -> None:
        super().__init__()
        self.keeps = False
        self.kept: tuple[Tensor, Tensor] | None = None

    def normalised(self, features: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """Features, B C H W, normalised each for itself, then times `scale` plus `offset`: C for all, or B C."""
        kept = self.kept
        if self.keeps and kept is None:
            variance, mean = torch.var_mean(features.float(), dim=(0, 2, 3), correction=0)
            self.kept = mean, variance
        if scale.ndim == 1 and kept is not None:
            return functional.batch_norm(features, *kept, scale, offset)
        if scale.ndim == 1 and features.device.type != "cpu":
            return functional.instance_norm(features, weight=scale, bias=offset)
        # An image at a time, batch normalisation is the same function, and on CPUs with channels_last in bfloat16 it
        # takes a fifteenth of the time of group_norm with a group a channel (torch 2.15).
        count, channels = features.shape[:2]
        scales, offsets = scale.expand(count, channels), offset.expand(count, channels)
        running = (None, None) if kept is None else kept
        normed = [
            functional.batch_norm(one, *running, *own, training=kept is None)  # type: ignore[misc]
            for one, *own in zip(features.split(1), scales, offsets, strict=True)
        ]
        return torch.cat(normed)


class InstanceNorm(Normalisation):
    """Instance normalisation with learnt scale and offset per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        return self.normalised(features, self.weight, self.bias)


class Block(nn.Module):
    """Reflection padding, convolution, instance normalisation, ReLU; the size stays."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, norm: Norm = InstanceNorm
    ) -> None:
        super().__init__()
        self.padding = kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, bias=False)  # the norm takes any bias away
        self.norm = norm(outputs)

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(reflect(features, self.padding))))


class Down(nn.Module):
    """Halve the size: by a strided convolution, or by a convolution and a blur that takes every second pixel."""

    def __init__(self, inputs: int, outputs: int, *, antialias: bool, norm: Norm = InstanceNorm) -> None:
        super().__init__()
        self.block = Block(inputs, outputs, stride=1 if antialias else 2, norm=norm)
        self.antialias = antialias

    def forward(self, features: Tensor) -> Tensor:
        features = self.block(features)
        return blur_down(features) if self.antialias else features


class Up(nn.Module):
    """Double the size: nearest neighbours, then a convolution."""

    def __init__(self, inputs: int, outputs: int, *, norm: Norm = InstanceNorm) -> None:
        super().__init__()
        self.block = Block(inputs, outputs, norm=norm)

    def forward(self, features: Tensor) -> Tensor:
        drawn: Tensor = self.block(functional.interpolate(features, scale_factor=2.0, mode="nearest"))
        return drawn


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut, without ReLU behind the sum."""

    def __init__(self, channels: int, *, norm: Norm = InstanceNorm) -> None:
        super().__init__()
        self.block = Block(channels, channels, norm=norm)
        self.conv = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm = norm(channels)

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.norm(self.conv(reflect(self.block(features), 1)))
        return features + change


@contextmanager
def statistics_of(network: nn.Module, images: Tensor) -> Iterator[None]:
    """Until the block ends, all of the network's instance normalisations take the statistics of `images`, 1 3 H W."""
    norms = [module for module in network.modules() if isinstance(module, Normalisation)]
    for norm in norms:
        norm.keeps = True
    try:
        with torch.no_grad():
            network(images)
        yield
    finally:
        for norm in norms:
            norm.keeps, norm.kept = False, None


def reflect(images: Tensor, pixels: int) -> Tensor:
    """Reflect `pixels` around each side, in the type that `images` has: autocast would make float32 of it."""
    with torch.autocast(images.device.type, enabled=False):
        return functional.pad(images, (pixels, pixels, pixels, pixels), mode="reflect")


def blur_down(features: Tensor) -> Tensor:
    """Blur by the binomial 1-2-1 along both sides and take every second pixel."""
    row = torch.tensor(BLUR, device=features.device, dtype=features.dtype)
    kernel = (row[:, None] * row / row.sum() ** 2).expand(features.shape[1], 1, -1, -1)
    return functional.conv2d(reflect(features, 1), kernel, stride=2, groups=features.shape[1])


def initialise(module: nn.Module) -> None:
    """First weights of a convolution, as in the paper."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, FIRST_DEVIATION)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


ARCHITECTURE = CycleGAN
