"""Where labelled pictures come from: a split of shards, or a folder with a file of labels."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from celebvision.celeba.labelled import LABEL_FILES, find_labels, read_labels
from celebvision.celeba.shards import MANIFEST, DataSet, row_groups
from celebvision.evaluation.folder import LabelledFolder
from celebvision.evaluation.predict import IMAGE_ID, predict
from celebvision.job import JobFailed
from celebvision.registry import ModelVersion
from celebvision.storage import open_store


class Source(Protocol):
    """Pictures and what is known of each."""

    @property
    def split(self) -> str | None:
        """None where there are no splits."""

    @property
    def attributes(self) -> list[str]:
        """Those that every picture has a label of."""

    @property
    def digest(self) -> str:
        """Stands for the pictures and labels."""

    @property
    def failures(self) -> dict[str, str]:
        """By picture, why it has no answer; complete once every model has been asked."""

    def predict(self, registry: str, model: ModelVersion, batch_size: int) -> pa.Table:
        """As `predict.predict`, with all attributes, but for the pictures in `failures`."""

    def pictures(self, ids: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Each picture with its bytes, in any order; empty where it cannot be had any more."""


def open_source(uri: str, split: str) -> Source:
    """What lies at `uri`; a folder of pictures has no splits.

    Raises:
        JobFailed: neither shards nor labels, or both; either cannot be read; the split is empty.
    """
    store = open_store(uri)
    labels, is_data_set = find_labels(store), store.has(MANIFEST)
    if labels and is_data_set:
        raise JobFailed(f"{uri}: holds both {MANIFEST} and {labels}; give the place of one of the two")
    if labels:
        return LabelledFolder(uri, read_labels(uri))
    if not is_data_set:
        raise JobFailed(
            f"{uri}: holds no {MANIFEST} and no {' or '.join(LABEL_FILES)}; give shards that ingest wrote, or a folder "
            "of pictures with such a file at its root"
        )
    data = DataSet.load(uri)
    if not data.rows(split):
        raise JobFailed(f"{uri}: the {split} split is empty")
    return Shards(uri, data, split)


@dataclass(frozen=True)
class Shards:
    """A split of what `ingest` wrote."""

    uri: str
    data: DataSet
    split: str
    failures: dict[str, str] = field(default_factory=dict)  # none: ingest left broken pictures out

    @property
    def attributes(self) -> list[str]:
        return list(self.data.positives(self.split))

    @property
    def digest(self) -> str:
        return self.data.digest

    def predict(self, registry: str, model: ModelVersion, batch_size: int) -> pa.Table:
        return predict(self.uri, self.data, self.split, registry, model, batch_size, self.attributes)

    def pictures(self, ids: Collection[str]) -> Iterator[tuple[str, bytes]]:
        store, wanted = open_store(self.uri), pa.array(sorted(ids), pa.string())
        for group in row_groups(self.data, self.split):
            with store.open(group.path) as stream:
                file = pq.ParquetFile(stream)
                chosen = pc.is_in(file.read_row_group(group.number, [IMAGE_ID])[IMAGE_ID], wanted)
                if pc.any(chosen).as_py():
                    rows = file.read_row_group(group.number, [IMAGE_ID, "image"]).filter(chosen)
                    yield from zip(rows[IMAGE_ID].to_pylist(), rows["image"].to_pylist(), strict=True)
