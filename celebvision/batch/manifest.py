"""Keys from a list that somebody made, in place of listing the bucket.

The list may be Parquet, CSV with a header, or what S3 Inventory writes; in any order, with doubles, of any length.
It is sorted in pieces on this machine's disk, and the pieces are merged: what comes after it works on keys in order.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import merge
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from celebvision.job import JobFailed
from celebvision.storage import NotFound, Stat, Store, open_bucket, open_store

CHUNK_ROWS = 250_000  # sorted at a time; about 100 MB
MERGE_ROWS = 4096  # of each sorted piece that are in memory
LONG_AGO = datetime.fromtimestamp(0, UTC)  # where a list tells no time
FIELDS = {
    "key": pa.string(),
    "size": pa.int64(),
    "etag": pa.string(),
    "last_modified": pa.timestamp("us", "UTC"),
}
INVENTORY_NAMES = {"lastmodifieddate": "last_modified", "islatest": "is_latest", "isdeletemarker": "is_delete_marker"}
VERSION_FIELDS = {"is_latest": pa.bool_(), "is_delete_marker": pa.bool_()}  # of an inventory that lists all versions


def read_manifest(uri: str, bucket: str, needed: list[str]) -> Iterator[Stat]:
    """The keys that the list at `uri` names, each once, sorted. Where no size, etag or time is told: 0, '' and 1970.

    Args:
        bucket: the bucket that the keys lie in; an inventory of another one is refused.
        needed: fields that must be told, besides the key.

    Raises:
        JobFailed: the list is missing, of no known format, or lacks a field.
    """
    rows = _checked(_tables(uri, bucket), uri, needed)
    with tempfile.TemporaryDirectory() as folder:
        pieces = [_rows(piece) for piece in _sorted_pieces(rows, Path(folder))]
        for key, same in groupby(merge(*pieces, key=itemgetter(0)), key=itemgetter(0)):
            _, size, etag, modified = max(same, key=lambda row: row[3] or LONG_AGO)
            yield Stat(key, size or 0, (etag or "").strip('"'), modified or LONG_AGO)


def _checked(tables: Iterator[pa.Table], uri: str, needed: list[str]) -> Iterator[pa.Table]:
    for table in tables:
        for name in ["key", *needed]:
            if name not in table.column_names:
                why = "" if name == "key" else ", which a filter of this run needs"
                raise JobFailed(f"{uri}: has no column {name}{why}; its columns are {', '.join(table.column_names)}")
        for name, kept in (("is_latest", True), ("is_delete_marker", False)):
            if name in table.column_names:
                table = table.filter(pc.equal(table[name], kept))
        columns = {
            name: table[name].cast(kind) if name in table.column_names else pa.nulls(len(table), kind)
            for name, kind in FIELDS.items()
        }
        yield pa.table(columns).filter(pc.is_valid(columns["key"]))


def _tables(uri: str, bucket: str) -> Iterator[pa.Table]:
    """What the list holds, some thousand rows at a time, its columns under our names."""
    folder, _, name = uri.rpartition("/")
    store = open_store(folder or ".")
    try:
        if name.endswith(".json"):
            yield from _of_inventory(uri, json.loads(store.get(name)), bucket)
        elif name.endswith(".parquet"):
            yield from _of_parquet(store.open(name))
        elif name.endswith((".csv", ".csv.gz")):
            yield from _of_csv(store.open(name), gzipped=name.endswith(".gz"))
        else:
            raise JobFailed(
                f"{uri}: is no list of keys: give a .parquet, .csv or .csv.gz, or S3 Inventory's manifest.json"
            )
    except NotFound as error:
        raise JobFailed(f"input_manifest: {error}") from error
    except (pa.ArrowInvalid, ValueError) as error:
        raise JobFailed(f"{uri}: cannot be read as a list of keys: {error}") from error


def _of_parquet(stream: BinaryIO) -> Iterator[pa.Table]:
    with stream:
        file = pq.ParquetFile(stream)
        kept = [name for name in file.schema_arrow.names if _our_name(name) in FIELDS | VERSION_FIELDS]
        if "key" not in map(_our_name, kept):
            kept = file.schema_arrow.names  # for the message
        for batch in file.iter_batches(columns=kept):
            yield pa.Table.from_batches([batch]).rename_columns([_our_name(name) for name in kept])


def _of_csv(stream: BinaryIO, gzipped: bool, names: list[str] | None = None) -> Iterator[pa.Table]:
    """CSV with a header, or with these column `names`."""
    options = {
        "read_options": pa.csv.ReadOptions(column_names=names),
        "parse_options": pa.csv.ParseOptions(newlines_in_values=True),
        "convert_options": pa.csv.ConvertOptions(
            column_types={**FIELDS, **VERSION_FIELDS},
            timestamp_parsers=[pa.csv.ISO8601],
            true_values=["true", "TRUE", "True"],
        ),
    }
    with stream, pa.input_stream(stream, compression="gzip" if gzipped else None) as plain:
        for batch in pa.csv.open_csv(plain, **options):
            yield pa.Table.from_batches([batch])


def _of_inventory(uri: str, manifest: Any, bucket: str) -> Iterator[pa.Table]:
    """S3 Inventory's layout: a manifest that names data files elsewhere in its own bucket."""
    if not isinstance(manifest, dict) or not {"sourceBucket", "fileFormat", "files"} <= manifest.keys():
        raise JobFailed(
            f"{uri}: is not S3 Inventory's manifest.json: it should hold sourceBucket, fileFormat and files"
        )
    source, kind = manifest["sourceBucket"].rpartition(":")[2], manifest["fileFormat"].lower()
    if bucket and source != bucket:
        raise JobFailed(f"{uri}: is an inventory of bucket {source}; the input lies in {bucket}")
    if kind not in ("csv", "parquet"):
        raise JobFailed(f"{uri}: its files are {manifest['fileFormat']}; set the inventory to CSV or Parquet")
    for key in (file["key"] for file in manifest["files"]):
        stream = _beside(uri, key).open(key)
        if kind == "parquet":
            yield from _of_parquet(stream)
            continue
        names = [_our_name(name.strip()) for name in manifest.get("fileSchema", "").split(",")]
        for table in _of_csv(stream, key.endswith(".gz"), names):
            if "key" in names:
                # '+' stands for a space: the sign itself comes as %2B
                keys = pa.array([unquote_plus(key) for key in table["key"].to_pylist()], pa.string())
                table = table.set_column(names.index("key"), "key", keys)
            yield table


def _beside(uri: str, key: str) -> Store:
    """The bucket that a manifest lies in; of a copy on this machine, the folder above it that holds `key`."""
    if uri.startswith("s3://"):
        return open_bucket(uri)[0]
    above = Path(uri).resolve().parents
    return open_store(str(next((folder for folder in above if (folder / key).exists()), above[0])))


def _our_name(name: str) -> str:
    plain = name.lower().replace("_", "")
    return {"etag": "etag", "lastmodified": "last_modified", **INVENTORY_NAMES}.get(plain, name.lower())


def _sorted_pieces(tables: Iterator[pa.Table], folder: Path) -> list[Path]:
    """Files of at most `CHUNK_ROWS` rows or so, each sorted by key."""
    pieces: list[Path] = []

    def spill(chunk: list[pa.Table]) -> None:
        pieces.append(folder / f"{len(pieces)}.parquet")
        pq.write_table(pa.concat_tables(chunk).sort_by("key"), pieces[-1], row_group_size=MERGE_ROWS)

    chunk: list[pa.Table] = []
    for table in tables:
        chunk.append(table)
        if sum(map(len, chunk)) >= CHUNK_ROWS:
            spill(chunk)
            chunk = []
    if chunk:
        spill(chunk)
    return pieces


def _rows(piece: Path) -> Iterator[tuple[str, int | None, str | None, datetime | None]]:
    with pq.ParquetFile(piece) as file:
        for batch in file.iter_batches(MERGE_ROWS):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
