"""The inventory that a run works on: Parquet shards of keys, sorted, and what belongs into them."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

import pyarrow as pa
import pyarrow.parquet as pq

from celebvision.batch.fetch import Key
from celebvision.batch.record import Run
from celebvision.batch.sources import Row, pictures
from celebvision.config import BatchSettings
from celebvision.storage import Stat, Store, read_table, write_table

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("last_modified", pa.timestamp("us", "UTC")),
        ("file", pa.string()),  # the Parquet file that the picture is a row of; null: the key is an object
        ("row", pa.int64()),
    ]
)
KEY_COLUMNS = ["key", "size", "etag", "file", "row"]
COUNTS = b"counts"  # in a shard's metadata: shards, keys and bytes of the inventory up to and with it


def begun(output: Store, run: Run) -> tuple[dict[str, int], str]:
    """What a listing that was cut off leaves to go on from: counts of its shards, none missing, and their last key.

    Shards behind a missing one are removed, since nobody was told of them. So are all if an earlier version wrote them,
    which told of none before all were there.
    """
    numbers = shard_numbers(output, f"{run.folder}/inventory/")
    there = next((at for at, number in enumerate(numbers) if number != at), len(numbers))
    counts, key = {"shards": 0, "keys": 0, "bytes": 0}, ""
    if there:
        last = read_table(output, run.shard(there - 1), ["key"])
        counts = json.loads((last.schema.metadata or {}).get(COUNTS, json.dumps(counts)))
        key = last["key"][-1].as_py() if counts["shards"] else ""
    output.delete_all(run.shard(number) for number in numbers[counts["shards"] :])
    return counts, key


def write_shard(output: Store, key: str, shard: list[Stat], counts: dict[str, int]) -> None:
    """Put a shard of the inventory, which then has these `counts`."""
    columns = [[getattr(stat, name) for stat in shard] for name in SCHEMA.names[:4]]
    columns += [[getattr(stat, name) if isinstance(stat, Row) else None for stat in shard] for name in ("file", "row")]
    write_table(output, key, pa.table(columns, schema=SCHEMA.with_metadata({COUNTS: json.dumps(counts)})))


def shard_numbers(output: Store, folder: str) -> list[int]:
    """Of the files `part-NUMBER.parquet` in this folder, sorted."""
    return sorted(int(stat.key.rpartition("-")[2].removesuffix(".parquet")) for stat in output.list(folder))


def read_keys(output: Store, run: Run, number: int) -> list[Key]:
    """A shard of the inventory."""
    return [Key(**row) for row in read_table(output, run.shard(number), KEY_COLUMNS).to_pylist()]


def due(settings: BatchSettings, output: Store, earlier: list[Run]) -> Iterator[Stat]:
    """Pictures of the input that a run has to answer after `earlier` ones, oldest first; sorted by key, as a stream.

    That is what none of them has answered, or what has changed since. With `retry: failures` it is instead what the
    newest run that worked on the key could not answer, as it now stands in the input.
    """
    return due_among(pictures(settings), settings, output, earlier)


def due_among(listed: Iterator[Stat], settings: BatchSettings, output: Store, earlier: list[Run]) -> Iterator[Stat]:
    """Those of the pictures that were listed which are `due`."""
    if settings.retry == "failures":
        return _among(listed, _failed(output, earlier))
    return _without(listed, _answered(output, earlier))


def _answered(output: Store, runs: list[Run]) -> Iterator[tuple[str, str]]:
    """(key, etag) of every result and failure of these runs, sorted by key, read as a stream."""
    folders = [f"{kind}/run={run.run_id}/" for run in runs for kind in ("results", "failures")]
    return heapq.merge(*(_rows(output, folder) for folder in folders))


def _rows(output: Store, folder: str) -> Iterator[tuple[str, str]]:
    for stat in output.list(folder):
        with output.open(stat.key) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(columns=["key", "etag"]):
                yield from zip(batch["key"].to_pylist(), batch["etag"].to_pylist(), strict=True)


def _without(stats: Iterator[Stat], answered: Iterator[tuple[str, str]]) -> Iterator[Stat]:
    """Stats whose key and etag are not among the answered; both come sorted by key, and neither is held.

    Where no etag is known, every answer of the key counts.
    """
    groups = ((key, {etag for _, etag in rows}) for key, rows in groupby(answered, key=itemgetter(0)))
    key, etags = next(groups, (None, set()))
    for stat in stats:
        while key is not None and key < stat.key:
            key, etags = next(groups, (None, set()))
        if stat.key != key or (stat.etag and stat.etag not in etags):
            yield stat


def _failed(output: Store, runs: list[Run]) -> Iterator[str]:
    """Keys whose newest row in these runs, oldest first, is a failure; sorted."""
    kinds = ("results", "failures")
    return _newest_failures(
        _aged(_rows(output, f"{kind}/run={run.run_id}/"), age, kind) for age, run in enumerate(runs) for kind in kinds
    )


def _newest_failures(rows: Iterable[Iterator[tuple[str, int, str]]]) -> Iterator[str]:
    for key, of_key in groupby(heapq.merge(*rows), key=itemgetter(0)):
        *_, (_, _, newest) = of_key
        if newest == "failures":
            yield key


def _aged(rows: Iterator[tuple[str, str]], age: int, kind: str) -> Iterator[tuple[str, int, str]]:
    return ((key, age, kind) for key, _ in rows)


def _among(stats: Iterator[Stat], keys: Iterator[str]) -> Iterator[Stat]:
    """Stats whose key is among these; both come sorted by key, and neither is held."""
    key = next(keys, None)
    for stat in stats:
        while key is not None and key < stat.key:
            key = next(keys, None)
        if stat.key == key:
            yield stat
