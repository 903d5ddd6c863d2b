"""What tests of `ingest` share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from celebvision.celeba.shards import DataSet

COUNT = 120
KIB = 1024


def rows_of(output: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Split and row of everything in the shards that `dataset.json` names."""
    for shard in DataSet.load(str(output)).shards:
        for row in pq.read_table(output / shard.path, partitioning=None).to_pylist():
            yield shard.split, row


def failures_of(output: Path) -> dict[str, tuple[str, str]]:
    rows = pq.read_table(output / "failures.parquet").to_pylist()
    assert all(len(row["message"]) > 10 or row["message"] == "empty: 0 bytes" for row in rows)
    assert len({row["image_id"] for row in rows}) == len(rows)
    return {row["image_id"]: (row["stage"], row["error"]) for row in rows}


def files_of(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*.parquet")}
