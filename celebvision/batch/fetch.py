"""From a key to pixels, or to the reason why not: nothing that is wrong with one picture reaches another."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from threading import Condition, Event
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from celebvision.batch.clock import Clock
from celebvision.batch.sources import Row, open_parquet
from celebvision.config import MIB, BatchSettings
from celebvision.storage import Stat, StorageError, Store, open_bucket

# What a thread takes at a time at most, since to hand one picture over costs as much as to read a small one.
TOGETHER = 4
TOGETHER_BYTES = MIB // 4
# What is fetched ahead at most: pictures a thread, and bytes of all threads. The bytes hold for pixels as well.
AHEAD = 8
AHEAD_BYTES = 128 * MIB
UNKNOWN_BYTES = 4 * MIB  # a picture whose size nobody told is taken to have so many


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


Picture = NDArray[np.uint8] | Failure  # uint8 H W 3
Answer = dict[str, Any] | Failure  # what a key ends as: the result's own columns, or why it has none
Decoded = TypeVar("Decoded")


@dataclass(frozen=True)
class Fetcher:
    """Fetches the pictures of a shard by threads, and gives them decoded, in the order asked for.

    It decodes in the caller's thread: that has one core to itself, where more threads would only take turns (on two
    cores and small pictures in files, to decode in the two threads that fetch them gave 7 % less).
    """

    store: Store
    decode: Callable[[bytes], NDArray[np.uint8]]  # to uint8 H W 3
    max_bytes: int
    threads: int

    @classmethod
    def of(cls, settings: BatchSettings, decode: Callable[[bytes], NDArray[np.uint8]]) -> Fetcher:
        store = open_bucket(settings.input)[0]
        return cls(store, decode, settings.max_bytes, settings.fetch_threads or store.in_flight)

    def pixels(self, keys: list[Key], clock: Clock | None = None) -> Generator[Picture]:
        """For each key its picture or its failure. Closed early, it fetches no further."""
        return self.each(keys, self.decode, clock or Clock())

    def each(self, keys: list[Key], decode: Callable[[bytes], Decoded], clock: Clock) -> Generator[Decoded | Failure]:
        """The same of what another function makes of the bytes. The clock takes how long bytes are waited for."""
        with ThreadPoolExecutor(self.threads, thread_name_prefix="fetch") as pool:
            # Of a few keys every thread gets its share.
            together = max(1, min(TOGETHER, len(keys) // (AHEAD * self.threads)))
            for file, group in groupby(keys, key=attrgetter("file")):
                of_file = list(group)
                if file is None:
                    fetched = _in_order(pool, self.fetch, _groups(iter(of_file), together), AHEAD * self.threads)
                else:
                    fetched = self._read_rows(file, of_file)
                with closing(fetched):
                    asked = time.monotonic()
                    for key, data in zip(of_file, fetched, strict=True):
                        came = time.monotonic()
                        decoded = self._decoded(data, decode)
                        size = 0 if isinstance(data, Failure) else len(data)
                        clock.picture(key.key, came - asked, time.monotonic() - came, size)
                        yield decoded
                        asked = time.monotonic()

    def fetch(self, key: Key) -> bytes | Failure:
        """The object's bytes, or why there are none; no more of them than `max_bytes`."""
        if key.size > self.max_bytes:
            return self._too_many(key.size)
        try:
            # Of an object whose size nobody told no more is read than shows that it is too large.
            return self.store.get(key.key) if key.size else self.store.get_range(key.key, 0, self.max_bytes + 1)
        except (StorageError, ValueError) as error:
            return Failure("fetch", type(error).__name__, str(error))

    def _decoded(self, data: bytes | Failure, decode: Callable[[bytes], Decoded]) -> Decoded | Failure:
        if isinstance(data, Failure):
            return data
        if len(data) > self.max_bytes:
            return self._too_many(len(data))
        try:
            return decode(data)
        # A picture can drive a decoder to anything; whatever it is, it concerns this picture alone.
        except Exception as error:  # noqa: BLE001
            return Failure("decode", type(error).__name__, str(error))

    def _too_many(self, size: int) -> Failure:
        return Failure("fetch", "TooManyBytes", f"{size} bytes; at most {self.max_bytes} are allowed")

    def _read_rows(self, file: str, keys: list[Key]) -> Generator[bytes | Failure]:
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


def ahead(pictures: Generator[Picture], most: int) -> Generator[Picture]:
    """The same pictures, decoded by a thread while the caller works: `most`, and `AHEAD_BYTES`, wait for it at most."""
    waiting: deque[Picture] = deque()
    changed, ended, unwanted = Condition(), False, False

    def has_room() -> bool:
        held_bytes = sum(picture.nbytes for picture in waiting if not isinstance(picture, Failure))
        return unwanted or (len(waiting) < most and held_bytes < AHEAD_BYTES)

    def decode() -> None:
        nonlocal ended
        try:
            with closing(pictures):
                for picture in pictures:
                    with changed:
                        changed.wait_for(has_room)
                        if unwanted:
                            return
                        waiting.append(picture)
                        changed.notify_all()
        finally:
            with changed:
                ended = True
                changed.notify_all()

    with ThreadPoolExecutor(1, "decode") as pool:
        decoding = pool.submit(decode)
        try:
            while True:
                with changed:
                    changed.wait_for(lambda: waiting or ended)
                    if not waiting:
                        break
                    picture = waiting.popleft()
                    changed.notify_all()
                yield picture
        finally:
            with changed:
                unwanted = True
                changed.notify_all()
        decoding.result()  # raises what it raised


def _read_group(parquet: pq.ParquetFile, group: int, rows: list[int]) -> list[bytes | Failure]:
    """Column image of these rows of a row group, which is read once; what is wrong with it costs no other group."""
    try:
        column = parquet.read_row_group(group, ["image"])["image"]
    except (StorageError, ValueError, OSError) as error:
        return [Failure("fetch", type(error).__name__, str(error))] * len(rows)
    return [column[row].as_py() or b"" for row in rows]


def _groups(keys: Iterator[Key], together: int) -> Iterator[list[Key]]:
    """The keys, so many at a time, or fewer where they are large."""
    group: list[Key] = []
    for key in keys:
        group.append(key)
        if len(group) == together or _bytes_of(group) >= TOGETHER_BYTES:
            yield group
            group = []
    if group:
        yield group


def _bytes_of(keys: list[Key]) -> int:
    return sum(key.size or UNKNOWN_BYTES for key in keys)


def _in_order(
    pool: ThreadPoolExecutor, fetch: Callable[[Key], bytes | Failure], groups: Iterator[list[Key]], ahead: int
) -> Generator[bytes | Failure]:
    """Like `pool.map` over the keys, but at most `ahead` of them, and `AHEAD_BYTES`, are waiting."""

    unwanted = Event()

    def several(keys: list[Key]) -> list[bytes | Failure]:
        return [fetch(key) for key in keys if not unwanted.is_set()]

    waiting: deque[tuple[list[Key], Future[list[bytes | Failure]]]] = deque()
    held = held_bytes = 0
    try:
        for group in groups:
            waiting.append((group, pool.submit(several, group)))
            held, held_bytes = held + len(group), held_bytes + _bytes_of(group)
            while held >= ahead or held_bytes >= AHEAD_BYTES:
                first, future = waiting.popleft()
                held, held_bytes = held - len(first), held_bytes - _bytes_of(first)
                yield from future.result()
        for _, future in waiting:
            yield from future.result()
    finally:
        unwanted.set()  # nobody wants any more
        for _, future in waiting:
            future.cancel()
