"""What the page does with pictures: the code of the jobs, within the page's limits."""

from __future__ import annotations

import io
import math
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from celebvision import images, styling
from celebvision.app.models import Models
from celebvision.config import VGG, AppSettings, StyleWords
from celebvision.registry import ModelVersion

Pixels = NDArray[np.uint8]  # H W 3


class Refused(Exception):
    """A request that is not done; the message is for the person who made it."""


@dataclass(frozen=True)
class Answer:
    """What a classifier says of a picture, for one target."""

    model: ModelVersion
    target: str
    label: str
    probability: float  # of that label


@dataclass(frozen=True)
class Drawn:
    """A picture, and what was made of it, both uint8 H W 3 of the same size; by which version."""

    name: str
    before: Pixels
    after: Pixels
    model: ModelVersion

    @property
    def nbytes(self) -> int:
        """Of both."""
        return self.before.nbytes + self.after.nbytes


def opened(settings: AppSettings, data: bytes, size: int | None = None) -> Pixels:
    """The pixels of an upload; its shorter side is `size` if it is given and the picture larger.

    Raises:
        Refused: too large, or no picture.
    """
    _refuse_large(settings, data)
    if size is not None and _shorter_side(data) <= size:
        size = None
    try:
        return images.decode_whole(data, size, settings.max_pixels)
    except images.UndecodableImage as error:
        raise Refused(str(error)) from None


def _refuse_large(settings: AppSettings, data: bytes) -> None:
    if len(data) > settings.max_bytes:
        raise Refused(f"it has {len(data) / 2**20:.0f} MiB; at most {settings.max_bytes / 2**20:.0f} are taken")


def _shorter_side(data: bytes) -> float:
    """In pixels, by the head of the file; of what has none that can be read, more than any: decoding says why."""
    try:
        with Image.open(io.BytesIO(data), formats=images.FORMATS) as image:
            return min(image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return math.inf


def labels(models: Models, data: bytes) -> list[Answer]:
    """What every classifier in production says of an upload. Raises `Refused`, or as `registry.load_state`."""
    _refuse_large(models.settings, data)
    answers = []
    for model in models.classifiers():
        classifier = models.classifier(model)
        wanted = classifier.preprocessing
        try:
            pixels = images.decode(data, wanted.height, wanted.width, models.settings.max_pixels)
        except images.UndecodableImage as error:
            raise Refused(str(error)) from None
        (probabilities,) = classifier.probabilities(_batch(pixels)).tolist()
        for target, positive in zip(model.targets, probabilities, strict=True):
            no, yes = model.classes[target]
            answers.append(Answer(model, target, yes if positive >= 0.5 else no, max(positive, 1 - positive)))
    return answers


def redrawn(models: Models, model: ModelVersion, name: str, pixels: Pixels, words: StyleWords) -> Drawn:
    """A picture redrawn by a network. Raises as `Models.redraws`."""
    drawn, _ = models.redraws(model, words, min(pixels.shape[:2])).draw(_batch(pixels), lambda *_: None)
    return Drawn(name, pixels, drawn[0].numpy(), model)


def redrawn_after(models: Models, model: ModelVersion, name: str, pixels: Pixels, style: bytes) -> Drawn:
    """The same after an uploaded picture, by a network that takes any (AdaIN). Raises `Refused`, or as `redrawn`."""
    opened(models.settings, style)
    size = min(pixels.shape[:2])
    with _stored(style) as path:
        words = StyleWords(style=[path])
        redraws = styling.redraws(words, model, styling.load(words, models.settings.registry, model, size), "cpu")
    drawn, _ = redraws.draw(_batch(pixels), lambda *_: None)
    return Drawn(name, pixels, drawn[0].numpy(), model)


def mixed(drawn: Drawn, strength: float) -> Drawn:
    """What was drawn, laid over the picture itself: 0 is all of the picture, 1 all of what was drawn."""
    after = strength * drawn.after.astype(np.float32) + (1 - strength) * drawn.before
    return replace(drawn, after=after.round().astype(np.uint8))


def painted(
    models: Models, name: str, pixels: Pixels, style: bytes, steps: int, on_step: Callable[[float, Pixels], None]
) -> Drawn:
    """A picture optimised after a painting (Gatys et al. 2016), while `on_step` is shown how it forms.

    Args:
        style: the painting, as it was uploaded.
        on_step: gets the share of the steps that is done, and the picture so far; what it raises ends the painting.

    Raises:
        Refused: the painting is no picture, or it takes too long.
        JobFailed: VGG's weights cannot be had.
    """
    opened(models.settings, style)
    last = time.monotonic() + models.settings.timeout_s
    size = min(pixels.shape[:2])

    def tell(share: float, shown: Tensor | None) -> None:
        if time.monotonic() > last:
            raise Refused(f"it took over {models.settings.timeout_s:.0f} s: take fewer steps, or a smaller picture")
        if shown is not None:
            on_step(share, _shown(shown))

    with _stored(style) as path:
        words = StyleWords(style=[path], steps=steps, weights=models.settings.weights, arch=models.settings.arch)
        model = styling.resolve(words, None, VGG, size)
        redraws = styling.redraws(words, model, styling.load(words, None, model, size), "cpu")
    drawn, _ = redraws.draw(_batch(pixels), tell)
    return Drawn(name, pixels, drawn[0].numpy(), model)


def compared(drawn: Drawn, at: float) -> Pixels:
    """What was drawn, left of `at` (0..1 of the width), and the picture that it was drawn of, right of it."""
    column = round(at * drawn.before.shape[1])
    shown = drawn.before.copy()
    shown[:, :column] = drawn.after[:, :column]
    shown[:, max(0, column - 1) : column + 1] = 255
    return shown


def zipped(pictures: Mapping[str, bytes]) -> bytes:
    """A zip file of these, by name; their bytes are packed already."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, data in pictures.items():
            archive.writestr(name, data)
    return content.getvalue()


@contextmanager
def _stored(style: bytes) -> Iterator[str]:
    """Where the code of the jobs can read a style from until the block ends: a private file, under a name of ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "style"
        path.write_bytes(style)
        yield str(path)


def _batch(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels.copy())[None]


def _shown(pictures: Tensor) -> Pixels:
    """One picture as it stands, from B 3 H W, 0..1."""
    shown: Pixels = pictures[0].detach().clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return shown
