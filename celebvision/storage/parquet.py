"""Parquet files that are small enough to be put whole."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from celebvision.storage.store import Store


def read_table(store: Store, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, or these columns of it. Raises as `Store.get`."""
    # Half of the time that `pq.read_table` takes of a thousand rows, which prepares for many files and threads.
    return pq.ParquetFile(pa.BufferReader(store.get(key))).read(columns=columns, use_threads=False)


def write_table(store: Store, key: str, table: pa.Table) -> None:
    """Put a Parquet file whole, or not at all. Raises as `Store.put`."""
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    store.put(key, content.getvalue())
