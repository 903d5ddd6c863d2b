"""What every feeder does alike: the words it takes, what a picture becomes, and the figures that it prints.

Pictures are the training split of CelebA's own layout; a batch is 64 of them and whether `Male` is said of each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

BATCH, WORKERS, EPOCHS = 64, 2, 4
SIZE = 109, 89  # of the CNN: height, width
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
MALE = 20  # among CelebA's attributes
RESIZED = transforms.Compose([transforms.Resize(SIZE), transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


@dataclass(frozen=True)
class Feed:
    """original: CelebA's folder; made: where the feeder's own form of it lies; tuned: decoded as ours are."""

    original: Path
    made: Path
    tuned: bool

    def pixels(self, data: bytes) -> Any:
        """uint8 H W C by our own decoder, to be normalised in batches."""
        from celebvision import images

        return images.decode(data, *SIZE)

    def transform(self, image: Image.Image) -> Any:
        """Float C H W, as documentations have it."""
        return RESIZED(image.convert("RGB"))

    def rows(self) -> list[tuple[str, int]]:
        """Names of the training split's pictures, and whether each is of a man."""
        parts = dict(line.split() for line in (self.original / "list_eval_partition.txt").read_text().splitlines())
        lines = (self.original / "list_attr_celeba.txt").read_text().splitlines()[2:]
        labels = {words[0]: int(words[1 + MALE] == "1") for words in map(str.split, lines)}
        return [(name, labels[name]) for name, part in parts.items() if part == "0"]

    def read(self, name: str) -> bytes:
        return (self.original / "img_align_celeba" / name).read_bytes()


def feed_of() -> Feed:
    words = argparse.ArgumentParser()
    words.add_argument("--original", type=Path, required=True)
    words.add_argument("--made", type=Path, required=True)
    words.add_argument("--tuned", action="store_true")
    given = words.parse_args()
    return Feed(given.original, given.made, given.tuned)


def collate(rows: list[tuple[Any, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of decoded uint8 pictures, in one copy."""
    return torch.from_numpy(np.stack([pixels for pixels, _ in rows])), torch.tensor([label for _, label in rows])


def tell(epoch: Callable[[int], Iterable[tuple[Any, Any]]]) -> None:
    """Go through the epochs and print one line; the first warms up. The rate is of an epoch as a whole."""
    rates, firsts, images = [], [], 0
    for number in range(EPOCHS):
        started, first, images = time.perf_counter(), 0.0, 0
        for pixels, _ in epoch(number):
            first = first or time.perf_counter() - started
            images += len(pixels)
        rates.append(images / (time.perf_counter() - started))
        firsts.append(first)
    figures = {"images_per_s": statistics.median(rates[1:]), "first_batch_s": statistics.median(firsts[1:])}
    print(json.dumps({**figures, "images": images}), flush=True)
