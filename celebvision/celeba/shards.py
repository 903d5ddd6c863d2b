"""Shards of pictures: what `dataset.json` says of them, and how labelled ones become batches of pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from celebvision import images
from celebvision.celeba.schema import ATTRIBUTES
from celebvision.job import JobFailed
from celebvision.storage import NotFound, open_store

MANIFEST = "dataset.json"
FORMAT = 1
DECODE_ROWS = 256  # pictures decoded at a time, which bounds what a reading task holds


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a split; `positives` counts the rows where each attribute is true; empty for a style set."""

    path: str
    split: str
    rows: int
    row_groups: int
    bytes: int
    sha256: str
    positives: dict[str, int]


@dataclass(frozen=True)
class DataSet:
    """What `dataset.json` says."""

    source: str
    seed: int
    shards: tuple[Shard, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all shards: stands for the data a model was trained on."""
        return hashlib.sha256("".join(f"{shard.path} {shard.sha256}\n" for shard in self.shards).encode()).hexdigest()

    def rows(self, split: str) -> int:
        """Pictures of a split."""
        return sum(shard.rows for shard in self.of(split))

    def of(self, split: str) -> list[Shard]:
        """Its shards of a split."""
        return [shard for shard in self.shards if shard.split == split]

    def positives(self, split: str) -> dict[str, int]:
        """Rows of a split where each attribute is true that all shards know; a style set's know none."""
        known = [set(shard.positives) for shard in self.shards]
        names = [name for name in ATTRIBUTES if known and name in set.intersection(*known)]
        return {name: sum(shard.positives[name] for shard in self.of(split)) for name in names}

    def to_json(self) -> dict[str, Any]:
        splits = {
            split: {"rows": self.rows(split), "attributes": self.positives(split)}
            for split in dict.fromkeys(shard.split for shard in self.shards)
        }
        head = {"format": FORMAT, "source": self.source, "seed": self.seed, "digest": self.digest}
        return head | {"splits": splits, "shards": [asdict(shard) for shard in self.shards]}

    @classmethod
    def load(cls, uri: str) -> DataSet:
        """Read `dataset.json`.

        Raises:
            JobFailed: there is none, or it is not of this format.
        """
        try:
            content = json.loads(open_store(uri).get(MANIFEST))
        except NotFound:
            raise JobFailed(f"{uri}: holds no {MANIFEST}: not a data set, or its ingest has not finished") from None
        except ValueError as error:
            raise JobFailed(f"{uri}/{MANIFEST}: not JSON: {error}") from None
        found = content.get("format") if isinstance(content, dict) else None
        if found != FORMAT:
            raise JobFailed(f"{uri}/{MANIFEST}: format {found!r}; this version reads {FORMAT}")
        try:
            return cls(content["source"], content["seed"], tuple(Shard(**shard) for shard in content["shards"]))
        except (KeyError, TypeError) as error:
            raise JobFailed(f"{uri}/{MANIFEST}: not what ingest wrote: {error}; run ingest again") from None


@dataclass(frozen=True)
class RowGroup:
    """The unit that is read and shuffled: one row group of one shard."""

    path: str
    number: int


def row_groups(data_set: DataSet, split: str) -> list[RowGroup]:
    """All row groups of a split, shard after shard."""
    return [RowGroup(shard.path, number) for shard in data_set.of(split) for number in range(shard.row_groups)]


def first_pictures(uri: str, data_set: DataSet, split: str, size: int, count: int) -> NDArray[np.uint8]:
    """The first pictures of a split, as many as there are up to `count`, uint8 N S S 3: for all and always the same."""
    pixels: list[NDArray[np.uint8]] = []
    store = open_store(uri)
    for group in row_groups(data_set, split):
        if len(pixels) >= count:
            break
        with store.open(group.path) as stream:
            rows = pq.ParquetFile(stream).read_row_group(group.number, ["image"])["image"]
        pixels += [images.decode(data.as_py(), size, size) for data in rows[: count - len(pixels)]]
    return np.stack(pixels) if pixels else np.empty((0, size, size, 3), np.uint8)


def check_targets(uri: str, targets: Collection[str], attributes: Collection[str]) -> None:
    """Refuse targets that the shards at `uri` have no labels of.

    Raises:
        JobFailed: which, and what there is.
    """
    if unknown := [target for target in targets if target not in attributes]:
        labelled = (
            f"it has {', '.join(attributes)}" if attributes else "its pictures have no labels: is it a style set?"
        )
        raise JobFailed(f"targets: {', '.join(unknown)}: no attribute of {uri}; {labelled}")


@dataclass(frozen=True)
class ReadRowGroup:
    """Decodes a row group to batches for `map_batches`.

    `image` is uint8 B H W 3; with targets there is `label`, float32 B T, 0 or 1.

    Raises:
        JobFailed: the shard has no labels of a target.
    """

    uri: str
    targets: tuple[str, ...]
    height: int
    width: int
    with_image_id: bool = False

    def __call__(self, batch: dict[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
        store = open_store(self.uri)
        for path, number in zip(batch["path"], batch["number"], strict=True):
            with store.open(str(path)) as stream:
                file = pq.ParquetFile(stream)
                check_targets(self.uri, self.targets, [name for name in file.schema_arrow.names if name in ATTRIBUTES])
                table = file.read_row_group(int(number), ["image_id", "image", *self.targets])
            for start in range(0, len(table), DECODE_ROWS):
                rows = table.slice(start, DECODE_ROWS)
                pixels = np.stack([images.decode(data.as_py(), self.height, self.width) for data in rows["image"]])
                decoded: dict[str, NDArray[Any]] = {"image": pixels}
                if self.targets:
                    labels = [rows[name].to_numpy().astype(np.float32) for name in self.targets]
                    decoded["label"] = np.stack(labels, axis=1)
                if self.with_image_id:
                    decoded["image_id"] = rows["image_id"].to_numpy()
                yield decoded
