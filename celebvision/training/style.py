"""Learning to draw photos in styles that VGG measures: feed-forward networks of one forward pass a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from celebvision.celeba.styles import StylePictures
from celebvision.config import PerceptualSettings, TrainSettings
from celebvision.job import JobFailed
from celebvision.models.adain import CONTENT_LAYER, AdaIN
from celebvision.models.classifier import has_bfloat16
from celebvision.models.perceptual import Losses
from celebvision.models.style_net import ConditionalNorm, StyleNet
from celebvision.styling import perceptual
from celebvision.training.average import Average
from celebvision.training.cyclegan import grid, linear_decay, random_crops
from celebvision.training.loop import SCORE, Batch
from celebvision.training.muon import Muon

VALID_BATCH = 16
CHANNELS = 3  # of a picture: convolutions from or to it are Adam's
# Times the learning rate, of a style's own scales and offsets: only its own pictures move them, and they begin alike.
OWN_RATE = 10.0
HIDDEN_RATE = 60.0  # the same of hidden convolutions: Muon's steps say how far a whole layer moves, not one weight
SHOWN_PHOTOS, SHOWN_STYLES = 6, 6  # of a grid; a network with named styles shows all of them
STYLE_CROP = (0.5, 1.0)  # least and largest crop of a picture of adain's style set, share of its shorter side


@dataclass(frozen=True)
class Judged:
    """What all workers are given: the same on each and in every epoch."""

    photos: NDArray[np.uint8]  # N H W 3, of the validation split
    styles: dict[str, NDArray[np.uint8]]  # H W 3 each, by name, the shorter side that of the training
    vgg: dict[str, Tensor]  # weights by torchvision's names


class Learner(Protocol):
    """What a kind of network learns by: how it draws a batch in training, and for people to judge."""

    learns: nn.Module  # the network, or the part of it that learns

    def start_epoch(self, seed: int) -> None:
        """Get ready what is drawn after; only the epoch's seed may decide on it."""

    def losses(self, learns: nn.Module, photos: Tensor, generator: torch.Generator) -> Losses:
        """Of `photos`, B 3 H W, -1..1, each drawn by `learns` in a style that `generator` chooses."""

    def judged(self, learns: nn.Module, photos: Tensor, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Figures of each validation photo, B each: `total`, `content_loss` and `style_loss` among them.

        Args:
            photos: B 3 H W, -1..1.
            numbers: of these photos among all, so that each is judged alike whichever worker has it.
        """

    def drawn(self, learns: nn.Module, photos: Tensor) -> list[tuple[NDArray[np.uint8], Tensor]]:
        """Style pictures, H W 3, and `photos` drawn after each, B 3 H W, -1..1."""

    def state_of(self, learns: nn.Module) -> Mapping[str, Tensor]:
        """All of the network's weights, where these are of the part that learns."""


class StyleTask:
    """The task: the part of a network that learns, its average over time, and its optimizers."""

    def __init__(
        self,
        settings: TrainSettings,
        judged: Judged,
        device: torch.device,
        rank: int,
        world: int,
        parallel: Callable[[nn.Module], nn.Module],
    ) -> None:
        """`parallel` makes a network compute one gradient with those of the other workers."""
        torch.manual_seed(settings.seed)
        self.settings, self.judged, self.device, self.rank, self.world = settings, judged, device, rank, world
        (phase,) = settings.phases
        self.epochs, self.peak_rate = phase.epochs, phase.learning_rate
        self.learner: Learner = LEARNERS[settings.architecture](settings, judged, device)
        self.average = AveragedModel(self.learner.learns, multi_avg_fn=Average(settings.ema_decay))
        self.wrapped = parallel(self.learner.learns)
        self.optimizers = _optimizers(self.learner.learns, self.peak_rate)
        self.size = judged.photos.shape[1]
        self.generator = torch.Generator()

    def start_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        seed = int(torch.randint(2**62, ()).item())
        self.generator.manual_seed(seed)
        self.learner.start_epoch(seed)
        self.learner.learns.train()

    def step(self, batch: Batch, share: float) -> dict[str, Tensor]:
        rate = self.peak_rate * linear_decay((self.epoch + share) / self.epochs)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = group["factor"] * rate
        photos = random_crops(normalised(batch["image"], self.device), self.size, self.generator)
        losses = self.learner.losses(self.wrapped, photos, self.generator)
        self.learner.learns.zero_grad(set_to_none=True)
        # The logarithm's gradient is a share of what is left: a style that no picture comes near to, or a photo that
        # is far from it, pulls no more than the others.
        losses.total.log().mean().backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update_parameters(self.learner.learns)
        shown = {"loss": losses.total, "content": losses.content, "style": losses.style}
        return {name: each.detach().mean() for name, each in shown.items()}

    @torch.inference_mode()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Mean losses of the averaged weights on the first validation photos, which every worker has a share of.

        `style_loss_NAME` is of the photos drawn in that style, `style_loss` the mean of all styles; `content_loss`
        tells how far what VGG sees in a photo has moved. The score is the weighted total, which is learnt from.
        """
        self.average.eval()
        whole = len(self.judged.photos) // self.world * self.world
        numbers = list(range(self.rank, whole, self.world))
        parts: list[dict[str, Tensor]] = []
        for start in range(0, len(numbers), VALID_BATCH):
            some = numbers[start : start + VALID_BATCH]
            photos = normalised(torch.from_numpy(self.judged.photos[some]), self.device)
            parts.append(self.learner.judged(self.average.module, photos, some))
        names = list(parts[0])
        rows = torch.cat([torch.stack([part[name].float() for name in names], dim=1) for part in parts])
        figures = dict(zip(names, self._gathered(rows).mean(0).tolist(), strict=True))
        return figures | {SCORE: -figures.pop("total")}

    def _gathered(self, rows: Tensor) -> Tensor:
        """The rows of all workers, on the CPU, in the order of the photos, so that sums are the same for any world."""
        if self.world == 1:
            return rows.cpu()
        parts = [torch.empty_like(rows) for _ in range(self.world)]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.stack(parts, dim=1).flatten(0, 1).cpu()

    @torch.inference_mode()
    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        """A grid, uint8 H W 3, with a column a photo and a row a style: what it is drawn after stands first."""
        self.average.eval()
        photos = torch.from_numpy(self.judged.photos[:SHOWN_PHOTOS])
        rows = [torch.cat((torch.full_like(photos[:1], 255), photos))]
        for style, drawn in self.learner.drawn(self.average.module, normalised(photos, self.device)):
            rows.append(torch.cat((torch.from_numpy(middle(style, self.size))[None], _pixels(drawn))))
        return {"styles": grid(rows)}

    def warnings(self) -> list[str]:
        return []

    def state(self) -> dict[str, Any]:
        return {
            "learns": self.learner.learns.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.learner.learns.load_state_dict(state["learns"])
        self.average.load_state_dict(state["average"])
        for optimizer, of_optimizer in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(of_optimizer)

    def weights(self) -> dict[str, Tensor]:
        """Of the network as it is published: averaged what learns, and the rest as it came."""
        state = self.learner.state_of(self.average.module)
        return {name: value.detach().cpu().contiguous() for name, value in state.items()}


class StyleNetLearner:
    """One network for the styles of some pictures (Johnson et al. 2016, Dumoulin et al. 2017)."""

    def __init__(self, settings: TrainSettings, judged: Judged, device: torch.device) -> None:
        self.device = device
        self.network: StyleNet = style_net(settings).to(device).to(memory_format=torch.channels_last)
        self.learns: nn.Module = self.network
        words = loss_settings(settings)
        self.losses_of = perceptual(words, settings.arch, judged.vgg, device)
        # A VGG that ends at the content's highest layer: photos need no more.
        contents = words.model_copy(update={"style_layers": words.content_layers})
        self.contents_of = perceptual(contents, settings.arch, judged.vgg, device)
        self.pictures = [judged.styles[name] for name in self.network.styles]
        grams = [self.losses_of.style(_shown(normalised(_tensor(picture), device))) for picture in self.pictures]
        self.grams = {layer: torch.cat([of_style[layer] for of_style in grams]) for layer in grams[0]}  # S C C
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))

    def start_epoch(self, seed: int) -> None:
        """Nothing: the styles are the same in every epoch."""

    def losses(self, learns: nn.Module, photos: Tensor, generator: torch.Generator) -> Losses:
        return self.of(learns, photos, balanced(len(photos), len(self.network.styles), generator))

    def of(self, learns: nn.Module, photos: Tensor, styles: Tensor) -> Losses:
        """Losses of `photos`, B 3 H W, -1..1, each in the style with its number of `styles`, B."""
        drawn = self._draw(learns, photos, styles)
        grams = {layer: value[styles.to(self.device)] for layer, value in self.grams.items()}
        return self.losses_of.losses(_shown(drawn), self.contents_of.content(_shown(photos)), grams)

    def judged(self, learns: nn.Module, photos: Tensor, numbers: Sequence[int]) -> dict[str, Tensor]:
        content, grams = self.contents_of.content(_shown(photos)), self.grams
        found = []
        for style in range(len(self.network.styles)):
            drawn = self._draw(learns, photos, torch.full((len(photos),), style))
            wanted = {layer: value[style : style + 1] for layer, value in grams.items()}
            found.append(self.losses_of.losses(_shown(drawn), content, wanted))
        means = {
            "total": torch.stack([losses.total for losses in found]).mean(0),
            "content_loss": torch.stack([losses.content for losses in found]).mean(0),
            "style_loss": torch.stack([losses.style for losses in found]).mean(0),
        }
        by_name = zip(self.network.styles, found, strict=True)
        return means | {f"style_loss_{name}": losses.style for name, losses in by_name}

    def drawn(self, learns: nn.Module, photos: Tensor) -> list[tuple[NDArray[np.uint8], Tensor]]:
        styles = [torch.full((len(photos),), style) for style in range(len(self.pictures))]
        return [
            (picture, self._draw(learns, photos, style)) for picture, style in zip(self.pictures, styles, strict=True)
        ]

    def state_of(self, learns: nn.Module) -> Mapping[str, Tensor]:
        return learns.state_dict()

    def _draw(self, learns: nn.Module, photos: Tensor, styles: Tensor) -> Tensor:
        shares = functional.one_hot(styles, len(self.network.styles)).float().to(self.device)
        with self.autocast:
            drawn: Tensor = learns(photos, shares)
        return drawn.float()


class AdaINLearner:
    """A decoder for the statistics of any picture (Huang and Belongie 2017).

    The content loss is the paper's (equation 12): the features that the decoder was given against those of what it
    drew. Departure: style is measured by Gram matrices, as everywhere here, and not by mean and deviation; and both
    losses are shares of what is wanted (`Perceptual`).
    """

    def __init__(self, settings: TrainSettings, judged: Judged, device: torch.device) -> None:
        self.device = device
        self.network: AdaIN = adain(settings)
        self.network.encoder.load(judged.vgg)
        self.network.to(device).to(memory_format=torch.channels_last)
        self.learns: nn.Module = self.network.decoder
        self.losses_of = perceptual(loss_settings(settings), settings.arch, judged.vgg, device)
        self.styles = StylePictures(str(settings.style_data), self.network.preprocessing.height, STYLE_CROP)
        self.pictures = list(judged.styles.values())
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))

    def start_epoch(self, seed: int) -> None:
        self.styles.load(seed)

    def losses(self, learns: nn.Module, photos: Tensor, generator: torch.Generator) -> Losses:
        return self.of(learns, photos, torch.from_numpy(self.styles.draw(len(photos), generator)))

    def of(self, learns: nn.Module, photos: Tensor, styles: Tensor) -> Losses:
        """Losses of `photos`, B 3 H W, -1..1, each drawn after its style picture, uint8 B H W 3."""
        after = normalised(styles, self.device)
        drawn, target = self._draw(learns, photos, after)
        return self.losses_of.losses(_shown(drawn), {CONTENT_LAYER: target}, self.losses_of.style(_shown(after)))

    def judged(self, learns: nn.Module, photos: Tensor, numbers: Sequence[int]) -> dict[str, Tensor]:
        styles = np.stack([self.pictures[number % len(self.pictures)] for number in numbers])
        losses = self.of(learns, photos, torch.from_numpy(styles))
        return {"total": losses.total, "content_loss": losses.content, "style_loss": losses.style}

    def drawn(self, learns: nn.Module, photos: Tensor) -> list[tuple[NDArray[np.uint8], Tensor]]:
        shown = []
        for picture in self.pictures[:SHOWN_STYLES]:
            after = normalised(_tensor(picture), self.device).expand_as(photos)
            shown.append((picture, self._draw(learns, photos, after)[0]))
        return shown

    def state_of(self, learns: nn.Module) -> Mapping[str, Tensor]:
        decoder = {f"decoder.{name}": value for name, value in learns.state_dict().items()}
        return self.network.state_dict() | decoder

    def _draw(self, learns: nn.Module, photos: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """What is drawn, B 3 H W, -1..1, and the features that it was drawn of."""
        with self.autocast:
            target = self.network.target(photos, after)
            drawn: Tensor = learns(target)
        return drawn.float(), target


LEARNERS: dict[str, Callable[[TrainSettings, Judged, torch.device], Learner]] = {
    "style_net": StyleNetLearner,
    "adain": AdaINLearner,
}


def _optimizers(learns: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Adam (arXiv:1412.6980); Muon for a `style_net`'s convolutions of features. `factor`: times the settings' rate."""
    if not isinstance(learns, StyleNet):
        return [torch.optim.Adam([{"params": list(learns.parameters()), "factor": 1.0}], rate, fused=True)]
    own = [one for part in learns.modules() if isinstance(part, ConditionalNorm) for one in part.parameters()]
    hidden = [one for one in learns.parameters() if one.ndim == 4 and min(one.shape[:2]) > CHANNELS]
    ids = {id(one) for one in [*own, *hidden]}
    rest = [one for one in learns.parameters() if id(one) not in ids]
    groups = [{"params": own, "factor": OWN_RATE}, {"params": rest, "factor": 1.0}]
    return [torch.optim.Adam(groups, rate, fused=True), Muon([{"params": hidden, "factor": HIDDEN_RATE}], rate)]


def style_net(settings: TrainSettings) -> StyleNet:
    """The untrained network that the settings describe. Raises `JobFailed` for arguments that it does not take."""
    try:
        return StyleNet(list(settings.styles), **settings.arguments)
    except (TypeError, ValueError) as error:
        raise JobFailed(f"arguments: {settings.arguments} are refused by style_net: {error}") from None


def adain(settings: TrainSettings) -> AdaIN:
    """The untrained network that the settings describe. Raises `JobFailed` for arguments that it does not take."""
    try:
        return AdaIN(settings.arch, **settings.arguments)
    except (TypeError, ValueError) as error:
        raise JobFailed(f"arguments: {settings.arguments} are refused by adain: {error}") from None


def loss_settings(settings: TrainSettings) -> PerceptualSettings:
    """The losses' settings; content of an AdaIN is measured where its decoder begins.

    Raises:
        JobFailed: other content layers are set for an AdaIN.
    """
    words = settings.perceptual
    if settings.architecture != "adain":
        return words
    if "content_layers" in words.model_fields_set and words.content_layers != [CONTENT_LAYER]:
        raise JobFailed(
            f"perceptual.content_layers: {', '.join(words.content_layers)}: content of an adain is {CONTENT_LAYER}, "
            "of which its decoder draws; leave it out"
        )
    return words.model_copy(update={"content_layers": [CONTENT_LAYER]})


def balanced(count: int, styles: int, generator: torch.Generator) -> Tensor:
    """Numbers of styles, int64 B, in random order: none is among them more than once oftener than another."""
    rounds = -(-count // styles)
    return torch.cat([torch.randperm(styles, generator=generator) for _ in range(rounds)])[:count]


def normalised(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 B H W 3 to float32 B 3 H W, -1..1, with channels_last strides, on the device."""
    return pixels.to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def _shown(images: Tensor) -> Tensor:
    """-1..1 to 0..1, as VGG takes them."""
    return ((images + 1) / 2).contiguous(memory_format=torch.channels_last)


def _tensor(picture: NDArray[np.uint8]) -> Tensor:
    """uint8 1 H W 3."""
    return torch.from_numpy(picture.copy())[None]


def middle(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The square in the middle, uint8 size size 3, of a picture whose shorter side it is."""
    top, left = ((side - size) // 2 for side in picture.shape[:2])
    return picture[top : top + size, left : left + size].copy()


def _pixels(images: Tensor) -> Tensor:
    """Drawn images, B 3 H W, -1..1, as uint8 B H W 3 on the CPU."""
    return images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()
