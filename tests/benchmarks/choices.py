"""What was chosen beside what could have been: the options of each choice in turns, in one process, medians."""

from __future__ import annotations

import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from celebvision import images
from celebvision.memory import keep_freed_memory
from celebvision.models import create
from celebvision.models.classifier import Classifier
from tests.benchmarks.parts import drawn
from tests.benchmarks.pictures import noise, photo

ROUNDS, BATCH, PHOTOS = 7, 64, 24
SIZE = 109, 89
Works = Mapping[str, Callable[[], int]]


def measured() -> dict[str, dict[str, float]]:
    """Images a second by choice and option; the option that was taken is the first."""
    cores = os.cpu_count() or 1
    choices = {
        "network, one thread": _network(),
        "threads of one process": _threads(cores),
        "decoding a face": _decoding(drawn()),
        "decoding a photo": _decoding([photo(number) for number in range(PHOTOS)]),
        "codec of shards, writing": _codecs(write=True),
        "codec of shards, reading": _codecs(write=False),
    }
    # Memory last: it cannot be taken back.
    return {name: _in_turns(name, works) for name, works in choices.items()} | {"memory that is freed": _memory()}


def _in_turns(name: str, works: Works) -> dict[str, float]:
    rates: dict[str, list[float]] = {option: [] for option in works}
    for number in range(ROUNDS + 1):
        for option, work in works.items():
            started = time.perf_counter()
            done = work()
            if number:  # the first does not count
                rates[option].append(done / (time.perf_counter() - started))
    figures = {option: round(statistics.median(told), 1) for option, told in rates.items()}
    print(f"{name}: {figures}", file=sys.stderr, flush=True)
    return figures


def _network() -> Works:
    network, pixels = create("cnn").eval(), noise(BATCH, *SIZE)
    classifier = Classifier(network, ("Male",))
    size = classifier.preprocessing

    def plain(dtype: torch.dtype, memory_format: torch.memory_format) -> int:
        torch.set_num_threads(1)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            network(size.normalise(pixels).contiguous(memory_format=memory_format))
        return BATCH

    def ours() -> int:
        torch.set_num_threads(1)
        classifier.probabilities(pixels)
        return BATCH

    return {
        "bfloat16, channels_last, norms folded": ours,
        "bfloat16, channels_last": lambda: plain(torch.bfloat16, torch.channels_last),
        "bfloat16": lambda: plain(torch.bfloat16, torch.contiguous_format),
        "float32, channels_last": lambda: plain(torch.float32, torch.channels_last),
        "float32": lambda: plain(torch.float32, torch.contiguous_format),
    }


def _threads(cores: int) -> Works:
    classifier, pixels = Classifier(create("cnn"), ("Male",)), noise(BATCH, *SIZE)

    def work(threads: int) -> int:
        torch.set_num_threads(threads)
        classifier.probabilities(pixels)
        return BATCH

    return {str(count): partial(work, count) for count in sorted({1, 2, cores})}


def _decoding(pictures: list[bytes]) -> Works:
    def ours() -> int:
        for data in pictures:
            images.decode(data, *SIZE)
        return len(pictures)

    def whole(resampling: Image.Resampling, draft: bool) -> int:
        for data in pictures:
            image = Image.open(io.BytesIO(data))
            if draft:
                image.draft("RGB", (SIZE[1], SIZE[0]))
            np.asarray(image.convert("RGB").resize((SIZE[1], SIZE[0]), resampling))
        return len(pictures)

    return {
        "scaled by the DCT, then resized": ours,
        "Pillow, scaled by the DCT (draft)": lambda: whole(Image.Resampling.BICUBIC, draft=True),
        "Pillow, whole, bicubic": lambda: whole(Image.Resampling.BICUBIC, draft=False),
        "Pillow, whole, bilinear": lambda: whole(Image.Resampling.BILINEAR, draft=False),
    }


def _codecs(write: bool) -> Works:
    pictures = drawn() * 5
    table = pa.table({"image": pictures})

    def file_of(codec: str) -> bytes:
        content = io.BytesIO()
        pq.write_table(table, content, compression=codec)
        return content.getvalue()

    def work(codec: str) -> Callable[[], int]:
        file = file_of(codec)

        def once() -> int:
            if write:
                file_of(codec)
            else:
                pq.read_table(io.BytesIO(file), use_threads=False)
            return len(pictures)

        return once

    return {codec: work(codec) for codec in ("none", "snappy", "zstd")}


def _memory() -> dict[str, float]:
    """The same network before and after this process was told to keep what it frees."""
    torch.set_num_threads(1)
    classifier, pixels = Classifier(create("cnn"), ("Male",)), noise(BATCH, *SIZE)

    def work() -> int:
        classifier.probabilities(pixels)
        return BATCH

    given_back = _in_turns("memory that is freed", {"given back": work})
    keep_freed_memory()
    return _in_turns("memory that is freed", {"kept": work}) | given_back
