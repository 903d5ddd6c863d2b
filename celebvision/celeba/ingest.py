"""Original CelebA files to Parquet shards: a Ray Data job with one task a shard.

Which row stands where depends on the source and the seed alone, so running it twice gives the same bytes.
"""

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
from celebvision.celeba.original import Place, find_images, read_labels
from celebvision.celeba.schema import ATTRIBUTES, BOX, LANDMARKS, SPLITS
from celebvision.celeba.shards import MANIFEST, DataSet, Shard
from celebvision.config import MIB, IngestSettings
from celebvision.job import JobFailed, Outcome
from celebvision.ray_session import Board, board, clear_errors
from celebvision.storage import NotFound, Store, open_store, write_table

FAILURES = "failures.parquet"
FETCH_THREADS = 16  # a task's concurrent requests
FETCH_AHEAD = 256  # pictures that a task holds besides its row group
MAX_BYTES = 64 * MIB  # a larger object is no picture, and must not fill the memory
TASK_CPUS = 0.9  # leaves a little of each core, so that a two-core machine never starves Ray's own tasks

SCHEMA = pa.schema(
    [("image_id", pa.string()), ("image", pa.binary())]
    + [(name, pa.bool_()) for name in ATTRIBUTES]
    + [("identity", pa.int32())]
    + [(f"box_{name}", pa.int32()) for name in BOX]
    + [(name, pa.int32()) for name in LANDMARKS]
)
FAILURE_SCHEMA = pa.schema([(name, pa.string()) for name in ("image_id", "stage", "error", "message")])


@dataclass(frozen=True)
class Failure:
    """One picture that could not become a row, and why."""

    image_id: str
    stage: str  # list, label, fetch or decode
    error: str
    message: str


@dataclass(frozen=True)
class Plan:
    """A shard to be written: its rows' places and labels in their final order."""

    path: str
    split: str
    places: list[Place]
    labels: pd.DataFrame


def ingest(settings: IngestSettings) -> Outcome:
    """Write the shards, `dataset.json` and the list of failures.

    Raises:
        JobFailed: the source is not CelebA's, or storage failed in a worker.
    """
    source, output = open_store(settings.source), open_store(settings.output)
    labels, places = read_labels(source, settings.seed), find_images(source)
    failures = list(_unmatched(labels, places))
    plans = _plan(labels, places, settings)
    if not plans:
        raise JobFailed(f"{settings.source}: none of its {len(places)} pictures has both labels and a split")
    output.delete(MANIFEST)  # until the last shard is written, readers see no data set rather than a mixed one
    written = _write_shards(plans, settings)
    failures += [Failure(**failure) for shard in written for failure in shard["failures"]]
    failures.sort(key=lambda failure: failure.image_id)
    data_set = _describe(written, settings)
    _write_failures(output, failures)
    output.put(MANIFEST, json.dumps(data_set.to_json(), indent=1).encode())
    _delete_leftovers(output, data_set)
    summary: dict[str, Any] = {split: data_set.rows(split) for split in SPLITS}
    summary |= {"failures": len(failures), "shards": len(data_set.shards), "digest": data_set.digest}
    return Outcome({"output": settings.output, **summary}, len(failures))


def _unmatched(labels: pd.DataFrame, places: dict[str, Place]) -> Iterator[Failure]:
    for image_id in labels.index.difference(list(places)):
        yield Failure(image_id, "list", "NoImage", "is labelled, and there is no such picture")
    for image_id in sorted(set(places) - set(labels.index)):
        yield Failure(image_id, "label", "NoLabels", "is a picture, and the attribute file does not name it")
    for image_id in labels.index[~labels["split"].isin(SPLITS)].intersection(list(places)):
        yield Failure(image_id, "label", "NoSplit", "the partition file puts it in none of 0, 1, 2")


def _plan(labels: pd.DataFrame, places: dict[str, Place], settings: IngestSettings) -> list[Plan]:
    """Shuffle each split by the seed and cut it where the bytes of its pictures fill a shard."""
    plans = []
    usable = labels[labels.index.isin(list(places))].sort_index()
    for number, split in enumerate(SPLITS):
        rows = usable[usable["split"] == split].drop(columns="split")
        rows = rows.iloc[np.random.default_rng([settings.seed, number]).permutation(len(rows))]
        where = [places[image_id] for image_id in rows.index]
        for part, span in enumerate(_cuts([place.size for place in where], settings.shard_bytes)):
            path = f"split={split}/part-{part:05}.parquet"
            plans.append(Plan(path, split, where[span], rows.iloc[span]))
    return plans


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


def _write_shards(plans: list[Plan], settings: IngestSettings) -> list[dict[str, Any]]:
    count = sum(len(plan.places) for plan in plans)
    with clear_errors(), board("ingest", count, "images") as tally:
        # The plan travels as one object: Ray Data would otherwise take the labels apart into columns.
        shards = ray.data.from_items([{"plan": ray.put(plan)} for plan in plans], override_num_blocks=len(plans))
        written = shards.map(_WriteShard(settings, tally), num_cpus=TASK_CPUS).take_all()
    return sorted((json.loads(row["shard"]) for row in written), key=lambda shard: str(shard["path"]))


class _WriteShard:
    """Fetches, checks and writes the rows of a plan, one row group in memory at a time."""

    def __init__(self, settings: IngestSettings, tally: Board) -> None:
        self.settings, self.tally = settings, tally

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        plan: Plan = ray.get(row["plan"])
        source, output = open_store(self.settings.source), open_store(self.settings.output)
        failures: list[Failure] = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "shard.parquet"
            rows = 0
            options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
            with pq.ParquetWriter(path, SCHEMA, **options) as writer:
                for group in self._row_groups(source, plan, failures):
                    writer.write_table(group, row_group_size=len(group))
                    rows += len(group)
            with path.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            row_groups, size = pq.read_metadata(path).num_row_groups, path.stat().st_size
            output.upload(path, plan.path)
        kept = plan.labels.drop(index=[failure.image_id for failure in failures])
        shard = Shard(plan.path, plan.split, rows, row_groups, size, sha256, _positives(kept))
        return {"shard": json.dumps(asdict(shard) | {"failures": [asdict(failure) for failure in failures]})}

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
                yield _table(data, plan.labels.iloc[kept])


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


def _table(data: list[bytes], labels: pd.DataFrame) -> pa.Table:
    given = labels.rename(columns={name: f"box_{name}" for name in BOX})
    columns = {"image_id": pa.array(labels.index, pa.string()), "image": pa.array(data, pa.binary())}
    for name in SCHEMA.names[2:]:
        kind = SCHEMA.field(name).type
        columns[name] = pa.array(given[name], kind) if name in given else pa.nulls(len(labels), kind)
    return pa.table(columns, schema=SCHEMA)


def _positives(labels: pd.DataFrame) -> dict[str, int]:
    return {name: int(labels[name].sum()) for name in ATTRIBUTES}


def _describe(written: list[dict[str, Any]], settings: IngestSettings) -> DataSet:
    shards = [
        Shard(**{key: value for key, value in shard.items() if key != "failures"}) for shard in written if shard["rows"]
    ]
    return DataSet(settings.source, settings.seed, tuple(shards))


def _write_failures(output: Store, failures: list[Failure]) -> None:
    table = pa.Table.from_pylist([asdict(failure) for failure in failures], schema=FAILURE_SCHEMA)
    write_table(output, FAILURES, table)


def _delete_leftovers(output: Store, data_set: DataSet) -> None:
    """Shards that an earlier, larger ingest left in the same place."""
    ours = {shard.path for shard in data_set.shards}
    for split in SPLITS:
        for stat in list(output.list(f"split={split}/")):
            if stat.key not in ours:
                output.delete(stat.key)
