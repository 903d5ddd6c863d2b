"""The writer of shards: a Ray Data job with one task a shard, whatever kind of pictures they hold."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from celebvision import images
from celebvision.celeba.original import Place
from celebvision.celeba.schema import ATTRIBUTES, BOX, LANDMARKS, SPLITS
from celebvision.celeba.shards import Shard
from celebvision.config import MIB, IngestSettings
from celebvision.ray_session import Board, board, clear_errors
from celebvision.storage import NotFound, Store, open_store

FETCH_THREADS = 16  # a task's concurrent requests
FETCH_AHEAD = 256  # pictures that a task holds besides its row group
MAX_BYTES = 64 * MIB  # a larger object is no picture, and must not fill the memory
TASK_CPUS = 0.9  # leaves a little of each core, so that a two-core machine never starves Ray's own tasks

STYLE_SCHEMA = pa.schema([("image_id", pa.string()), ("image", pa.binary())])
SCHEMA = pa.schema(
    list(STYLE_SCHEMA)
    + [pa.field(name, pa.bool_()) for name in ATTRIBUTES]
    + [pa.field("identity", pa.int32())]
    + [pa.field(f"box_{name}", pa.int32()) for name in BOX]
    + [pa.field(name, pa.int32()) for name in LANDMARKS]
)


@dataclass(frozen=True)
class Failure:
    """One picture that could not become a row, and why."""

    image_id: str
    stage: str  # list, label, fetch or decode
    error: str
    message: str


@dataclass(frozen=True)
class Plan:
    """A shard to be written: its rows' places and labels in their final order; the index of `labels` is `image_id`."""

    path: str
    split: str
    schema: pa.Schema
    places: list[Place]
    labels: pd.DataFrame


def plan_split(
    split: str, schema: pa.Schema, labels: pd.DataFrame, places: dict[str, Place], settings: IngestSettings
) -> list[Plan]:
    """Shuffle the rows of a split by the seed and cut them where the bytes of their pictures fill a shard."""
    rows = labels.iloc[np.random.default_rng([settings.seed, SPLITS.index(split)]).permutation(len(labels))]
    where = [places[image_id] for image_id in rows.index]
    return [
        Plan(f"split={split}/part-{part:05}.parquet", split, schema, where[span], rows.iloc[span])
        for part, span in enumerate(_cuts([place.size for place in where], settings.shard_bytes))
    ]


def _cuts(sizes: list[int], most: int) -> Iterator[slice]:
    """Consecutive slices whose sizes add up to about `most`; the last takes what is left."""
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if total + size > most and index > start:
            yield slice(start, index)
            start, total = index, 0
        total += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def write_shards(plans: list[Plan], settings: IngestSettings) -> tuple[list[Shard], list[Failure]]:
    """Write a shard for each plan.

    Returns:
        the shards by path, those without a row among them, and what became no row.

    Raises:
        JobFailed: storage failed in a worker.
    """
    count = sum(len(plan.places) for plan in plans)
    with clear_errors(), board("ingest", count, "images") as tally:
        # The plan travels as one object: Ray Data would otherwise take the labels apart into columns.
        rows = ray.data.from_items([{"plan": ray.put(plan)} for plan in plans], override_num_blocks=len(plans))
        written = rows.map(_WriteShard(settings, tally), num_cpus=TASK_CPUS).take_all()
    shards = sorted((Shard(**json.loads(row["shard"])) for row in written), key=lambda shard: shard.path)
    return shards, [Failure(**failure) for row in written for failure in json.loads(row["failures"])]


class _WriteShard:
    """Fetches, checks and writes the rows of a plan, one row group in memory at a time."""

    def __init__(self, settings: IngestSettings, tally: Board) -> None:
        self.settings, self.tally = settings, tally

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        plan: Plan = ray.get(row["plan"])
        source, output = open_store(self.settings.pictures), open_store(self.settings.output)
        failures: list[Failure] = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "shard.parquet"
            rows = 0
            options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
            with pq.ParquetWriter(path, plan.schema, **options) as writer:
                for group in self._row_groups(source, plan, failures):
                    writer.write_table(group, row_group_size=len(group))
                    rows += len(group)
            with path.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            row_groups, size = pq.read_metadata(path).num_row_groups, path.stat().st_size
            output.upload(path, plan.path)
        kept = plan.labels.drop(index=[failure.image_id for failure in failures])
        shard = Shard(plan.path, plan.split, rows, row_groups, size, sha256, _positives(kept))
        return {
            "shard": json.dumps(asdict(shard)),
            "failures": json.dumps([asdict(failure) for failure in failures]),
        }

    def _row_groups(self, source: Store, plan: Plan, failures: list[Failure]) -> Iterator[pa.Table]:
        for span in _cuts([place.size for place in plan.places], self.settings.row_group_bytes):
            data: list[bytes] = []
            kept: list[int] = []
            for index, outcome in zip(range(len(plan.places))[span], _fetch_all(source, plan, span), strict=True):
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                else:
                    data.append(outcome)
                    kept.append(index)
            self.tally.add(span.stop - span.start)
            if data:
                yield _table(plan.schema, data, plan.labels.iloc[kept])


def _fetch_all(source: Store, plan: Plan, span: slice) -> Iterator[bytes | Failure]:
    """The pictures of a span in order, fetched by threads that are at most `FETCH_AHEAD` ahead."""
    image_ids = list(plan.labels.index)

    def fetch(index: int) -> bytes | Failure:
        return _fetch(source, plan.places[index], image_ids[index])

    with ThreadPoolExecutor(FETCH_THREADS) as pool:
        for start in range(span.start, span.stop, FETCH_AHEAD):
            yield from pool.map(fetch, range(start, min(start + FETCH_AHEAD, span.stop)))


def _fetch(source: Store, place: Place, image_id: str) -> bytes | Failure:
    if place.size > MAX_BYTES:
        return Failure(image_id, "fetch", "TooManyBytes", f"{place.size} bytes; at most {MAX_BYTES} are allowed")
    try:
        data = place.read(source)
    except (NotFound, ValueError) as error:
        return Failure(image_id, "fetch", type(error).__name__, str(error))
    try:
        images.check(data)
    except images.UndecodableImage as error:
        return Failure(image_id, "decode", type(error).__name__, str(error))
    return data


def _table(schema: pa.Schema, data: list[bytes], labels: pd.DataFrame) -> pa.Table:
    given = labels.rename(columns={name: f"box_{name}" for name in BOX})
    columns = {"image_id": pa.array(labels.index, pa.string()), "image": pa.array(data, pa.binary())}
    for name in schema.names[2:]:
        kind = schema.field(name).type
        columns[name] = pa.array(given[name], kind) if name in given else pa.nulls(len(labels), kind)
    return pa.table(columns, schema=schema)


def _positives(labels: pd.DataFrame) -> dict[str, int]:
    return {name: int(labels[name].sum()) for name in ATTRIBUTES if name in labels}
