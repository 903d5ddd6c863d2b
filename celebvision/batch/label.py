"""What `classify` does with pictures: a network says of each what is in it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Generator, Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from celebvision import images
from celebvision.batch.clock import Clock
from celebvision.batch.fetch import Answer, Failure, Fetcher, Key
from celebvision.batch.record import POSITIVE, UNCERTAIN
from celebvision.config import BatchSettings, ClassifySettings
from celebvision.models.classifier import Classifier
from celebvision.models.preprocessing import Preprocessing
from celebvision.registry import ModelVersion

LUMA = (0.299, 0.587, 0.114)  # of R, G and B (ITU-R BT.601)
FRAMES = (b"\xc0", b"\xc1", b"\xc2")  # markers of a JPEG's frame, behind which there is no EXIF
LUMA_STEP = 4  # of the rows and columns that are looked at: all of them would take twice as long


class Photo(NamedTuple):
    """A picture as the network takes it, uint8 H W 3, and as it is stored: sides upright, in pixels, and bytes."""

    pixels: NDArray[np.uint8]
    width: int
    height: int
    bytes: int


class Labelling:
    """A network that gives probabilities, and what becomes of them."""

    journal_s: float | None = None  # a shard takes about a second

    def __init__(self, settings: BatchSettings, model: ModelVersion, network: nn.Module, device: str) -> None:
        self.settings, self.model = settings, model
        self.uncertain_below = (settings.uncertain_below if isinstance(settings, ClassifySettings) else None) or 0.0
        self.classifier = Classifier(network, tuple(model.targets), device, settings.batch_size)
        self.fetcher = fetcher(settings, self.classifier.preprocessing)
        suffixes = ["" if len(model.targets) == 1 else f"_{target}" for target in model.targets]
        # Of each target: the columns of its label, of that one's probability, and of its second class's; its classes.
        self.targets = [
            (f"label{suffix}", f"probability{suffix}", f"{POSITIVE}{suffix}", model.classes[target])
            for suffix, target in zip(suffixes, model.targets, strict=True)
        ]
        self.fields = [
            *chain.from_iterable(((label, pa.string()), (sure, pa.float32())) for label, sure, _, _ in self.targets),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("bytes", pa.int64()),
            ("brightness", pa.float32()),
            *((second, pa.float32()) for _, _, second, _ in self.targets),
        ]
        size = self.classifier.preprocessing
        shape = settings.batch_size, size.height, size.width, 3
        # Pinned memory is read by the GPU itself, which saves a copy of each batch.
        self.pixels = torch.zeros(shape, dtype=torch.uint8, pin_memory=self.classifier.device.type == "cuda")
        self.computed, self.compute_s = 0, 0.0  # pictures, filled ones too, and seconds of the network
        self.clock = Clock()  # of the shard that is worked on

    def pictures(self, keys: list[Key]) -> Generator[Photo | Failure]:
        """What is computed on, of the size that the network takes."""
        return photos(self.fetcher, keys, self.clock)

    def answers(
        self, keys: list[Key], pictures: Iterator[Photo | Failure], pulse: Callable[[str, float], None]
    ) -> Generator[list[Answer]]:
        """What each key ends as, some keys at a time."""
        asked = time.monotonic()
        while batch := list(islice(pictures, self.settings.batch_size)):
            self.clock.measured.waited_s += time.monotonic() - asked
            good = [photo for photo in batch if not isinstance(photo, Failure)]
            answers = iter(self._answers(good))
            answered = [photo if isinstance(photo, Failure) else next(answers) for photo in batch]
            self.clock.batch(len(good), self.settings.batch_size)
            pulse("computes", len(batch))
            yield answered
            asked = time.monotonic()

    def infer(self, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Probabilities, float32 B T. The batch is filled up, so that an answer does not hang on who is beside it."""
        started = time.monotonic()
        self._fill(pictures)
        probabilities: NDArray[np.float32] = self.classifier.probabilities(self.pixels).numpy()
        self.computed += len(self.pixels)
        self.compute_s += (took := time.monotonic() - started)
        self.clock.seconds["infer"] += took
        return probabilities[: len(pictures)]

    def _fill(self, pictures: list[NDArray[np.uint8]]) -> None:
        batch = self.pixels.numpy()
        np.stack(pictures, out=batch[: len(pictures)])
        batch[len(pictures) :] = 0

    def stored(self, answer: Answer) -> Answer:
        """As it is: a label is all in its row."""
        return answer

    def _answers(self, photos: list[Photo]) -> list[Answer]:
        if not photos:
            return []
        probabilities = self.infer([photo.pixels for photo in photos]).tolist()
        bright = brightness(self.pixels[: len(photos)]).tolist()
        return [self._answer(*of_one) for of_one in zip(photos, probabilities, bright, strict=True)]

    def _answer(self, photo: Photo, probabilities: list[float], bright: float) -> Answer:
        answer: dict[str, str | float] = {}
        for (label, sure, second, classes), positive in zip(self.targets, probabilities, strict=True):
            probability = max(positive, 1 - positive)
            answer[label] = UNCERTAIN if probability < self.uncertain_below else classes[positive > 0.5]
            answer[sure], answer[second] = probability, positive
        _, answer["width"], answer["height"], answer["bytes"] = photo
        answer["brightness"] = bright
        return answer


def fetcher(settings: BatchSettings, size: Preprocessing) -> Fetcher:
    """What fetches pictures and decodes them to the size of a network."""
    return Fetcher.of(settings, lambda data: images.decode(data, size.height, size.width, settings.max_pixels))


def photos(fetcher: Fetcher, keys: list[Key], clock: Clock) -> Generator[Photo | Failure]:
    """For each key its photo or its failure."""
    return fetcher.each(keys, lambda data: Photo(fetcher.decode(data), *stored_sides(data), len(data)), clock)


def stored_sides(data: bytes) -> tuple[int, int]:
    """Width and height of a picture that `images.decode` takes, in pixels, upright, by its header alone.

    Of a JPEG without EXIF that takes some microseconds, of anything else what Pillow takes to open it.
    """
    if data.startswith(images.JPEG_START) and not _may_be_turned(data):
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            return width, height
        except ValueError:
            pass  # a header that only Pillow takes
    image = Image.open(io.BytesIO(data), formats=images.FORMATS)
    try:
        turned = image.format != "TIFF" and image.getexif().get(images.EXIF_ORIENTATION) in (5, 6, 7, 8)
    except Exception:  # noqa: BLE001 - Pillow raises whatever broken EXIF drives it to, and such a picture is upright
        turned = False
    return (image.height, image.width) if turned else (image.width, image.height)


def _may_be_turned(data: bytes) -> bool:
    """Whether a JPEG has EXIF before its frame, or segments that are not as usual; to search all bytes took longer."""
    at = 2
    while data[at : at + 1] == b"\xff":
        if data[at + 1 : at + 2] in FRAMES:
            return False
        if data[at + 4 : at + 10] == images.EXIF_MARK:
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return True


def brightness(pictures: Tensor) -> NDArray[np.float32]:
    """Mean luma of each picture, uint8 B H W 3: float32 B, 0 (black) to 1 (white), to about 0.01."""
    some = pictures[:, ::LUMA_STEP, ::LUMA_STEP].float().mean((1, 2))
    luma: NDArray[np.float32] = (some @ torch.tensor(LUMA) / 255).clamp(0, 1).numpy()
    return luma
