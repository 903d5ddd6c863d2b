"""Some of a run's rows and pictures, so that a page costs the same whether a run has a thousand keys or a million."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFile, ImageOps

from celebvision import images
from celebvision.batch.fetch import Failure, Fetcher, Key
from celebvision.batch.inventory import read_keys
from celebvision.batch.record import Run
from celebvision.config import BatchSettings
from celebvision.logs import printable
from celebvision.sheet import TILE, contact_sheet
from celebvision.storage import NotFound, Store, arrow_filesystem, join

SHARDS = 4  # of the inventory that keys are drawn from
DRAWN = 200  # keys, of which those that the model is least sure of are shown
SHOWN = 20  # of either sort
FILES = 3  # of failures that are looked at
EXAMPLES = 3  # of each kind
LETTERS = 20  # of a key below its picture, its last

T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """A key that failed, why, and what can be seen of it, if anything, as a PNG."""

    key: str
    message: str
    picture: str = ""
    thumbnail: bytes = b""


@dataclass
class Failed:
    """A kind of failure."""

    stage: str
    error: str
    count: int
    examples: list[Example] = field(default_factory=list)


def tables(output: Store, folder: str, wanted: Callable[[str], bool], most: int | None = None) -> Iterator[pa.Table]:
    """Of each Parquet file of a folder, or of the first `most`, the columns whose name is wanted."""
    for number, stat in enumerate(output.list(folder)):
        if number == most:
            return
        file = pq.ParquetFile(pa.BufferReader(output.get(stat.key)))
        yield file.read([name for name in file.schema_arrow.names if wanted(name)])


def failed(output: Store, run: Run, settings: BatchSettings) -> list[Failed]:
    """Failures by kind, the most frequent first, with examples once the run is done."""
    kinds = {}
    for kind, count in run.reasons.items():
        stage, _, error = kind.partition(" ")
        kinds[kind] = Failed(stage, error, count)
    columns = {"key", "stage", "error", "message"}
    for table in tables(output, f"failures/run={run.run_id}/", columns.__contains__, FILES):
        for row in table.to_pylist():
            of_kind = kinds.get(f"{row['stage']} {row['error']}")
            if of_kind is not None and len(of_kind.examples) < EXAMPLES:
                of_kind.examples.append(Example(row["key"], printable(row["message"])))
    fetcher = Fetcher.of(settings, lambda data: images.decode_whole(data, TILE, settings.max_pixels))
    for found in kinds.values():
        there = found.stage != "fetch"  # else there are no bytes to look at
        found.examples = [_seen(fetcher, one, settings.max_pixels) if there else _named(one) for one in found.examples]
    return sorted(kinds.values(), key=lambda found: -found.count)


def _named(example: Example) -> Example:
    return Example(printable(example.key), example.message)


def _seen(fetcher: Fetcher, example: Example, max_pixels: int) -> Example:
    data = fetcher.fetch(Key(example.key, 0, ""))
    thumbnail = b"" if isinstance(data, Failure) else _what_can_be_seen(data, max_pixels)
    name = printable(example.key)
    return Example(name, example.message, f"what can be seen of {name}", thumbnail)


def _what_can_be_seen(data: bytes, max_pixels: int) -> bytes:
    """A thumbnail of a picture that breaks off, as far as it goes; nothing where there is no more than its head."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > max_pixels:
            return b""
        seen = ImageOps.contain(image.convert("RGB"), (TILE, TILE))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return b""  # as the row of its failure says already
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
    content = io.BytesIO()
    seen.save(content, "PNG")
    return content.getvalue()


def labelled(output: Store, run: Run, settings: BatchSettings) -> bytes:
    """A PNG of some labelled pictures, drawn with the run's id as seed: first those that the model is least sure of.

    Nothing where no picture has a label.
    """
    draw = random.Random(run.run_id)  # noqa: S311 - no secret
    shards = draw.sample(range(run.inventory["shards"]), min(SHARDS, run.inventory["shards"]))
    each = DRAWN // len(shards)
    keys = {key.key: key for shard in shards for key in _some(draw, read_keys(output, run, shard), each)}
    rows = _answers(output, run, sorted(keys))
    if not rows:
        return b""
    rows.sort(key=lambda row: (row[2], row[0]))
    shown = rows[:SHOWN] + _some(draw, rows[SHOWN:], SHOWN)
    fetcher = Fetcher.of(settings, lambda data: images.decode_whole(data, TILE, settings.max_pixels))
    pictures = fetcher.pixels([keys[key] for key, _, _ in shown])
    tiles = []
    for picture, (key, label, probability) in zip(pictures, shown, strict=True):
        data = b"" if isinstance(picture, Failure) else images.encode(picture, "png")
        words = f"{label} {probability:.2f}" if label else key[-LETTERS:]
        tiles.append((data, words.encode("ascii", "replace").decode()))
    return contact_sheet(tiles)


def _some(draw: random.Random, things: Sequence[T], count: int) -> list[T]:
    return draw.sample(things, min(count, len(things)))


def _answers(output: Store, run: Run, keys: list[str]) -> list[tuple[str, str, float]]:
    """Key, label and probability of those of the keys that have an answer, by the first target."""
    filesystem, path = arrow_filesystem(join(output.uri, f"results/run={run.run_id}"))
    try:
        schema = pq.ParquetDataset(path, filesystem).schema
    except (NotFound, FileNotFoundError):
        return []
    label = next(name for name in schema.names if name.startswith("label"))
    columns = ["key", label, label.replace("label", "probability")]
    found = pq.read_table(path, columns=columns, filesystem=filesystem, filters=[("key", "in", keys)])
    return list(zip(*(found[name].to_pylist() for name in columns), strict=True))
