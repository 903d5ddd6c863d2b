"""Files in a local folder."""

import builtins
import errno
import fcntl
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import BinaryIO

from celebvision.storage.store import (
    Conflict,
    Denied,
    Full,
    NotFound,
    Stat,
    StorageError,
    Store,
    as_folder,
    check_range,
)

log = logging.getLogger(__name__)

HIDDEN = ".celebvision-"  # our temporary and lock files; never listed
SORTED_AT_ONCE = 100_000  # names of a folder
SAMPLE = 100  # names that tell about where the middle of many is


@contextmanager
def local_errors(path: Path | str) -> Iterator[None]:
    """What the operating system raises, as the errors that our callers know."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFound(f"{path}: there is no such file") from error
    except PermissionError as error:
        raise Denied(f"{path}: access is refused: check who owns the folder, and its mode") from error
    except OSError as error:
        kind = Full if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(f"{path}: {error.strerror}: check the path and the disk") from error


def _stat(key: str, stat: os.stat_result) -> Stat:
    etag = f"{stat.st_mtime_ns:x}-{stat.st_size:x}-{stat.st_ino:x}"
    return Stat(key, stat.st_size, etag, datetime.fromtimestamp(stat.st_mtime, UTC))


def write_file(
    path: Path, fill: Callable[[BinaryIO], object], publish: Callable[[Path, Path], object] = os.replace
) -> str:
    """Fill a hidden file beside `path`, then `publish` it there, whole and on disk. Returns its etag."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f"{HIDDEN}{uuid.uuid4().hex}")
    try:
        with hidden.open("xb") as file:
            fill(file)
            file.flush()
            # the kernel's own file times are so coarse that two quick writes could share time, size and inode
            os.utime(file.fileno(), ns=(now := time.time_ns(), now))
            os.fsync(file.fileno())
            etag = _stat("", os.fstat(file.fileno())).etag
        publish(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
    return etag


def _publish_new(hidden: Path, path: Path) -> None:
    try:
        os.link(hidden, path)
    except FileExistsError as error:
        raise Conflict(f"{path}: somebody else wrote this key first") from error


def _in_order(names: list[str]) -> Iterator[str]:
    """Sorted, the first of them long before the last are: a quicksort that goes as far as it is read."""
    left = [names]
    while left:
        names = left.pop()
        if len(names) <= SORTED_AT_ONCE:
            yield from sorted(names)
            continue
        sample = sorted(names[:: len(names) // SAMPLE + 1])
        middle = sample[len(sample) // 2]
        left += [[name for name in names if name >= middle], [name for name in names if name < middle]]


def _is_inside(path: str, folder: str) -> bool:
    """Whether it lies in the folder once all links are followed."""
    return f"{os.path.realpath(path)}/".startswith(f"{folder.rstrip('/')}/")


@lru_cache(maxsize=4096)
def _leads_inside(folder: str, root: str) -> bool:
    return _is_inside(folder, root)


class LocalStore(Store):
    """Files under a folder. Keys that would leave it, or that name no file, are refused with `ValueError`."""

    in_flight = 2  # a disk answers at once; more threads would only take turns

    def __init__(self, uri: str) -> None:
        self._folder = Path(uri).expanduser().resolve()
        self.uri = str(self._folder)

    def _path(self, key: str) -> Path:
        """The file of `key`, which may be a link as long as it stays inside."""
        path = f"{self.uri}/{key}"
        folder = path.rpartition("/")[0]
        # The folder is looked at once, since that takes longer than to read a small file.
        inside = _leads_inside(folder, self.uri) and not (os.path.islink(path) and not _is_inside(path, self.uri))
        if {"", ".", ".."} & set(key.split("/")) or not inside:
            raise ValueError(f"{key!r} names no file inside {self.uri}")
        return Path(path)

    def get(self, key: str) -> bytes:
        with local_errors(path := self._path(key)):
            return path.read_bytes()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        with local_errors(path := self._path(key)), path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    def stat(self, key: str) -> Stat:
        with local_errors(path := self._path(key)):
            if path.is_dir():
                raise IsADirectoryError
            return _stat(key, path.stat())

    def put(self, key: str, data: bytes) -> str:
        with local_errors(path := self._path(key)):
            return write_file(path, lambda file: file.write(data))

    def create(self, key: str, data: bytes) -> str:
        with local_errors(path := self._path(key)):
            return write_file(path, lambda file: file.write(data), publish=_publish_new)

    def replace(self, key: str, data: bytes, etag: str) -> str:
        path = self._path(key)
        try:
            with local_errors(path), (path.parent / f"{HIDDEN}lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self.stat(key).etag == etag:
                    return write_file(path, lambda file: file.write(data))
        except NotFound as error:
            raise Conflict(f"{path}: somebody deleted this key first") from error
        raise Conflict(f"{path}: somebody else wrote this key first")

    def delete(self, key: str) -> None:
        with local_errors(path := self._path(key)), suppress(IsADirectoryError, NotADirectoryError):
            path.unlink(missing_ok=True)

    def sweep(self, prefix: str) -> None:
        for path in self._path(prefix.rstrip("/")).rglob(f"{HIDDEN}*"):
            with local_errors(path):
                path.unlink(missing_ok=True)

    def list(self, prefix: str = "") -> Iterator[Stat]:
        """See `Store.list`. A link is listed if it leads to a file inside; of others a warning tells."""
        return self._walk(prefix[: prefix.rfind("/") + 1], prefix)

    def _walk(self, base: str, prefix: str) -> Iterator[Stat]:
        for name in self._names(base):
            key = base + name
            if not key.startswith(prefix) or name.startswith(HIDDEN):
                continue
            if name.endswith("/"):
                yield from self._walk(key, prefix)
            else:
                path = f"{self.uri}/{key}"
                # deleted since its folder was read, or that folder was
                with local_errors(path), suppress(FileNotFoundError, NotADirectoryError):
                    found = os.lstat(path)
                    if S_ISLNK(found.st_mode):
                        if os.path.isfile(path) and _is_inside(path, self.uri):
                            found = os.stat(path)
                        else:
                            words = "%s: not followed, since it is a link to a folder, to nothing, or out of %s"
                            log.warning(words, path, self.uri, extra={"kind": "link"})
                    if S_ISREG(found.st_mode):
                        yield _stat(key, found)

    def _names(self, base: str) -> Iterator[str]:
        """What lies in a folder, in the order of S3 keys: a folder sorts with its slash, 'a.jpg' < 'a/b' < 'a0.jpg'."""
        try:
            folder = self._path(base.removesuffix("/")) if base else self._folder
        except ValueError as error:
            raise StorageError(
                f"{error}; a link to a folder outside is not entered: copy it, or give it itself"
            ) from None
        with local_errors(folder):
            try:
                with os.scandir(folder) as entries:
                    names = [
                        entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name for entry in entries
                    ]
            except (FileNotFoundError, NotADirectoryError):
                return iter(())  # as in S3: under a prefix that nobody wrote to lies nothing
        try:
            "".join(names).encode()
        except UnicodeEncodeError as error:
            name = next(name for name in names if error.object[error.start] in name)
            raise StorageError(f"{folder}: the file name {os.fsencode(name)!r} is not UTF-8: rename it") from error
        return _in_order(names)

    def folders(self, prefix: str = "") -> builtins.list[str]:
        inside = as_folder(prefix)
        names = (name for name in self._names(inside) if name.endswith("/"))
        return sorted(name[:-1] for name in names if any(self.list(inside + name)))

    def upload(self, path: Path, key: str) -> None:
        with local_errors(path), path.open("rb") as source:
            write_file(self._path(key), lambda file: shutil.copyfileobj(source, file))

    def download(self, key: str, path: Path) -> None:
        with local_errors(source := self._path(key)), source.open("rb") as stored:
            write_file(path, lambda file: shutil.copyfileobj(stored, file))

    def open(self, key: str) -> BinaryIO:
        with local_errors(path := self._path(key)):
            return path.open("rb")
