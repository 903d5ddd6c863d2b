"""What `stylize` does with pictures: a network redraws each, and what it drew is put under the picture's own name."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from celebvision import images
from celebvision.batch.clock import Clock
from celebvision.batch.fetch import AHEAD_BYTES, Answer, Failure, Fetcher, Key, Picture, ahead
from celebvision.batch.record import IMAGE, IMAGES, Run
from celebvision.config import PICTURES, StylizeSettings
from celebvision.storage import Expired, Full, StorageError, Throttled, Unreachable, open_store
from celebvision.styling import Figures, Redraws

ENDINGS = {"jpeg": (".jpg", ".jpeg"), "png": (".png",), "webp": (".webp",)}
NAMELESS = ".image"  # put behind a key that does not end as pictures do
SHOWN_QUALITY = 85  # of JPEGs of pictures that are half drawn
WRITERS = 16  # threads that encode and put: a bucket takes its time to answer, and a disk to say that it has all
WRITTEN_MEANWHILE = 4  # batches that are on their way to storage while the next is drawn
JOURNAL_S = 2.0  # between journals of a shard
BATCH_VALUES = 3 * 2**20  # of a batch: no more than of one tile of the network
DOWN = (Unreachable, Throttled, Expired, Full)  # no picture is at fault for these


def output_key(key: str, form: images.Format) -> str:
    """The name below `images/` of what was drawn of `key`; no two keys share one.

    A key that ends as the format does is its own name. To others an ending is put; and to those also that such a name
    could be of: a.jpg stays a.jpg, a.png becomes a.png.jpg, a becomes a.image.jpg, a.png.jpg becomes a.png.jpg.jpg.
    """
    small, endings = key.lower(), ENDINGS[form]
    for ending in endings:
        if small.endswith(ending) and not small.removesuffix(ending).endswith((*PICTURES, NAMELESS)):
            return key
    return key + endings[0] if small.endswith(PICTURES) else key + NAMELESS + endings[0]


class Drawing:
    """What redraws pictures, and the threads that take what it drew to storage."""

    def __init__(self, settings: StylizeSettings, run: Run, redraws: Redraws) -> None:
        self.settings, self.run, self.redraws = settings, run, redraws
        # A shard may take an hour, and what was optimised is not to be optimised again for a second's sake.
        self.journal_s: float | None = 0.0 if redraws.steps else JOURNAL_S
        self.fields = [
            ("output_key", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("bytes", pa.int64()),
            ("ms", pa.float32()),
            *redraws.columns,
        ]
        self.put = open_store(settings.output).put
        self.fetcher = Fetcher.of(settings, lambda data: images.decode_whole(data, settings.size, settings.max_pixels))
        self.computed, self.compute_s = 0, 0.0  # pictures, and seconds of the network
        self.clock = Clock()  # of the shard that is worked on

    def pictures(self, keys: list[Key]) -> Generator[Picture]:
        """What is drawn: uint8 H W 3, whole, decoded while others are drawn."""
        return ahead(self.fetcher.pixels(keys, self.clock), self.settings.batch_size)

    def answers(
        self, keys: list[Key], pictures: Iterator[Picture], pulse: Callable[[str, float], None]
    ) -> Generator[list[Answer]]:
        """What each key ends as, some keys at a time: as soon as what was drawn of them is in storage.

        What was optimised is given with its pictures, before they are put, which is done when the next are asked for:
        so a journal holds them, and no picture that anyone has seen in storage is ever optimised again. A list that
        was given then holds what became of its pictures.

        Raises:
            StorageError: nothing can be written any more.
        """
        pool = ThreadPoolExecutor(WRITERS, "write")
        try:
            drawn: deque[list[Future[Answer] | Failure]] = deque()
            # Always the same keys together, wherever a run begins again: so the batches, and their bytes, are the same.
            for start in range(0, len(keys), self.settings.batch_size):
                chunk = _Chunk(self, keys[start : start + self.settings.batch_size], pool, pulse)
                drawn.append(chunk.draw(pictures))
                if self.redraws.steps:
                    answered = _ended(drawn.popleft())
                    yield answered
                    answered[:] = pool.map(self.stored, answered)
                elif len(drawn) > WRITTEN_MEANWHILE:
                    yield _ended(drawn.popleft())
            for last in drawn:
                yield _ended(last)
        finally:
            pool.shutdown(cancel_futures=True)

    def infer(
        self, pictures: list[NDArray[np.uint8]], tell: Callable[[float, Tensor | None], None]
    ) -> list[tuple[NDArray[np.uint8], Figures] | Failure]:
        """Each picture redrawn, and its figures. Those that a batch fails for are tried one by one."""
        started = time.monotonic()
        try:
            drawn, figures = self.redraws.draw(torch.from_numpy(np.stack(pictures)), tell)
        except torch.AcceleratorError:  # the device is lost, and every later picture would be
            raise
        # Of torch: OutOfMemoryError, which is a RuntimeError; ValueError: too small for the network.
        except (RuntimeError, MemoryError, ValueError) as error:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(pictures) > 1:
                return [self.infer([picture], tell)[0] for picture in pictures]
            return [Failure("infer", type(error).__name__, str(error))]
        self.computed += len(pictures)
        self.compute_s += (took := time.monotonic() - started)
        self.clock.seconds["infer"] += took
        self.clock.batch(len(pictures), self.settings.batch_size)
        return [_unless_broken(*one) for one in zip(drawn.numpy(), figures, strict=True)]

    def write(self, key: Key, pixels: NDArray[np.uint8], figures: Figures) -> Answer:
        """Encode what was drawn of a key, and put it, unless a journal is to hold it first."""
        name, started = output_key(key.key, self.settings.format), time.monotonic()
        try:
            data = images.encode(pixels, self.settings.format, self.settings.quality)
        except ValueError as error:
            return Failure("write", type(error).__name__, str(error))
        height, width = pixels.shape[:2]
        answer = {"output_key": name, "width": width, "height": height, "bytes": len(data), **figures, IMAGE: data}
        self.clock.wrote(time.monotonic() - started, 0)
        return answer if self.redraws.steps else self.stored(answer)

    def stored(self, answer: Answer) -> Answer:
        """Put the picture of an answer. A name that storage refuses is that picture's failure."""
        if isinstance(answer, Failure):
            return answer
        started = time.monotonic()
        try:
            self.put(IMAGES + answer["output_key"], answer[IMAGE])
        except DOWN:
            raise
        except (StorageError, ValueError) as error:
            return Failure("write", type(error).__name__, str(error))
        self.clock.wrote(time.monotonic() - started, answer["bytes"])
        return {name: value for name, value in answer.items() if name != IMAGE}

    def show(self, step: int, keys: list[Key], pictures: Tensor) -> None:
        """Put pictures as they stand, B 3 H W, 0..1, into the run's folder, for people to look at."""
        pixels = pictures.detach().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        for key, one in zip(keys, pixels, strict=True):
            self.put(self.run.step(output_key(key.key, "jpeg"), step), images.encode(one, "jpeg", SHOWN_QUALITY))


class _Chunk:
    """Some keys whose pictures of one size are drawn together."""

    def __init__(
        self, drawing: Drawing, keys: list[Key], pool: ThreadPoolExecutor, pulse: Callable[[str, float], None]
    ) -> None:
        self.drawing, self.keys, self.pool, self.pulse = drawing, keys, pool, pulse
        self.outcomes: dict[int, Future[Answer] | Failure] = {}
        self.unwritten: deque[tuple[int, Future[Answer]]] = deque()  # bytes of pixels

    def draw(self, pictures: Iterator[Picture]) -> list[Future[Answer] | Failure]:
        """What each key ends as. A batch is drawn as soon as it has no room for another picture."""
        batches: dict[tuple[int, ...], dict[int, NDArray[np.uint8]]] = {}
        asked = time.monotonic()
        for at, picture in enumerate(islice(pictures, len(self.keys))):
            self.drawing.clock.measured.waited_s += time.monotonic() - asked
            asked = time.monotonic()
            if isinstance(picture, Failure):
                self.outcomes[at] = picture
                self.pulse("goes on", 1)
                continue
            batch = batches.setdefault(picture.shape, {})
            batch[at] = picture
            if (len(batch) + 1) * picture.size > BATCH_VALUES:
                self._draw(batches.pop(picture.shape))
                asked = time.monotonic()
        for batch in batches.values():
            self._draw(batch)
        return [self.outcomes[at] for at in range(len(self.keys))]

    def _draw(self, batch: dict[int, NDArray[np.uint8]]) -> None:
        first = min(batch)
        height, width, _ = batch[first].shape
        words = f"draws {len(batch)} of {width}×{height}, {self.keys[first].key!r} first"
        told = 0.0  # pictures, of those that are drawn by and by

        def tell(share: float, pictures: Tensor | None) -> None:
            nonlocal told
            steps, every = self.drawing.redraws.steps or 1, self.drawing.settings.gatys.show_every
            step, done = round(share * steps), share * len(batch)
            self.pulse(f"{words}, step {step} of {steps}", max(0.0, done - told))
            told = max(told, done)
            if every and step % every == 0 and pictures is not None and len(pictures) == len(batch):
                self.drawing.show(step, [self.keys[at] for at in batch], pictures)

        self.pulse(words, 0)
        for at, drawn in zip(batch, self.drawing.infer(list(batch.values()), tell), strict=True):
            self.outcomes[at] = drawn if isinstance(drawn, Failure) else self._write(self.keys[at], *drawn)
        self.pulse(f"has drawn {self.keys[first].key!r}", len(batch) - told)

    def _write(self, key: Key, pixels: NDArray[np.uint8], figures: Figures) -> Future[Answer]:
        """Have it written, once no more pixels than `AHEAD_BYTES` wait for that."""
        while self.unwritten and sum(size for size, _ in self.unwritten) + pixels.nbytes > AHEAD_BYTES:
            wait([self.unwritten.popleft()[1]])
        future = self.pool.submit(self.drawing.write, key, pixels, figures)
        self.unwritten.append((pixels.nbytes, future))
        return future


def _ended(drawn: list[Future[Answer] | Failure]) -> list[Answer]:
    return [one if isinstance(one, Failure) else one.result() for one in drawn]


def _unless_broken(pixels: NDArray[np.uint8], figures: Figures) -> tuple[NDArray[np.uint8], Figures] | Failure:
    """A picture whose losses are no numbers was not drawn."""
    if broken := [name for name, value in figures.items() if not math.isfinite(value)]:
        return Failure("infer", "NotFinite", f"{', '.join(broken)} is not a number: take a smaller learning_rate")
    return pixels, figures
