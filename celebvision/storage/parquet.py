"""Parquet files that are small enough to be put whole."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from celebvision.storage.store import Store


def open_table(store: Store, key: str) -> pq.ParquetFile:
    """A Parquet file, in memory as it was written: compressed. Raises as `Store.get`."""
    return pq.ParquetFile(pa.BufferReader(store.get(key)))


def read_table(store: Store, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, or these columns of it. Raises as `Store.get`."""
    # Half of the time that `pq.read_table` takes of a thousand rows, which prepares for many files and threads.
    return open_table(store, key).read(columns=columns, use_threads=False)


def write_table(store: Store, key: str, table: pa.Table) -> None:
    """Put a Parquet file whole, or not at all. Raises as `Store.put`."""
    file = GrowingFile(table.schema)
    file.add(table)
    file.put(store, key)


class GrowingFile:
    """A Parquet file that is made a row group after another, and lies in memory, compressed, until it is put."""

    def __init__(self, schema: pa.Schema) -> None:
        self.rows = 0
        self._content = io.BytesIO()
        self._writer = pq.ParquetWriter(self._content, schema, compression="zstd")

    def add(self, table: pa.Table) -> None:
        """Append these rows as a row group; none are none."""
        self.rows += len(table)
        if len(table):
            self._writer.write_table(table)

    def put(self, store: Store, key: str) -> None:
        """End the file and put it whole, or not at all. Raises as `Store.put`."""
        self._writer.close()
        store.put(key, self._content.getvalue())
