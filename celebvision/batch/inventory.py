"""The listing that a run works on: Parquet shards of keys, sorted, written while the bucket is listed."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import groupby, islice

import pyarrow as pa
import pyarrow.parquet as pq

from celebvision.batch.record import Run
from celebvision.config import ClassifySettings
from celebvision.storage import Stat, Store, open_bucket, open_store, write_table

SCHEMA = pa.schema(
    [("key", pa.string()), ("size", pa.int64()), ("etag", pa.string()), ("last_modified", pa.timestamp("us", "UTC"))]
)
WRITTEN = ("runs/", "results/run=", "failures/run=")  # folders of an output


def write_inventory(settings: ClassifySettings, output: Store, run: Run, earlier: list[Run]) -> dict[str, int]:
    """List the input and write what no earlier run has answered, at most `shard_keys` keys a shard.

    Returns:
        `shards`, `keys` and `bytes` of the inventory, and `listed`: pictures in the input, answered or not.
    """
    for stat in list(output.list(f"{run.folder}/inventory/")):  # of a listing that was cut off
        output.delete(stat.key)
    counts = {"shards": 0, "keys": 0, "bytes": 0, "listed": 0}

    def counted(stats: Iterable[Stat]) -> Iterator[Stat]:
        for stat in stats:
            counts["listed"] += 1
            yield stat

    fresh = _without(counted(pictures(settings)), _answered(output, earlier))
    while shard := list(islice(fresh, settings.shard_keys)):
        columns = [[getattr(stat, name) for stat in shard] for name in SCHEMA.names]
        write_table(output, run.shard(counts["shards"]), pa.table(columns, schema=SCHEMA))
        counts["shards"] += 1
        counts["keys"] += len(shard)
        counts["bytes"] += sum(stat.size for stat in shard)
    return counts


def pictures(settings: ClassifySettings) -> Iterator[Stat]:
    """Objects of the input with a wanted suffix, sorted by key; what a job wrote to the output is no input."""
    store, prefix = open_bucket(settings.input)
    suffixes = tuple(suffix.lower() for suffix in settings.suffixes) or ("",)
    ours = _output_inside(settings)
    for stat in store.list(prefix):
        if stat.key.lower().endswith(suffixes) and not stat.key.startswith(ours):
            yield stat


def _output_inside(settings: ClassifySettings) -> tuple[str, ...]:
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
    """Stats whose key and etag are not among the answered; both come sorted by key, and neither is held."""
    groups = ((key, {etag for _, etag in rows}) for key, rows in groupby(answered, key=lambda row: row[0]))
    key, etags = next(groups, (None, set()))
    for stat in stats:
        while key is not None and key < stat.key:
            key, etags = next(groups, (None, set()))
        if stat.key != key or stat.etag not in etags:
            yield stat
