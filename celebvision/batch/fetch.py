"""From a key to pixels, or to the reason why not: nothing that is wrong with one picture reaches another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from operator import attrgetter
from threading import Event
from typing import TypeVar

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from celebvision import images
from celebvision.batch.sources import Row, open_parquet
from celebvision.config import BatchSettings
from celebvision.storage import Stat, StorageError, Store

T = TypeVar("T")
TOGETHER = (
    4  # pictures that a thread takes at a time at most, since to hand one over costs as much as to decode a small one
)
AHEAD = 8  # pictures that are fetched ahead, a thread


@dataclass(frozen=True)
class Key:
    """A row of the inventory. With `file` it is the picture in row `row` of that Parquet file, else an object."""

    key: str
    size: int
    etag: str
    file: str | None = None
    row: int | None = None

    @classmethod
    def of(cls, stat: Stat) -> Key:
        file, row = (stat.file, stat.row) if isinstance(stat, Row) else (None, None)
        return cls(stat.key, stat.size, stat.etag, file, row)


@dataclass(frozen=True)
class Failure:
    """Why a key has no result."""

    stage: str  # fetch, decode, infer or write
    error: str
    message: str


@dataclass(frozen=True)
class Fetcher:
    """Fetches and decodes the pictures of a shard by threads, and gives them in the order asked for."""

    store: Store
    height: int
    width: int
    max_pixels: int
    max_bytes: int
    threads: int

    @classmethod
    def of(cls, settings: BatchSettings, store: Store, height: int, width: int) -> Fetcher:
        return cls(store, height, width, settings.max_pixels, settings.max_bytes, settings.fetch_threads)

    def pixels(self, keys: list[Key]) -> Generator[NDArray[np.uint8] | Failure]:
        """For each key its picture, uint8 height width 3, or its failure. Closed early, it fetches no further."""
        with ThreadPoolExecutor(self.threads, thread_name_prefix="fetch") as pool:
            # Of a few keys every thread gets its share.
            together = max(1, min(TOGETHER, len(keys) // (AHEAD * self.threads)))
            for file, of_file in groupby(keys, key=attrgetter("file")):
                if file is None:
                    yield from _in_order(pool, self.fetch, of_file, self.threads, together)
                else:
                    rows = self._read_rows(file, list(of_file))
                    yield from _in_order(pool, self._decode, rows, self.threads, together)

    def fetch(self, key: Key) -> NDArray[np.uint8] | Failure:
        if key.size > self.max_bytes:
            return self._too_many(key.size)
        try:
            data = self.store.get(key.key)
        except (StorageError, ValueError) as error:
            return Failure("fetch", type(error).__name__, str(error))
        return self._decode(data)

    def _decode(self, data: bytes | Failure) -> NDArray[np.uint8] | Failure:
        if isinstance(data, Failure):
            return data
        if len(data) > self.max_bytes:
            return self._too_many(len(data))
        try:
            return images.decode(data, self.height, self.width, self.max_pixels)
        # A picture can drive a decoder to anything; whatever it is, it concerns this picture alone.
        except Exception as error:  # noqa: BLE001
            return Failure("decode", type(error).__name__, str(error))

    def _too_many(self, size: int) -> Failure:
        return Failure("fetch", "TooManyBytes", f"{size} bytes; at most {self.max_bytes} are allowed")

    def _read_rows(self, file: str, keys: list[Key]) -> Iterator[bytes | Failure]:
        """The bytes of each picture of a Parquet file, sorted by row; one row group of them is in memory."""
        rows = deque(key.row or 0 for key in keys)
        try:
            if keys[0].etag not in ("", self.store.stat(file).etag):
                raise StorageError(f"{file}: has changed since it was listed; a new run takes it as it is now")
            with open_parquet(self.store, file) as parquet:
                start = 0
                for group in range(parquet.num_row_groups):
                    end = start + parquet.metadata.row_group(group).num_rows
                    wanted = []
                    while rows and rows[0] < end:
                        wanted.append(rows.popleft() - start)
                    if wanted:
                        yield from _read_group(parquet, group, wanted)
                    start = end
            failure = Failure("fetch", "NotFound", f"{file}: has {start} rows, and no such row")
        except (StorageError, ValueError) as error:  # of Arrow: ArrowInvalid, which is a ValueError
            failure = Failure("fetch", type(error).__name__, str(error))
        yield from (failure for _ in rows)


def _read_group(parquet: pq.ParquetFile, group: int, rows: list[int]) -> list[bytes | Failure]:
    """Column image of these rows of a row group, which is read once; what is wrong with it costs no other group."""
    try:
        column = parquet.read_row_group(group, ["image"])["image"]
    except (StorageError, ValueError, OSError) as error:
        return [Failure("fetch", type(error).__name__, str(error))] * len(rows)
    return [column[row].as_py() or b"" for row in rows]


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[T], NDArray[np.uint8] | Failure],
    things: Iterator[T],
    threads: int,
    together: int,
) -> Iterator[NDArray[np.uint8] | Failure]:
    """Like `pool.map`, but a thread takes `together` at a time, and no more than `AHEAD` a thread are waiting."""

    unwanted = Event()

    def several(some: list[T]) -> list[NDArray[np.uint8] | Failure]:
        return [work(thing) for thing in some if not unwanted.is_set()]

    waiting: deque[Future[list[NDArray[np.uint8] | Failure]]] = deque()
    try:
        while some := list(islice(things, together)):
            waiting.append(pool.submit(several, some))
            if len(waiting) * together >= AHEAD * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        unwanted.set()  # nobody wants any more
        for future in waiting:
            future.cancel()
