"""The listing that a run works on: Parquet shards of keys, sorted, written while the input is listed."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice
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
WRITERS = 4  # shards that are on their way to storage


def write_inventory(
    settings: BatchSettings, output: Store, run: Run, earlier: list[Run], on_shard: Callable[[], None] = lambda: None
) -> dict[str, int]:
    """Write what is `due`, at most `shard_keys` keys a shard, and say so after each.

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

    fresh = _due(settings, output, earlier, counted(pictures(settings)))
    writing: deque[Future[None]] = deque()
    with ThreadPoolExecutor(WRITERS, "inventory") as pool:
        while shard := list(islice(fresh, settings.shard_keys)):
            writing.append(pool.submit(_write, output, run.shard(counts["shards"]), shard))
            if len(writing) >= WRITERS:
                writing.popleft().result()
            counts["shards"] += 1
            counts["keys"] += len(shard)
            counts["bytes"] += sum(stat.size for stat in shard)
            on_shard()
        for shard_written in writing:
            shard_written.result()
    return counts


def _write(output: Store, key: str, shard: list[Stat]) -> None:
    columns = [[getattr(stat, name) for stat in shard] for name in SCHEMA.names[:4]]
    columns += [[getattr(stat, name) if isinstance(stat, Row) else None for stat in shard] for name in ("file", "row")]
    write_table(output, key, pa.table(columns, schema=SCHEMA))


def read_keys(output: Store, run: Run, number: int) -> list[Key]:
    """A shard of the inventory."""
    return [Key(**row) for row in read_table(output, run.shard(number), KEY_COLUMNS).to_pylist()]


def due(settings: BatchSettings, output: Store, earlier: list[Run]) -> Iterator[Stat]:
    """Pictures of the input that a run has to answer after `earlier` ones, oldest first; sorted by key, as a stream.

    That is what none of them has answered, or what has changed since. With `retry: failures` it is instead what the
    newest run that worked on the key could not answer, as it now stands in the input.
    """
    return _due(settings, output, earlier, pictures(settings))


def _due(settings: BatchSettings, output: Store, earlier: list[Run], listed: Iterator[Stat]) -> Iterator[Stat]:
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
