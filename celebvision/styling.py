"""What redraws pictures: from the words of a command to a network of the registry, or to VGG and an optimisation."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import pyarrow as pa
import torch
from torch import Tensor

from celebvision import images, registry
from celebvision.config import VGG as OPTIMISED
from celebvision.config import PerceptualSettings, StyleWords
from celebvision.job import JobFailed, code_version, digest
from celebvision.models.adain import AdaIN
from celebvision.models.classifier import has_bfloat16
from celebvision.models.cyclegan import CycleGAN
from celebvision.models.gatys import Drawn, Gatys, Style, styles_of
from celebvision.models.perceptual import Perceptual
from celebvision.models.style_net import StyleNet
from celebvision.models.stylizer import Stylizer
from celebvision.models.vgg import VGG
from celebvision.pretrained import weights_of
from celebvision.registry import ModelVersion
from celebvision.storage import open_store

STYLE = "style."  # what the names of tensors begin with that were made of the style pictures
LEAST_SCALE = 256  # pixels of the shorter side on the coarsest scale, or up to twice as many
Figures = dict[str, float]  # of one picture, by column
Tell = Callable[[float, Tensor | None], None]  # share 0..1 that is done, and pictures as they stand, B 3 H W, 0..1


class Redraws(Protocol):
    """Redraws pictures, ready to compute."""

    columns: list[tuple[str, pa.DataType]]  # of the figures, besides `ms`

    @property
    def steps(self) -> int | None:
        """Of a picture, where it takes many: to be told of meanwhile, and not to be taken twice."""

    def draw(self, pictures: Tensor, tell: Tell) -> tuple[Tensor, list[Figures]]:
        """Pictures of one size, uint8 B H W 3, redrawn to the same on the CPU, and the figures of each."""


def resolve(words: StyleWords, registry_uri: str | None, model: str, size: int | None) -> ModelVersion:
    """The model that these words mean.

    Args:
        model: NAME or NAME@VERSION; vgg is no network of the registry, and its version stands for the weights of VGG,
            the style pictures and all words of the optimisation.
        size: shorter side of the pictures to be drawn, in pixels.

    Raises:
        JobFailed: a style that the model does not have, or cannot be read.
        RegistryError: no such model, or a damaged one.
    """
    name, _, version = model.partition("@")
    if name != OPTIMISED:
        return registry.resolve(str(registry_uri), model)
    found = _optimised(words, size)
    if version not in ("", found.version):
        raise JobFailed(
            f"{model}: the run that these words continue was begun with other VGG weights or style pictures; "
            f"now they make {found.version}; give another output"
        )
    return found


def load(words: StyleWords, registry_uri: str | None, model: ModelVersion, size: int | None) -> dict[str, Tensor]:
    """All tensors that it takes to draw by a model, on the CPU: computed once, and for every worker the same.

    Raises:
        JobFailed: as `resolve`.
        Damaged: a file of the version is missing, torn or altered.
    """
    if model.name == OPTIMISED:
        return _load_optimised(words, size or LEAST_SCALE)
    tensors = registry.load_state(str(registry_uri), model)
    if model.architecture == "adain":
        network = cast(AdaIN, registry.assemble(model, tensors))
        statistics = network.statistics([shown(uri) for uri in _wanted(words, model)], words.mixture)
        return tensors | {f"{STYLE}{name}": value for name, value in statistics.items()}
    if model.architecture == "style_net":
        _shares(words, model)
    elif words.style:
        raise JobFailed(f"style: {model.name}@{model.version} draws in one style, its own; leave out --style")
    return tensors


def redraws(words: StyleWords, model: ModelVersion, tensors: Mapping[str, Tensor], device: str) -> Redraws:
    """What draws by a model, from the tensors that `load` gave."""
    if model.name == OPTIMISED:
        return Optimised.of(words, tensors, torch.device(device))
    own = {name: value for name, value in tensors.items() if not name.startswith(STYLE)}
    network = registry.assemble(model, own)
    if isinstance(network, StyleNet):
        network.choose(_shares(words, model))
    elif isinstance(network, AdaIN):
        network.choose({name.removeprefix(STYLE): value for name, value in tensors.items() if name.startswith(STYLE)})
    return Fed(Stylizer(cast(CycleGAN | StyleNet | AdaIN, network), device))


class Fed:
    """A feed-forward network."""

    columns: list[tuple[str, pa.DataType]] = []  # noqa: RUF012 - the same of each
    steps: int | None = None

    def __init__(self, stylizer: Stylizer) -> None:
        self.stylizer = stylizer

    def draw(self, pictures: Tensor, tell: Tell) -> tuple[Tensor, list[Figures]]:
        started = time.monotonic()
        drawn = self.stylizer.draw(pictures)
        ms = 1000 * (time.monotonic() - started) / len(pictures)
        return drawn, [{"ms": ms}] * len(pictures)


@dataclass
class Optimised:
    """The optimisation of pixels by VGG's losses."""

    gatys: Gatys
    columns = [("content_loss", pa.float32()), ("style_loss", pa.float32()), ("steps", pa.int32())]  # noqa: RUF012

    @classmethod
    def of(cls, words: StyleWords, tensors: Mapping[str, Tensor], device: torch.device) -> Optimised:
        losses = perceptual(words.perceptual, words.arch, _below("vgg.", tensors), device)
        styles = []
        scales = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith(STYLE))
        for scale in range(scales):
            found = _below(f"{STYLE}{scale}.", tensors)
            picture = found.pop("picture")
            styles.append(Style({layer: value.to(device) for layer, value in found.items()}, picture))
        own = words.gatys.model_dump(exclude={"scales", "show_every"})
        return cls(Gatys(losses, styles, steps=words.steps, **own))

    @property
    def steps(self) -> int | None:
        return self.gatys.steps

    def of_steps(self, steps: int) -> Optimised:
        """The same in so many steps."""
        return Optimised(replace(self.gatys, steps=steps))

    def draw(self, pictures: Tensor, tell: Tell) -> tuple[Tensor, list[Figures]]:
        started = time.monotonic()
        drawn: Drawn = self.gatys.draw(pictures, lambda step, shown: tell(min(1.0, step / self.gatys.steps), shown))
        ms = 1000 * (time.monotonic() - started) / len(pictures)
        columns = (drawn.content_loss, drawn.style_loss, drawn.steps)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return drawn.pictures, [{"ms": ms, "content_loss": c, "style_loss": s, "steps": n} for c, s, n in rows]


def perceptual(
    settings: PerceptualSettings, arch: str, weights: Mapping[str, Tensor], device: torch.device
) -> Perceptual:
    """The losses that settings describe, by VGG with these weights, in bfloat16 where the device computes in it.

    Raises:
        JobFailed: a layer that this VGG does not have, or weights that are not its.
    """
    try:
        layers = [*settings.content_layers, *settings.style_layers]
        vgg = VGG(arch, layers, settings.pooling, settings.padding)
        vgg.load(weights)
    except ValueError as error:
        raise JobFailed(str(error)) from None
    vgg.to(device, torch.bfloat16 if has_bfloat16(device) else torch.float32).to(memory_format=torch.channels_last)
    return Perceptual(
        vgg,
        settings.content_layers,
        settings.style_layers,
        settings.content_weight,
        settings.style_weight,
        settings.variation_weight,
    )


def shown(uri: str) -> Tensor:
    """The picture at a URI, uint8 1 H W 3.

    Raises:
        JobFailed: it is no picture.
        StorageError: it cannot be had.
    """
    return _decoded(uri, _bytes_at(uri))


def _optimised(words: StyleWords, size: int | None) -> ModelVersion:
    weights, styles = _weights(words), [_bytes_at(uri) for uri in words.style]
    for uri, data in zip(words.style, styles, strict=True):
        _decoded(uri, data)
    weights_sha256 = _sha256(*(value.contiguous().numpy().tobytes() for _, value in sorted(weights.items())))
    arguments: dict[str, Any] = words.model_dump(
        mode="json", include={"style", "style_weights", "arch", "steps", "perceptual", "gatys"}
    )
    arguments |= {"size": size, "style_sha256": [_sha256(data) for data in styles]}
    made_by = digest({**arguments, "weights": weights_sha256, "style": None})
    return ModelVersion(
        name=OPTIMISED,
        version=f"{made_by}-{weights_sha256[:8]}",
        architecture=OPTIMISED,
        arguments=arguments,
        preprocessing={},
        targets=[],
        classes={},
        metrics={},
        data_digest="",
        code_version=code_version(),
        seed=words.gatys.seed,
        weights_sha256=weights_sha256,
        files={},
        created="",
    )


def _load_optimised(words: StyleWords, size: int) -> dict[str, Tensor]:
    scales = words.gatys.scales or max(1, (size // LEAST_SCALE).bit_length())
    losses = perceptual(words.perceptual, words.arch, _weights(words), torch.device("cpu"))
    losses.vgg.float()  # the style is measured once, and every step is held against it
    found = styles_of(losses, [shown(uri) for uri in words.style], words.mixture, size, scales)
    tensors = {f"vgg.{name}": value.contiguous() for name, value in losses.vgg.state_dict().items()}
    for scale, style in enumerate(found):
        tensors |= {f"{STYLE}{scale}.{layer}": value for layer, value in style.statistics.items()}
        tensors[f"{STYLE}{scale}.picture"] = style.picture
    return tensors


def _weights(words: StyleWords) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = weights_of(words.weights, words.arch)
    return weights


def _wanted(words: StyleWords, model: ModelVersion) -> list[str]:
    if not words.style:
        raise JobFailed(f"style: {model.name}@{model.version} draws after any picture; give --style URI, or several")
    return words.style


def _shares(words: StyleWords, model: ModelVersion) -> list[float]:
    """The share of each of a network's own styles, which have names; a picture's URI means the one of its file's."""
    known: list[str] = model.arguments["styles"]
    shares = dict.fromkeys(known, 0.0)
    named = [style.rpartition("/")[2].partition(".")[0] for style in words.style]
    if not named and len(known) > 1:
        raise JobFailed(f"style: {model.name}@{model.version} has several; name one, or a mixture: {', '.join(known)}")
    for style, weight in zip(named or known, words.mixture or [1.0], strict=True):
        if style not in shares:
            raise JobFailed(f"style: {model.name}@{model.version} has no {style}; it has: {', '.join(known)}")
        shares[style] += weight
    return [share / sum(shares.values()) for share in shares.values()]


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _bytes_at(uri: str) -> bytes:
    folder, _, name = uri.rpartition("/")
    return open_store(folder or ".").get(name)


def _decoded(uri: str, data: bytes) -> Tensor:
    try:
        return torch.from_numpy(images.decode_whole(data).copy())[None]
    except images.UndecodableImage as error:
        raise JobFailed(f"style: {uri}: {error}") from None


def _sha256(*parts: bytes) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()
