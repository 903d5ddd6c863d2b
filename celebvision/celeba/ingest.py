"""Pictures to Parquet shards: the original CelebA files, a folder of pictures with labels, or one of one style.

Which row stands where depends on the source and the seed alone, so running it twice gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd
import pyarrow as pa

from celebvision.celeba import labelled
from celebvision.celeba.original import Place, drawn_split, find_images, is_hidden, read_labels
from celebvision.celeba.schema import SPLITS
from celebvision.celeba.shards import MANIFEST, DataSet
from celebvision.celeba.write import SCHEMA, STYLE_SCHEMA, Failure, Plan, plan_split, write_shards
from celebvision.config import PICTURES, IngestSettings
from celebvision.job import JobFailed, Outcome
from celebvision.storage import Store, open_store, write_table

FAILURES = "failures.parquet"
FAILURE_SCHEMA = pa.schema([(name, pa.string()) for name in ("image_id", "stage", "error", "message")])
STYLE_SPLIT = "train"  # there is nothing to hold back: a style is judged on photos that it redraws


def ingest(settings: IngestSettings) -> Outcome:
    """Write the shards, `dataset.json` and the list of failures.

    Raises:
        JobFailed: the source is not CelebA's, the folder has no labels or no pictures, or storage failed in a worker.
    """
    source, output = open_store(settings.pictures), open_store(settings.output)
    splits = (STYLE_SPLIT,) if settings.style_folder else SPLITS
    plan = _plan_styles if settings.style_folder else _plan_labelled if settings.labelled else _plan_celeba
    plans, failures = plan(source, settings)
    output.delete(MANIFEST)  # until the last shard is written, readers see no data set rather than a mixed one
    written, more = write_shards(plans, settings)
    failures = sorted([*failures, *more], key=lambda failure: failure.image_id)
    data_set = DataSet(settings.pictures, settings.seed, tuple(shard for shard in written if shard.rows))
    _write_failures(output, failures)
    output.put(MANIFEST, json.dumps(data_set.to_json(), indent=1).encode())
    _delete_leftovers(output, data_set)
    summary: dict[str, Any] = {split: data_set.rows(split) for split in splits}
    summary |= {"failures": len(failures), "shards": len(data_set.shards), "digest": data_set.digest}
    return Outcome({"output": settings.output, **summary}, len(failures))


def _plan_celeba(source: Store, settings: IngestSettings) -> tuple[list[Plan], list[Failure]]:
    """Shards of the pictures that have labels and a split, and a failure for each of the others."""
    labels, places = read_labels(source, settings.seed), find_images(source)
    return _plan_splits(SCHEMA, labels, places, settings), list(_unmatched(labels, places))


def _plan_labelled(source: Store, settings: IngestSettings) -> tuple[list[Plan], list[Failure]]:
    """The same of a folder with a file of labels; the shards have the attributes that it knows, and no others."""
    table = labelled.read_labels(settings.pictures)
    labels = table.to_pandas().set_index(labelled.KEY)
    labels["split"] = [drawn_split(key, settings.seed) for key in labels.index]
    schema = pa.schema([*STYLE_SCHEMA, *(field for field in table.schema if field.name != labelled.KEY)])
    places = {
        stat.key: Place(stat.key, stat.size)
        for stat in source.list()
        if stat.key in labels.index or _is_picture(stat.key)
    }
    return _plan_splits(schema, labels, places, settings), list(_unmatched(labels, places))


def _plan_splits(
    schema: pa.Schema, labels: pd.DataFrame, places: dict[str, Place], settings: IngestSettings
) -> list[Plan]:
    usable = labels[labels.index.isin(list(places))].sort_index()
    plans = [
        plan
        for split in SPLITS
        for plan in plan_split(split, schema, usable[usable["split"] == split].drop(columns="split"), places, settings)
    ]
    if not plans:
        raise JobFailed(f"{settings.pictures}: none of its {len(places)} pictures has both labels and a split")
    return plans


def _unmatched(labels: pd.DataFrame, places: dict[str, Place]) -> Iterator[Failure]:
    for image_id in labels.index.difference(list(places)):
        yield Failure(image_id, "list", "NoImage", "is labelled, and there is no such picture")
    for image_id in sorted(set(places) - set(labels.index)):
        yield Failure(image_id, "label", "NoLabels", "is a picture, and the file of labels does not name it")
    for image_id in labels.index[~labels["split"].isin(SPLITS)].intersection(list(places)):
        yield Failure(image_id, "label", "NoSplit", "the partition file puts it in none of 0, 1, 2")


def _plan_styles(source: Store, settings: IngestSettings) -> tuple[list[Plan], list[Failure]]:
    """Shards of all pictures of a folder, by their keys in it."""
    places = {stat.key: Place(stat.key, stat.size) for stat in source.list() if _is_picture(stat.key)}
    if not places:
        raise JobFailed(f"{settings.style_folder}: holds no picture whose name ends in {', '.join(PICTURES)}")
    unlabelled = pd.DataFrame(index=sorted(places))
    return plan_split(STYLE_SPLIT, STYLE_SCHEMA, unlabelled, places, settings), []


def _is_picture(key: str) -> bool:
    """Whether the key's name says so."""
    return key.lower().endswith(PICTURES) and not is_hidden(key.rpartition("/")[2])


def _write_failures(output: Store, failures: list[Failure]) -> None:
    table = pa.Table.from_pylist([asdict(failure) for failure in failures], schema=FAILURE_SCHEMA)
    write_table(output, FAILURES, table)


def _delete_leftovers(output: Store, data_set: DataSet) -> None:
    """Shards that an earlier, larger ingest left in the same place."""
    ours = {shard.path for shard in data_set.shards}
    for split in SPLITS:
        there = (stat.key for stat in output.list(f"split={split}/"))
        output.delete_all(key for key in there if key not in ours)
