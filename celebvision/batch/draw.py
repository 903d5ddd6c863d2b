"""What `stylize` does with pictures: a network redraws each, and what it drew is put under the picture's own name."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from celebvision import images
from celebvision.batch.fetch import AHEAD_BYTES, Answer, Failure, Fetcher, Key, Picture, ahead
from celebvision.batch.record import IMAGES
from celebvision.config import PICTURES, StylizeSettings
from celebvision.models.cyclegan import CycleGAN
from celebvision.models.stylizer import Stylizer
from celebvision.storage import Expired, Full, StorageError, Throttled, Unreachable, open_store

ENDINGS = {"jpeg": (".jpg", ".jpeg"), "png": (".png",), "webp": (".webp",)}
NAMELESS = ".image"  # put behind a key that does not end as pictures do
WRITERS = 4  # threads that encode and put
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
    """A network that redraws pictures, and the threads that take what it drew to storage."""

    journals = True  # a shard may take an hour
    fields = [  # noqa: RUF012 - the same of each
        ("output_key", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("ms", pa.float32()),
    ]

    def __init__(self, settings: StylizeSettings, network: nn.Module, device: str) -> None:
        self.settings = settings
        self.stylizer = Stylizer(cast(CycleGAN, network), device)
        self.put = open_store(settings.output).put
        self.fetcher = Fetcher.of(settings, lambda data: images.decode_whole(data, settings.size, settings.max_pixels))
        self.computed, self.compute_s = 0, 0.0  # pictures, and seconds of the network

    def pictures(self, keys: list[Key]) -> Generator[Picture]:
        """What is drawn: uint8 H W 3, whole, decoded while others are drawn."""
        return ahead(self.fetcher.pixels(keys), self.settings.batch_size)

    def answers(
        self, keys: list[Key], pictures: Iterator[Picture], pulse: Callable[[str, int], None]
    ) -> Generator[list[Answer]]:
        """What each key ends as, some keys at a time: as soon as what was drawn of them is in storage.

        Raises:
            StorageError: nothing can be written any more.
        """
        pool = ThreadPoolExecutor(WRITERS, "write")
        try:
            before: list[Future[Answer] | Failure] = []
            # Always the same keys together, wherever a run begins again: so the batches, and their bytes, are the same.
            for start in range(0, len(keys), self.settings.batch_size):
                drawn = _Chunk(self, keys[start : start + self.settings.batch_size], pool, pulse).draw(pictures)
                if before:
                    yield [one if isinstance(one, Failure) else one.result() for one in before]
                before = drawn
            yield [one if isinstance(one, Failure) else one.result() for one in before]
        finally:
            pool.shutdown(cancel_futures=True)

    def infer(self, pictures: list[NDArray[np.uint8]]) -> list[tuple[NDArray[np.uint8], float] | Failure]:
        """Each picture redrawn, and the milliseconds it took. Those that a batch fails for are tried one by one."""
        started = time.monotonic()
        try:
            drawn = self.stylizer.draw(torch.from_numpy(np.stack(pictures))).numpy()
        except torch.AcceleratorError:  # the device is lost, and every later picture would be
            raise
        except (RuntimeError, MemoryError) as error:  # of torch: OutOfMemoryError, which is a RuntimeError
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(pictures) > 1:
                return [self.infer([picture])[0] for picture in pictures]
            return [Failure("infer", type(error).__name__, str(error))]
        took_s = time.monotonic() - started
        self.computed += len(pictures)
        self.compute_s += took_s
        return [(picture, 1000 * took_s / len(pictures)) for picture in drawn]

    def write(self, key: Key, pixels: NDArray[np.uint8], ms: float) -> Answer:
        """Encode and put what was drawn of a key. A name that storage refuses is that picture's failure."""
        name = output_key(key.key, self.settings.format)
        try:
            data = images.encode(pixels, self.settings.format, self.settings.quality)
            self.put(IMAGES + name, data)
        except DOWN:
            raise
        except (StorageError, ValueError) as error:
            return Failure("write", type(error).__name__, str(error))
        height, width = pixels.shape[:2]
        return {"output_key": name, "width": width, "height": height, "bytes": len(data), "ms": ms}


class _Chunk:
    """Some keys whose pictures of one size are drawn together."""

    def __init__(
        self, drawing: Drawing, keys: list[Key], pool: ThreadPoolExecutor, pulse: Callable[[str, int], None]
    ) -> None:
        self.drawing, self.keys, self.pool, self.pulse = drawing, keys, pool, pulse
        self.outcomes: dict[int, Future[Answer] | Failure] = {}
        self.unwritten: deque[tuple[int, Future[Answer]]] = deque()  # bytes of pixels

    def draw(self, pictures: Iterator[Picture]) -> list[Future[Answer] | Failure]:
        """What each key ends as. A batch is drawn as soon as it has no room for another picture."""
        batches: dict[tuple[int, ...], dict[int, NDArray[np.uint8]]] = {}
        for at, picture in enumerate(islice(pictures, len(self.keys))):
            if isinstance(picture, Failure):
                self.outcomes[at] = picture
                self.pulse("goes on", 1)
                continue
            batch = batches.setdefault(picture.shape, {})
            batch[at] = picture
            if (len(batch) + 1) * picture.size > BATCH_VALUES:
                self._draw(batches.pop(picture.shape))
        for batch in batches.values():
            self._draw(batch)
        return [self.outcomes[at] for at in range(len(self.keys))]

    def _draw(self, batch: dict[int, NDArray[np.uint8]]) -> None:
        first = min(batch)
        height, width, _ = batch[first].shape
        self.pulse(f"draws {len(batch)} of {width}×{height}, {self.keys[first].key!r} first", 0)
        for at, drawn in zip(batch, self.drawing.infer(list(batch.values())), strict=True):
            self.outcomes[at] = drawn if isinstance(drawn, Failure) else self._write(self.keys[at], *drawn)
        self.pulse(f"has drawn {self.keys[first].key!r}", len(batch))

    def _write(self, key: Key, pixels: NDArray[np.uint8], ms: float) -> Future[Answer]:
        """Have it written, once no more pixels than `AHEAD_BYTES` wait for that."""
        while self.unwritten and sum(size for size, _ in self.unwritten) + pixels.nbytes > AHEAD_BYTES:
            wait([self.unwritten.popleft()[1]])
        future = self.pool.submit(self.drawing.write, key, pixels, ms)
        self.unwritten.append((pixels.nbytes, future))
        return future
