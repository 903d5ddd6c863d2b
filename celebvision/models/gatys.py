"""Neural style transfer by optimisation (Gatys et al. 2016, CVPR): a batch of pictures at once, each for itself."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from celebvision.models.perceptual import Maps, Perceptual, mixed

WINDOW = 10  # steps over which a loss must have changed, or the picture is done
HISTORY = 10  # steps that L-BFGS remembers
BETAS, EPSILON = (0.9, 0.99), 1e-8  # of Adam
SMALLEST = 32  # pixels of a side on the coarsest scale: VGG halves it four times
LUMA = (0.299, 0.587, 0.114)  # of RGB in luminance (ITU-R BT.601)

Optimizer = Literal["lbfgs", "adam"]
Start = Literal["content", "style", "noise"]


@dataclass(frozen=True)
class Style:
    """What is drawn after, on one scale, made once for all pictures."""

    statistics: dict[str, Tensor]  # layer: 1 C C
    picture: Tensor  # float32, 1 3 H W, 0..1; where an optimisation that starts from the style starts


@dataclass(frozen=True)
class Drawn:
    """What became of a batch; all on the CPU."""

    pictures: Tensor  # uint8, B H W 3
    content_loss: Tensor  # B, of these pictures as they are
    style_loss: Tensor
    steps: Tensor  # B, that each took over all scales


@dataclass(frozen=True)
class Gatys:
    """Draws pictures by changing their pixels until VGG finds the one's content and the other's style in them.

    Departures from the paper: the losses' scale (`Perceptual`); pictures are drawn small first and then larger, which
    reaches the same loss sooner (Gatys et al. 2017, arXiv:1611.07865, section 5); pixels never leave 0..1; each picture
    stops by itself, and leaves the batch, once its loss changes by less than `tolerance` in `WINDOW` steps.

    Args:
        styles: one a scale, the coarsest first; each scale has twice the side of the one before.
        steps: of each picture at most, in all scales together, half of them on the finest.
        learning_rate: of Adam, in units of the pixels' range; L-BFGS needs none.
        ema_decay: of the average of a picture over its steps, which is what is given (with Adam, whose steps swing);
            0: the last.
        original_colours: take brightness from what is drawn and colour from the picture (luminance transfer, Gatys et
            al. 2016, arXiv:1606.05897).
        seed: of the noise that `start` may begin with; the same for each picture.
    """

    losses: Perceptual
    styles: Sequence[Style]
    steps: int = 300
    optimizer: Optimizer = "lbfgs"
    learning_rate: float = 0.03
    start: Start = "content"
    tolerance: float = 0.0
    ema_decay: float = 0.0
    original_colours: bool = False
    seed: int = 0

    def draw(self, pictures: Tensor, tell: Callable[[int, Tensor], None] = lambda step, images: None) -> Drawn:
        """Redraw pictures of one size.

        Args:
            pictures: uint8, B H W 3, RGB, both sides 32 pixels at least.
            tell: called after each step with its number, from 1 on, and the pictures as they stand, float32, B 3 h w,
                0..1, on the optimisation's device and scale.

        Raises:
            ValueError: another type or shape, or too small.
        """
        _check(pictures)
        device = next(self.losses.vgg.parameters()).device
        contents = pictures.to(device).permute(0, 3, 1, 2).float() / 255
        images, taken = None, torch.zeros(len(pictures), dtype=torch.int64)
        for number, (style, steps) in enumerate(zip(self.styles, shares(self.steps, len(self.styles)), strict=True)):
            content = resized(contents, side_of(contents, number, len(self.styles)))
            images = self._first(content, style) if images is None else resized(images, content.shape[2:])
            done = int(taken.max())

            def told(step: int, shown: Tensor, done: int = done) -> None:
                tell(done + step, shown)

            images, took = self._optimise(images, self.losses.content(content), style.statistics, steps, told)
            taken += took
        assert images is not None
        if self.original_colours:
            images = with_colours_of(contents, images)
        drawn = images.clamp(0, 1).mul(255).round()
        with torch.no_grad():
            statistics = {layer: value.to(device) for layer, value in self.styles[-1].statistics.items()}
            found = self.losses.losses(drawn / 255, self.losses.content(contents), statistics)
        uint8 = drawn.permute(0, 2, 3, 1).to(torch.uint8).cpu().contiguous()
        return Drawn(uint8, found.content.cpu(), found.style.cpu(), taken)

    def _first(self, content: Tensor, style: Style) -> Tensor:
        if self.start == "content":
            return content.clone()
        if self.start == "style":
            return covering(style.picture.to(content.device), content.shape[2:]).expand_as(content).clone()
        noise = torch.rand(content.shape[1:], generator=torch.Generator().manual_seed(self.seed))
        return noise.to(content.device).expand_as(content).clone()

    def _optimise(
        self, images: Tensor, content: Maps, style: Maps, steps: int, tell: Callable[[int, Tensor], None]
    ) -> tuple[Tensor, Tensor]:
        """Each picture after its own last step, and how many steps it took."""
        images = images.contiguous(memory_format=torch.channels_last)
        style = {layer: value.to(images.device) for layer, value in style.items()}
        ended, taken = images.clone(), torch.zeros(len(images), dtype=torch.int64)
        left = torch.arange(len(images), device=images.device)  # the rows of `images` that still change
        method: _Method = LBFGS() if self.optimizer == "lbfgs" else Adam(self.learning_rate, steps)
        average = Average(self.ema_decay)
        past: deque[Tensor] = deque(maxlen=WINDOW + 1)  # losses of those that are left
        for step in range(1, steps + 1):
            loss, gradient = self._gradient(images, content, style)
            images = method.step(images, loss, gradient).clamp_(0, 1)
            average.add(images)
            past.append(loss)
            ended[left], taken[left.cpu()] = average.value, step
            tell(step, ended)
            stays = self._stays(past)
            if stays.all():
                continue
            if not stays.any():
                break
            kept = stays.nonzero().squeeze(1)
            images, left = images[kept], left[kept]
            content = {layer: value[kept] for layer, value in content.items()}
            past = deque((one[kept] for one in past), maxlen=WINDOW + 1)
            method.keep(kept)
            average.keep(kept)
        return ended, taken

    def _gradient(self, images: Tensor, content: Maps, style: Maps) -> tuple[Tensor, Tensor]:
        """The loss of each picture, B, and its gradient; no picture is in another's."""
        images = images.detach().requires_grad_()
        total = self.losses.losses(images, content, style).total
        (gradient,) = torch.autograd.grad(total.sum(), images)
        return total.detach(), gradient

    def _stays(self, past: Sequence[Tensor]) -> Tensor:
        """Which pictures go on: those whose loss is a number and still falls."""
        last = past[-1]
        if len(past) <= WINDOW or not self.tolerance:
            return torch.isfinite(last)
        return torch.isfinite(last) & ((past[0] - last).abs() > self.tolerance * last)


class _Method(Protocol):
    def step(self, images: Tensor, loss: Tensor, gradient: Tensor) -> Tensor: ...

    def keep(self, kept: Tensor) -> None: ...


class Adam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), whose rate falls to nothing along a cosine over `steps`."""

    def __init__(self, learning_rate: float, steps: int) -> None:
        self.learning_rate, self.steps, self.count = learning_rate, steps, 0
        self.mean: Tensor | None = None
        self.square: Tensor | None = None

    def step(self, images: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        """The pictures, B C H W, after one more step down their gradient."""
        if self.mean is None or self.square is None:
            self.mean, self.square = torch.zeros_like(gradient), torch.zeros_like(gradient)
        rate = self.learning_rate * (1 + math.cos(math.pi * self.count / self.steps)) / 2
        self.count += 1
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self.square.lerp_(gradient.square(), 1 - BETAS[1])
        mean = self.mean / (1 - BETAS[0] ** self.count)
        deviation = (self.square / (1 - BETAS[1] ** self.count)).sqrt_()
        return images - rate * mean / (deviation + EPSILON)

    def keep(self, kept: Tensor) -> None:
        """Forget all pictures but these."""
        if self.mean is not None and self.square is not None:
            self.mean, self.square = self.mean[kept], self.square[kept]


@dataclass
class LBFGS:
    """L-BFGS (Liu and Nocedal 1989) of many pictures at once, each with a history and a step length of its own.

    Steps are of length one, as good ones are once there is a history. A picture whose loss has risen takes steps of
    half the length from then on, and longer ones again while it falls, so that no loss is computed only to try.
    """

    pairs: deque[tuple[Tensor, Tensor, Tensor]] = field(default_factory=lambda: deque(maxlen=HISTORY))
    before: tuple[Tensor, Tensor, Tensor] | None = None  # pictures, loss and gradient of the step before
    length: Tensor | None = None  # B

    def step(self, images: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        """The pictures, B C H W, after one more step."""
        shape = images.shape
        flat, slope = images.flatten(1), gradient.flatten(1)
        if self.before is None or self.length is None:
            self.length = torch.ones_like(loss)
            # Nothing is known of the curvature yet: a step that changes pixels by a hundredth of their range.
            direction = -slope / slope.abs().mean(1, keepdim=True).clamp_min(1e-20) * 0.01
        else:
            moved, turned = flat - self.before[0], slope - self.before[2]
            curvature = (moved * turned).sum(1)
            # Of a pair without positive curvature nothing is learnt: it counts as nothing in the sums below.
            good = curvature > 1e-10 * turned.square().sum(1).clamp_min(1e-30)
            self.pairs.append((moved, turned, torch.where(good, 1 / curvature, 0.0)))
            self.length = torch.where(loss > self.before[1], self.length / 2, (self.length * 1.5).clamp_max(1.0))
            direction = -self._product(slope)
        self.before = (flat, loss, slope)
        return (flat + self.length[:, None] * direction).view(shape)

    def _product(self, slope: Tensor) -> Tensor:
        """The inverse Hessian, as far as it is known, times `slope`, B N (the two-loop recursion)."""
        found, shares = slope.clone(), []
        for moved, turned, inverse in reversed(self.pairs):
            share = inverse * (moved * found).sum(1)
            shares.append(share)
            found -= share[:, None] * turned
        scale = torch.ones_like(slope[:, 0])
        for _, turned, inverse in self.pairs:  # that of the last pair with positive curvature
            scale = torch.where(inverse > 0, 1 / (inverse * turned.square().sum(1)).clamp_min(1e-20), scale)
        found *= scale[:, None]
        for (moved, turned, inverse), share in zip(self.pairs, reversed(shares), strict=True):
            found += (share - inverse * (turned * found).sum(1))[:, None] * moved
        return found

    def keep(self, kept: Tensor) -> None:
        """Forget all pictures but these."""
        self.pairs = deque((tuple(part[kept] for part in pair) for pair in self.pairs), maxlen=HISTORY)  # type: ignore[misc]
        if self.before is not None and self.length is not None:
            self.before = (self.before[0][kept], self.before[1][kept], self.before[2][kept])
            self.length = self.length[kept]


class Average:
    """Exponential moving average of pictures over steps, without the bias towards the first."""

    def __init__(self, decay: float) -> None:
        self.decay, self.weight = decay, 0.0
        self.sum: Tensor | None = None

    def add(self, images: Tensor) -> None:
        self.sum = torch.zeros_like(images) if self.sum is None else self.sum
        self.sum = self.decay * self.sum + (1 - self.decay) * images
        self.weight = self.decay * self.weight + (1 - self.decay)

    @property
    def value(self) -> Tensor:
        assert self.sum is not None, "nothing was added"
        return self.sum / self.weight

    def keep(self, kept: Tensor) -> None:
        """Forget all pictures but these."""
        self.sum = None if self.sum is None else self.sum[kept]


def styles_of(
    losses: Perceptual, pictures: Sequence[Tensor], weights: Sequence[float], size: int, scales: int
) -> list[Style]:
    """What is drawn after, on each scale, the coarsest first, from style pictures of any size.

    Args:
        pictures: uint8, 1 H W 3 each.
        weights: shares of the pictures in the style.
        size: shorter side of the pictures to be drawn, in pixels; a style picture is shrunk or enlarged to it.
    """
    device = next(losses.vgg.parameters()).device
    found = []
    for scale in range(scales):
        side = max(SMALLEST, size // 2 ** (scales - 1 - scale))
        images = [shorter_side(picture.to(device).permute(0, 3, 1, 2).float() / 255, side) for picture in pictures]
        statistics = mixed([losses.style(image) for image in images], weights)
        found.append(Style({layer: value.cpu() for layer, value in statistics.items()}, images[0].cpu()))
    return found


def shares(steps: int, scales: int) -> list[int]:
    """So many steps of each scale, the coarsest first: half of them on the finest, and the others alike.

    What does not divide is the finest's, and so are all steps where there are too few.
    """
    coarse = steps // 2 // max(1, scales - 1)
    return [coarse] * (scales - 1) + [steps - coarse * (scales - 1)]


def side_of(contents: Tensor, number: int, scales: int) -> tuple[int, int]:
    """Height and width of B 3 H W on a scale, the coarsest being 0."""
    shrink = min(2 ** (scales - 1 - number), min(contents.shape[2:]) / SMALLEST)
    height, width = (max(SMALLEST, int(side / shrink)) for side in contents.shape[2:])
    return height, width


def resized(images: Tensor, size: Sequence[int]) -> Tensor:
    """Shrunk or enlarged, B 3 H W, 0..1."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return functional.interpolate(images, tuple(size), mode="bicubic", antialias=True).clamp(0, 1)


def shorter_side(images: Tensor, side: int) -> Tensor:
    """Shrunk or enlarged, B 3 H W, so that the shorter side has so many pixels; the shape is kept."""
    shorter = min(images.shape[2:])
    return resized(images, [max(side, round(length * side / shorter)) for length in images.shape[2:]])


def covering(images: Tensor, size: Sequence[int]) -> Tensor:
    """Shrunk or enlarged, B 3 H W, until it covers this height and width, and its middle cut out."""
    scale = max(wanted / length for wanted, length in zip(size, images.shape[2:], strict=True))
    height, width = (max(wanted, round(length * scale)) for wanted, length in zip(size, images.shape[2:], strict=True))
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return resized(images, (height, width))[:, :, top : top + size[0], left : left + size[1]]


def with_colours_of(contents: Tensor, images: Tensor) -> Tensor:
    """`images` in the colours of `contents`, both B 3 H W, 0..1: another brightness of each pixel, the same colour."""
    luma = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    return (contents + ((images - contents) * luma).sum(1, keepdim=True)).clamp(0, 1)


def _check(pictures: Tensor) -> None:
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
        raise ValueError(f"expected uint8 pictures, B H W 3; got {pictures.dtype} {list(pictures.shape)}")
    if min(pictures.shape[1:3]) < SMALLEST:
        height, width = pictures.shape[1:3]
        raise ValueError(f"{width}×{height} pixels; to be drawn by VGG a side has {SMALLEST} at least")
