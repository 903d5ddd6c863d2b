"""What came of the keys: each must be in results or failures, once, with the bytes of an undisturbed run."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from celebvision.storage import Store, open_store, read_table
from celebvision.storage.local import HIDDEN

LOCK = f"{HIDDEN}lock"  # stays in a folder where files are replaced conditionally, and is empty
OF_THE_RUN = {"run_id", "ms"}  # columns that differ between two runs of the same


@dataclass(frozen=True)
class Count:
    """The keys of a bucket after a run."""

    keys: int
    results: int
    failures: int
    lost: int
    doubled: int
    strange: int  # rows of keys that were not in the bucket
    same_bytes: bool
    litter: list[str] = field(default_factory=list)  # files that a finished run does not have

    @property
    def exact(self) -> bool:
        return self.same_bytes and not (self.lost or self.doubled or self.strange or self.litter)


def rows(output: str, kind: str) -> pa.Table | None:
    """All rows under `results/` or `failures/`, in the order of their files."""
    store = open_store(output)
    tables = [read_table(store, stat.key) for stat in store.list(f"{kind}/")]
    return pa.concat_tables(tables) if tables else None


def count(output: str, keys: set[str], undisturbed: str, without: tuple[str, ...] = ()) -> Count:
    """Hold a finished run's output against the keys of its bucket and against an undisturbed run of the same.

    Args:
        without: columns that two runs do not share: `etag` where one bucket is a folder.
    """
    found = {kind: rows(output, kind) for kind in ("results", "failures")}
    seen = Counter(key for table in found.values() if table is not None for key in table["key"].to_pylist())
    wanted = {kind: rows(undisturbed, kind) for kind in found}
    return Count(
        keys=len(keys),
        results=len(found["results"] or ()),
        failures=len(found["failures"] or ()),
        lost=len(keys - seen.keys()),
        doubled=sum(times > 1 for times in seen.values()),
        strange=len(seen.keys() - keys),
        same_bytes=all(_same(found[kind], wanted[kind], OF_THE_RUN.union(without)) for kind in found)
        and pictures(output) == pictures(undisturbed),
        litter=litter(output),
    )


def _same(one: pa.Table | None, other: pa.Table | None, without: set[str]) -> bool:
    if one is None or other is None:
        return one is other
    columns = [name for name in one.column_names if name not in without]
    return set(one.column_names) == set(other.column_names) and bool(one.select(columns).equals(other.select(columns)))


def pictures(output: str) -> dict[str, bytes]:
    """What `stylize` has drawn."""
    store = open_store(output)
    return {stat.key: store.get(stat.key) for stat in store.list("images/")}


def litter(output: str) -> list[str]:
    """Files that nobody will ask for again: parts and journals of a finished run, hidden ones of a write, halves."""
    store = open_store(output)
    passing = re.compile("/(parts|journal)/").search
    left = [stat.key for stat in store.list() if passing(stat.key) or not _is_whole(store, stat.key)]
    hidden = [] if output.startswith("s3://") else Path(output).rglob(".*")
    return left + [str(path) for path in hidden if path.name != LOCK]


def _is_whole(store: Store, key: str) -> bool:
    if not key.endswith(".parquet"):
        return True
    try:
        pq.read_table(pa.BufferReader(store.get(key)))
    except pa.ArrowInvalid:
        return False
    return True
