"""What every store can do, and how it fails."""

import builtins
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Self

DELETED_AT_ONCE = 1_000  # keys that are held


class StorageError(Exception):
    """Storage said no; the message names the URI and what to do, and holds no secret."""


class NotFound(StorageError):
    """There is no such object or bucket."""


class Denied(StorageError):
    """The credentials are missing, wrong, expired or not enough."""


class Expired(Denied):
    """The credentials were good, and are not any more."""


class Throttled(StorageError):
    """Storage asked for fewer requests, until the attempts were used up."""


class Unreachable(StorageError):
    """Storage did not answer, or not to the end, until the attempts were used up."""


class Full(StorageError):
    """There is no room left."""


class Conflict(StorageError):
    """A conditional put lost: somebody else wrote the key."""


@dataclass(frozen=True, slots=True)
class Stat:
    """One stored object. `etag` (without quotes) changes when the object does; `size` is in bytes."""

    key: str
    size: int
    etag: str
    last_modified: datetime


class Store(ABC):
    """A folder of objects at `uri`; every key is relative to it. Pickles as its URI; safe to share between threads.

    Every method raises `StorageError` or one of its kinds, after retrying what a retry can mend.
    """

    uri: str
    in_flight = 16  # requests that one worker sends at a time

    @abstractmethod
    def __init__(self, uri: str) -> None: ...

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.uri,)

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The whole object. Raises `NotFound`."""

    @abstractmethod
    def get_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes from byte `start`; fewer, or none, where the object ends before. Raises `NotFound`."""

    @abstractmethod
    def stat(self, key: str) -> Stat:
        """Size, etag and time of the object. Raises `NotFound`."""

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self.stat(key)
        except NotFound:
            return False
        return True

    @abstractmethod
    def put(self, key: str, data: bytes) -> str:
        """Write the object and return its etag; a reader sees the old or the new whole, never a part."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> str:
        """Write the object only if there is none, and return its etag; of many at once exactly one wins.

        Raises `Conflict` for the others. Where an answer was lost on the way, finding `data` itself stored counts as
        won, so `data` must tell its writers apart when only one may win.
        """

    @abstractmethod
    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Write the object only if it still has `etag`, and return the new one. Raises `Conflict` otherwise.

        Locally this holds against other calls of `replace`; a `put` in the same instant may be overwritten.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; a missing one is no error."""

    def delete_all(self, keys: Iterable[str]) -> None:
        """As `delete`, `in_flight` of them at a time; they may come from a `list` that is still read."""
        left = iter(keys)
        with ThreadPoolExecutor(self.in_flight, "delete") as pool:
            while page := builtins.list(islice(left, DELETED_AT_ONCE)):
                for _ in pool.map(self.delete, page):
                    pass

    @abstractmethod
    def sweep(self, prefix: str) -> None:
        """Remove what writers that were killed have left under `prefix`, where nobody may be writing now."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[Stat]:
        """Every object whose key starts with `prefix`, ordered by the key's UTF-8 bytes, page by page as it is read."""

    @abstractmethod
    def folders(self, prefix: str = "") -> builtins.list[str]:
        """Names of the folders directly in folder `prefix` that hold something, sorted."""

    @abstractmethod
    def upload(self, path: Path, key: str) -> None:
        """Write a local file as the object, streamed; as whole as `put`."""

    @abstractmethod
    def download(self, key: str, path: Path) -> None:
        """Write the object to a local file, streamed; the file appears when it is complete. Raises `NotFound`."""

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """The object as a seekable file that fetches what is read, some megabytes at once. Raises `NotFound`."""


def as_folder(prefix: str) -> str:
    """The prefix of what lies in it, and of no sibling whose name begins alike."""
    return prefix if not prefix or prefix.endswith("/") else f"{prefix}/"


def check_range(start: int, length: int) -> None:
    """Refuse what is no range.

    Raises:
        ValueError: either is negative.
    """
    if start < 0 or length < 0:
        raise ValueError(f"start {start}, length {length}: neither can be negative")
