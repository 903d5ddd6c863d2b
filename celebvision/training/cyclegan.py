"""Learning to draw photos in the manner of a style set, and back: CycleGAN (Zhu et al. 2017, arXiv:1703.10593)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from celebvision.celeba.styles import StylePictures
from celebvision.config import TrainSettings
from celebvision.models.classifier import has_bfloat16
from celebvision.models.cyclegan import CycleGAN, PatchGAN
from celebvision.models.diffaugment import diff_augment
from celebvision.models.features import Features, fid, kid
from celebvision.models.projected import ProjectedGAN, Projection
from celebvision.models.vgg import VGG
from celebvision.training.average import Average
from celebvision.training.loop import SCORE, Batch

BETAS = (0.5, 0.999)  # of Adam, as in the paper's code
LOADED = 1.12  # side of a photo before its random crop, in sides of the crop: 286 for 256 in the paper
VALID_BATCH = 16
ALIKE = 0.2  # share of the style set's variety below which a generator is said to draw the same picture always
BEATEN = 0.01  # loss of a discriminator that nothing fools any more; chance is 0.25


@dataclass(frozen=True)
class Judged:
    """What the task is judged by: the same on every worker and in every epoch."""

    photos: NDArray[np.uint8]  # N H W 3, of the validation split
    styles: NDArray[np.uint8]  # M H W 3
    features: Features
    projects: VGG | None = None  # through which a discriminator of styles looks


class CycleGANTask:
    """The task: two generators, two discriminators, an Adam for each pair, and the generators' average over time."""

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
        self.settings, self.words, self.device, self.rank, self.world = settings, settings.cyclegan, device, rank, world
        (phase,) = settings.phases
        self.epochs, self.peak_rate = phase.epochs, phase.learning_rate
        self.generators = Generators(settings.arguments).to(device).to(memory_format=torch.channels_last)
        vgg = judged.projects
        self.projection = Projection(vgg.to(device), torch.from_numpy(judged.styles)) if vgg else None
        channels = self.projection.channels if self.projection else {}
        self.discriminators = Discriminators(self.words.discriminator_width, self.words.discriminator_layers, channels)
        self.discriminators.to(device).to(memory_format=torch.channels_last)
        self.average = AveragedModel(self.generators, multi_avg_fn=Average(settings.ema_decay))
        self.wrapped_generators, self.wrapped_discriminators = parallel(self.generators), parallel(self.discriminators)
        self.generator_optimizer = torch.optim.Adam(self.generators.parameters(), self.peak_rate, BETAS, fused=True)
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminators.parameters(), self.peak_rate, BETAS, fused=True
        )
        self.size = self.generators.to_style.preprocessing.height
        self.pools = ImagePool(self.words.pool), ImagePool(self.words.pool)  # of drawn styles, of drawn photos
        self.styles = StylePictures(str(settings.style_data), self.size, self.words.style_crop)
        self.generator = torch.Generator()
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))
        self.judged = judged
        self.style_features: Tensor | None = None
        self.told: list[str] = []

    def start_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        seed = int(torch.randint(2**62, ()).item())
        self.generator.manual_seed(seed)
        self.styles.load(seed)
        self.judgement = torch.zeros(2)  # sum of the discriminators' losses, and steps
        self.generators.train()

    def step(self, batch: Batch, share: float) -> dict[str, Tensor]:
        rate = self.peak_rate * linear_decay((self.epoch + share) / self.epochs)
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate
        photos = random_crops(self._normalise(batch["image"]), self.size, self.generator)
        styles = self._normalise(torch.from_numpy(self.styles.draw(len(photos), self.generator)).to(self.device))
        parts = self.words.accumulate
        pairs = list(zip(photos.chunk(parts), styles.chunk(parts), strict=True))

        # A discriminator is part of the generators' loss and learns nothing from it; its gradient would be wasted.
        self.discriminators.requires_grad_(False)
        self.generator_optimizer.zero_grad(set_to_none=True)
        drawn, losses = [], []
        for number, (photo, style) in enumerate(pairs):
            with _synced(self.wrapped_generators, last=number == len(pairs) - 1):
                of_part, pictures = self._draw(photo, style)
                (of_part["generator"] / len(pairs)).backward()
            drawn.append(pictures)
            losses.append(of_part)
        self.generator_optimizer.step()
        self.average.update_parameters(self.generators)

        self.discriminators.requires_grad_(True)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        for number, ((photo, style), (style_drawn, photo_drawn), of_part) in enumerate(
            zip(pairs, drawn, losses, strict=True)
        ):
            with _synced(self.wrapped_discriminators, last=number == len(pairs) - 1):
                loss = self._judge(photo, style, style_drawn, photo_drawn)
                (loss / len(pairs)).backward()
            of_part["discriminator"] = loss
        self.discriminator_optimizer.step()
        means = {name: torch.stack([part[name].detach() for part in losses]).mean() for name in losses[0]}
        self.judgement += torch.tensor([float(means["discriminator"]), 1.0])
        return means

    def _draw(self, photos: Tensor, styles: Tensor) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        """The generators' losses on a pair of batches, and the pictures drawn (of style, of photo), detached."""
        words = self.words
        with self.autocast:
            made = self.wrapped_generators(photos, styles, identity=words.identity_weight > 0)
            verdicts = self.discriminators(*self._seen(made["style"].float(), made["photo"].float()))
        adversarial = sum((least_squares(verdict, 1.0) for side in verdicts for verdict in side), torch.zeros(()))
        cycle = absolute(made["photo_again"], photos) + absolute(made["style_again"], styles)
        losses = {"generator": adversarial + words.cycle_weight * cycle, "adversarial": adversarial, "cycle": cycle}
        if words.identity_weight > 0:
            losses["identity"] = absolute(made["same_style"], styles) + absolute(made["same_photo"], photos)
            losses["generator"] = losses["generator"] + words.identity_weight * losses["identity"]
        return losses, (made["style"].detach().float(), made["photo"].detach().float())

    def _judge(self, photos: Tensor, styles: Tensor, style_drawn: Tensor, photo_drawn: Tensor) -> Tensor:
        """The discriminators' loss, mean of both, on real pictures and on drawn ones from the pools."""
        style_drawn = self.pools[0].swap(style_drawn, self.generator)
        photo_drawn = self.pools[1].swap(photo_drawn, self.generator)
        with self.autocast:
            seen = self._seen(torch.cat((styles, style_drawn)), torch.cat((photos, photo_drawn)))
            verdicts = self.wrapped_discriminators(*seen)
        sides = [torch.stack([discriminator_loss(*verdict.chunk(2)) for verdict in side]).mean() for side in verdicts]
        return torch.stack(sides).mean()

    def _seen(self, styles: Tensor, photos: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """What the discriminators are shown of pictures."""
        styles, photos = self._augmented(styles), self._augmented(photos)
        return styles, photos, self.projection(styles) if self.projection else {}

    def _augmented(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            images = diff_augment(images, self.words.diff_augment, self.generator)
        return images.contiguous(memory_format=torch.channels_last)

    def _normalise(self, pixels: Tensor) -> Tensor:
        """uint8 B H W 3 to float32 B 3 H W, -1..1, with channels_last strides."""
        return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    @torch.inference_mode()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Distances of what is drawn from the style set, and of what is drawn back from the photos.

        `kid` and `fid` compare drawn styles with the style set, `kid_share` is `kid` as a share of that of the photos
        themselves, `kid_reverse` compares drawn photos with photos. `cycle_l1` is the mean absolute difference of
        photos from their way there and back, pixels 0..1. `variety` is how much drawn pictures differ from each
        other, as a share of how much those of the style set do.
        """
        networks = cast(Generators, self.average.module)
        networks.eval()
        photos, styles = (self._share(pictures) for pictures in (self.judged.photos, self.judged.styles))
        drawn, again = self._drawn(networks.to_style, networks.to_photo, photos)
        back, _ = self._drawn(networks.to_photo, None, styles)
        features = self.judged.features.to(self.device)
        if self.style_features is None:
            self.style_features, self.photo_features = (self._gathered(features.of(p)) for p in (styles, photos))
            self.style_deviation = _deviation(self._gathered(_coarse(styles)))
            self.photo_kid = kid(self.photo_features, self.style_features, features.standardise)
        drawn_features, back_features = (self._gathered(features.of(pictures)) for pictures in (drawn, back))
        cycle = self._gathered((again.float() - photos.float()).abs().mean((1, 2, 3))).mean() / 255
        figures = {
            "kid": kid(drawn_features, self.style_features, features.standardise),
            "fid": fid(drawn_features, self.style_features, features.standardise),
            "kid_reverse": kid(back_features, self.photo_features, features.standardise),
            "cycle_l1": float(cycle),
            "variety": _deviation(self._gathered(_coarse(drawn))) / self.style_deviation,
        }
        figures["kid_share"] = figures["kid"] / self.photo_kid
        self.told = warnings_of(figures["variety"], float(self.judgement[0] / self.judgement[1].clamp_min(1)))
        return figures | {SCORE: -figures["kid"]}

    def _drawn(self, there: nn.Module, back: nn.Module | None, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures, uint8 B H W 3, drawn one way and that drawn back, or as it is without a way back."""
        drawn, returned = [], []
        for part in pictures.split(VALID_BATCH):
            with self.autocast:
                made = there(self._normalise(part.to(self.device)).contiguous(memory_format=torch.channels_last))
                drawn.append(_pixels(made))
                returned.append(_pixels(back(made)) if back else drawn[-1])
        return torch.cat(drawn), torch.cat(returned)

    def _share(self, pictures: NDArray[np.uint8]) -> Tensor:
        """This worker's part, as large as each other worker's."""
        whole = len(pictures) // self.world * self.world
        return torch.from_numpy(pictures[self.rank : whole : self.world].copy())

    def _gathered(self, rows: Tensor) -> Tensor:
        """The rows of all workers, on the CPU."""
        if self.world == 1:
            return rows
        rows = rows.to(self.device).contiguous()
        parts = [torch.empty_like(rows) for _ in range(self.world)]
        torch.distributed.all_gather(parts, rows)
        return torch.cat(parts).cpu()

    @torch.inference_mode()
    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        """Two grids, uint8 H W 3, with a column a picture: input, what is drawn of it, and that drawn back."""
        networks, count = cast(Generators, self.average.module), self.words.grid
        grids = {}
        for name, pictures, there, back in (
            ("photo_to_style", self.judged.photos, networks.to_style, networks.to_photo),
            ("style_to_photo", self.judged.styles, networks.to_photo, networks.to_style),
        ):
            inputs = torch.from_numpy(pictures[:count].copy())
            drawn, again = self._drawn(there, back, inputs)
            grids[name] = grid([inputs, drawn, again])
        return grids

    def warnings(self) -> list[str]:
        return self.told

    def state(self) -> dict[str, Any]:
        return {
            "generators": self.generators.state_dict(),
            "discriminators": self.discriminators.state_dict(),
            "average": self.average.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "pools": [pool.pictures for pool in self.pools],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        for name in ("generators", "discriminators", "average", "generator_optimizer", "discriminator_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        for pool, pictures in zip(self.pools, state["pools"], strict=True):
            pool.pictures = [picture.to(self.device) for picture in pictures]

    def weights(self) -> dict[str, Tensor]:
        """Both averaged generators, their names beginning with `to_style.` and `to_photo.`."""
        return {name: value.detach().cpu().contiguous() for name, value in self.average.module.state_dict().items()}


class Generators(nn.Module):
    """Both directions as one module, so that data-parallel training reduces their gradients together."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.to_style, self.to_photo = CycleGAN(**arguments), CycleGAN(**arguments)

    def forward(self, photos: Tensor, styles: Tensor, identity: bool) -> dict[str, Tensor]:
        """Draw both ways and back, B 3 H W each; with `identity` also each picture in the manner that it has."""
        count = len(photos)
        style, same_style = _split(self.to_style(torch.cat((photos, styles)) if identity else photos), count)
        photo, same_photo = _split(self.to_photo(torch.cat((styles, photos)) if identity else styles), count)
        made = {"style": style, "photo": photo, "same_style": same_style, "same_photo": same_photo}
        return made | {"photo_again": self.to_photo(style), "style_again": self.to_style(photo)}


class Discriminators(nn.Module):
    """One for each side, and one of what is seen in styles, as one module for the same reason."""

    def __init__(self, width: int, layers: int, channels: Mapping[str, int]) -> None:
        """`channels`: of the feature maps that are judged too; there may be none."""
        super().__init__()
        self.of_styles, self.of_photos = PatchGAN(width, layers), PatchGAN(width, layers)
        self.of_maps = ProjectedGAN(channels)

    def forward(self, styles: Tensor, photos: Tensor, maps: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The verdicts on styles and on photos."""
        return [self.of_styles(styles), *self.of_maps(maps)], [self.of_photos(photos)]


class ImagePool:
    """Drawn pictures of earlier steps, among those that a discriminator is shown (Shrivastava et al. 2017).

    Until `size` pictures are in it, each that comes is kept and given back. From then on each is given back or, as
    likely, changes places with one of the pool at random.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pictures: list[Tensor] = []

    def swap(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """As many pictures as `images`, B 3 H W, new ones and earlier ones."""
        given = []
        for image in images:
            if len(self.pictures) < self.size:
                self.pictures.append(image.clone())
                given.append(image)
                continue
            swaps, place = torch.rand(2, generator=generator).tolist()
            if self.size and swaps < 0.5:
                place = int(place * self.size)
                given.append(self.pictures[place])
                self.pictures[place] = image.clone()
            else:
                given.append(image)
        return torch.stack(given)


def least_squares(verdict: Tensor, wanted: float) -> Tensor:
    """LSGAN (Mao et al. 2017, arXiv:1611.04076): mean squared distance of a verdict, any shape, from what is wanted."""
    return (verdict.float() - wanted).square().mean()


def discriminator_loss(real: Tensor, drawn: Tensor) -> Tensor:
    """Half the sum of both distances: the paper divides by two, so that a discriminator learns more slowly."""
    return (least_squares(real, 1.0) + least_squares(drawn, 0.0)) / 2


def absolute(images: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference."""
    return (images.float() - wanted).abs().mean()


def linear_decay(share: float) -> float:
    """The rate at `share` 0..1 of the training, of its peak: constant for one half, then falling to 0 linearly."""
    return min(1.0, 2 * (1 - share))


def random_crops(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A square of each image, B C H W, at a random place and mirrored at random: B C size size, channels_last."""
    height, width = images.shape[2:]
    draws = torch.rand(len(images), 3, generator=generator).tolist()
    crops = []
    for image, (down, right, mirror) in zip(images, draws, strict=True):
        top, left = int(down * (height - size + 1)), int(right * (width - size + 1))
        crop = image[:, top : top + size, left : left + size]
        crops.append(crop.flip(2) if mirror < 0.5 else crop)
    return torch.stack(crops).contiguous(memory_format=torch.channels_last)


def warnings_of(variety: float, discriminator: float) -> list[str]:
    """What looks like a collapse, and what to do."""
    found = []
    if variety < ALIKE:
        found.append(
            f"the pictures drawn hardly differ from each other ({variety:.0%} of the style set's variety): the "
            "generator is collapsing. Take diff_augment, a larger cycle_weight, or a smaller learning_rate"
        )
    if discriminator < BEATEN:
        found.append(
            f"the discriminators' loss is {discriminator:.4f}, and their verdicts teach nothing any more. Take "
            "diff_augment, a smaller discriminator_width, or more style pictures"
        )
    return found


def grid(rows: Sequence[Tensor], gap: int = 2) -> NDArray[np.uint8]:
    """Pictures, uint8 N H W 3 a row, laid out as one on white."""
    count, height, width = rows[0].shape[:3]
    sheet = np.full((len(rows) * (height + gap) - gap, count * (width + gap) - gap, 3), 255, np.uint8)
    for down, row in enumerate(rows):
        for right, picture in enumerate(row.numpy()):
            top, left = down * (height + gap), right * (width + gap)
            sheet[top : top + height, left : left + width] = picture
    return sheet


def _synced(module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Data-parallel gradients are reduced once a step: with its last part."""
    no_sync = getattr(module, "no_sync", None)
    return nullcontext() if last or no_sync is None else no_sync()


def _split(images: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return images[:count], images[count:]


def _pixels(images: Tensor) -> Tensor:
    """Drawn images, B 3 H W, -1..1, as uint8 B H W 3 on the CPU."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()


def _coarse(pictures: Tensor) -> Tensor:
    """Pictures, uint8 B H W 3, at an eighth of the size: what they show, without their texture. float32 B F."""
    small = nn.functional.avg_pool2d(pictures.permute(0, 3, 1, 2).float(), 8)
    return small.flatten(1)


def _deviation(rows: Tensor) -> float:
    return float(rows.std(0).mean().clamp_min(1e-6))
