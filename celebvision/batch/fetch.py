"""From a key to pixels, or to the reason why not: nothing that is wrong with one picture reaches another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebvision import images
from celebvision.config import ClassifySettings
from celebvision.storage import StorageError, Store

AHEAD = 4  # pictures that are fetched ahead, in multiples of the threads that fetch


@dataclass(frozen=True)
class Key:
    """A row of the inventory."""

    key: str
    size: int
    etag: str


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
    def of(cls, settings: ClassifySettings, store: Store, height: int, width: int) -> Fetcher:
        return cls(store, height, width, settings.max_pixels, settings.max_bytes, settings.fetch_threads)

    def pixels(self, keys: list[Key]) -> Generator[NDArray[np.uint8] | Failure]:
        """For each key its picture, uint8 height width 3, or its failure. Closed early, it fetches no further."""
        with ThreadPoolExecutor(self.threads, thread_name_prefix="fetch") as pool:
            yield from _in_order(pool, self.fetch, keys, ahead=AHEAD * self.threads)

    def fetch(self, key: Key) -> NDArray[np.uint8] | Failure:
        if key.size > self.max_bytes:
            return Failure("fetch", "TooManyBytes", f"{key.size} bytes; at most {self.max_bytes} are allowed")
        try:
            data = self.store.get(key.key)
        except (StorageError, ValueError) as error:
            return Failure("fetch", type(error).__name__, str(error))
        try:
            return images.decode(data, self.height, self.width, self.max_pixels)
        # A picture can drive a decoder to anything; whatever it is, it concerns this picture alone.
        except Exception as error:  # noqa: BLE001
            return Failure("decode", type(error).__name__, str(error))


def _in_order(
    pool: ThreadPoolExecutor, fetch: Callable[[Key], NDArray[np.uint8] | Failure], keys: list[Key], ahead: int
) -> Iterator[NDArray[np.uint8] | Failure]:
    """Like `pool.map`, but never more than `ahead` pictures in memory."""
    waiting: deque[Future[NDArray[np.uint8] | Failure]] = deque()
    try:
        for key in keys:
            waiting.append(pool.submit(fetch, key))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:  # nobody wants them any more
            future.cancel()
