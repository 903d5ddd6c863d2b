"""Where pictures come from: objects of a bucket, keys of a manifest, or rows of Parquet files."""

from __future__ import annotations

import fnmatch
import io
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from celebvision.batch.manifest import read_manifest
from celebvision.config import BatchSettings
from celebvision.job import JobFailed
from celebvision.storage import Stat, Store, open_bucket, open_store

WRITTEN = ("runs/", "results/run=", "failures/run=")  # folders of an output
PARQUET = ".parquet"
FILES_AHEAD = 8  # whose image_ids are read at a time


@dataclass(frozen=True, slots=True)
class Row(Stat):
    """A picture in a Parquet file: `key` is FILE#ROW/IMAGE_ID, etag and time are the file's, size is 0: unknown."""

    file: str
    row: int


def pictures(settings: BatchSettings, through: Callable[[Iterator[Stat]], Iterator[Stat]] = iter) -> Generator[Stat]:
    """What the input holds for this job, answered or not, each once and sorted by key.

    All that is listed goes `through` that, wanted or not.

    Objects with a wanted suffix that every filter lets through. Where there is none of them but there are Parquet files
    with a binary column `image`, as `ingest` writes them, their rows, each a `Row`; filters then hold for the files.
    What a job wrote to the output is no input.

    Raises:
        JobFailed: the manifest is not right, or there are Parquet files alone and none with pictures.
    """
    suffixes = tuple(suffix.lower() for suffix in settings.suffixes) or ("",)
    wanted = _filter(settings)
    files: list[Stat] = []
    mixed = False
    for stat in through(_listed(settings)):
        name = stat.key.lower()
        if not wanted(stat):
            continue
        if name.endswith(PARQUET):
            if not mixed:
                files.append(stat)
        elif name.endswith(suffixes):
            mixed = True
            files.clear()
            yield stat
    if files:
        yield from _rows_of(open_bucket(settings.input)[0], files)


def _listed(settings: BatchSettings) -> Iterator[Stat]:
    store, prefix = open_bucket(settings.input)
    if settings.input_manifest is None:
        narrowed = _narrowed(prefix, settings.glob or "")
        return iter(()) if narrowed is None else store.list(narrowed)
    by_size = settings.min_size_bytes is not None or settings.max_size_bytes is not None
    by_time = settings.modified_since or settings.modified_before
    needed = ["size"] * by_size + ["last_modified"] * bool(by_time)
    bucket = store.uri.removeprefix("s3://") if store.uri.startswith("s3://") else ""
    return (stat for stat in read_manifest(settings.input_manifest, bucket, needed) if stat.key.startswith(prefix))


def _narrowed(prefix: str, glob: str) -> str | None:
    """The longest prefix that every key under `prefix` that fits the glob has; None if there can be no such key."""
    letters = re.split(r"[*?[]", glob, maxsplit=1)[0]
    if not (letters.startswith(prefix) or prefix.startswith(letters)):
        return None
    folders = letters.split("/")[:-1]
    # a local folder has no such folders in it, and would not be asked for one
    return prefix if len(letters) < len(prefix) or {"", ".", ".."} & set(folders) else letters


def _filter(settings: BatchSettings) -> Callable[[Stat], bool]:
    fits = re.compile(fnmatch.translate(settings.glob or "*")).match
    least = settings.min_size_bytes or 0
    most = settings.max_size_bytes
    since, before = settings.modified_since, settings.modified_before
    ours = _output_inside(settings)

    def wanted(stat: Stat) -> bool:
        return (
            not stat.key.startswith(ours)
            and (settings.glob is None or fits(stat.key) is not None)
            and least <= stat.size
            and (most is None or stat.size <= most)
            and (since is None or stat.last_modified >= since)
            and (before is None or stat.last_modified < before)
        )

    return wanted


def _output_inside(settings: BatchSettings) -> tuple[str, ...]:
    """Prefixes of the output's own keys, if it lies in the bucket or folder that is read.

    Where the pictures lie in the output's own folder, or deeper, only what a job writes there is the output's.
    """
    store, prefix = open_bucket(settings.input)
    root = store.uri.rstrip("/") + "/"
    output = open_store(settings.output).uri.rstrip("/") + "/"
    if not output.startswith(root):
        return ()
    folder = output.removeprefix(root)
    return tuple(folder + name for name in WRITTEN) if prefix.startswith(folder) else (folder,)


def _rows_of(store: Store, files: list[Stat]) -> Iterator[Stat]:
    """Every row of the files that have pictures, sorted by key."""
    files = sorted(files, key=lambda stat: stat.key + "#")  # as their rows' keys are: 'a!b' < 'a#' though 'a' < 'a!b'
    found = False
    with ThreadPoolExecutor(FILES_AHEAD) as pool:
        waiting: deque[tuple[Stat, Future[list[str] | None]]] = deque()
        for at in range(len(files) + FILES_AHEAD):
            if at < len(files):
                waiting.append((files[at], pool.submit(_image_ids, store, files[at].key)))
            if at >= FILES_AHEAD - 1 and waiting:
                file, answer = waiting.popleft()
                if (image_ids := answer.result()) is not None:
                    found = True
                    for row, image_id in enumerate(image_ids):
                        key = f"{file.key}#{row:09}/{image_id}"
                        yield Row(key, 0, file.etag, file.last_modified, file.key, row)
    if not found:
        raise JobFailed(
            f"{store.uri}: {files[0].key} and {len(files) - 1} more Parquet files, and no picture; "
            "none of them has a binary column image"
        )


def _image_ids(store: Store, key: str) -> list[str] | None:
    """The file's image_ids, '' where it has none; None if it has no pictures."""
    try:
        with open_parquet(store, key) as file:
            schema = file.schema_arrow
            if "image" not in schema.names or schema.field("image").type not in (pa.binary(), pa.large_binary()):
                return None
            if "image_id" not in schema.names:
                return [""] * int(file.metadata.num_rows)
            column = file.read(["image_id"])["image_id"].cast(pa.string())
            return [value or "" for value in column.to_pylist()]
    except pa.ArrowInvalid as error:
        raise JobFailed(f"{store.uri}: {key} is no whole Parquet file: {error}") from error


@contextmanager
def open_parquet(store: Store, key: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file of which only what is asked for is fetched. Raises as `Store.open`, `pa.ArrowInvalid`."""
    # without the buffer, which would fetch the pictures that lie between two columns
    with cast(io.BufferedReader, store.open(key)).detach() as stream:
        yield pq.ParquetFile(stream)
