"""What `classify` does with pictures: a network says of each what is in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from itertools import islice

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from celebvision import images
from celebvision.batch.fetch import Answer, Failure, Fetcher, Key, Picture
from celebvision.config import BatchSettings
from celebvision.models.classifier import Classifier
from celebvision.models.preprocessing import Preprocessing
from celebvision.registry import ModelVersion


class Labelling:
    """A network that gives probabilities, and what becomes of them."""

    journal_s: float | None = None  # a shard takes about a second

    def __init__(self, settings: BatchSettings, model: ModelVersion, network: nn.Module, device: str) -> None:
        self.settings, self.model = settings, model
        self.classifier = Classifier(network, tuple(model.targets), device)
        self.fetcher = fetcher(settings, self.classifier.preprocessing)
        self.fields = [
            (self._column(name, target), kind)
            for target in model.targets
            for name, kind in (("label", pa.string()), ("probability", pa.float32()))
        ]
        self.computed, self.compute_s = 0, 0.0  # pictures, filled ones too, and seconds of the network

    def pictures(self, keys: list[Key]) -> Generator[Picture]:
        """What is computed on: uint8 H W 3, of the size that the network takes."""
        return self.fetcher.pixels(keys)

    def answers(
        self, keys: list[Key], pictures: Iterator[Picture], pulse: Callable[[str, float], None]
    ) -> Generator[list[Answer]]:
        """What each key ends as, some keys at a time."""
        while batch := list(islice(pictures, self.settings.batch_size)):
            good = [picture for picture in batch if not isinstance(picture, Failure)]
            answers = map(self._answer, self.infer(good) if good else [])
            answered = [picture if isinstance(picture, Failure) else next(answers) for picture in batch]
            pulse("computes", len(batch))
            yield answered

    def infer(self, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Probabilities, float32 B T. The batch is filled up, so that an answer does not hang on who is beside it."""
        started = time.monotonic()
        filled = np.zeros((self.settings.batch_size, *pictures[0].shape), dtype=np.uint8)
        filled[: len(pictures)] = pictures
        probabilities: NDArray[np.float32] = self.classifier.probabilities(torch.from_numpy(filled)).numpy()
        self.computed += len(filled)
        self.compute_s += time.monotonic() - started
        return probabilities[: len(pictures)]

    def stored(self, answer: Answer) -> Answer:
        """As it is: a label is all in its row."""
        return answer

    def _answer(self, probabilities: NDArray[np.float32]) -> Answer:
        answer: dict[str, str | float] = {}
        for target, probability in zip(self.model.targets, probabilities.tolist(), strict=True):
            negative, positive = self.model.classes[target]
            answer[self._column("label", target)] = positive if probability > 0.5 else negative
            answer[self._column("probability", target)] = max(probability, 1 - probability)
        return answer

    def _column(self, name: str, target: str) -> str:
        return name if len(self.model.targets) == 1 else f"{name}_{target}"


def fetcher(settings: BatchSettings, size: Preprocessing) -> Fetcher:
    """What fetches pictures and decodes them to the size of a network."""
    return Fetcher.of(settings, lambda data: images.decode(data, size.height, size.width, settings.max_pixels))
