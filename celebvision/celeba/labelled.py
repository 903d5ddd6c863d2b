"""A folder of pictures with a file of labels beside them: what people who label by hand or by another system have."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from celebvision.celeba.schema import ATTRIBUTES
from celebvision.job import JobFailed
from celebvision.storage import Store, join, open_store

LABEL_FILES = ("labels.csv", "labels.parquet")
KEY = "key"
ANSWERS = {"1": True, "true": True, "0": False, "-1": False, "false": False}  # CelebA's own files say -1
EXPECTED = "1, true, 0, -1 or false"


def read_labels(uri: str) -> pa.Table:
    """The labels at the root of a folder of pictures, in the order of the file.

    `labels.csv` or `labels.parquet` holds a column `key`, the picture's name relative to `uri`, and a column for each
    of CelebA's attributes that is known, under its own name; other columns are not read.

    Returns:
        `key` string, and a bool column for each known attribute, in the order of `ATTRIBUTES`; none of them null.

    Raises:
        JobFailed: there is no such file or one too many; a column is missing; a key is empty, there twice, or leads out
            of `uri`; a label is missing or says neither yes nor no. It names the file, the row (the first is 1) and
            what was expected.
    """
    store = open_store(uri)
    name = find_labels(store)
    if name is None:
        raise JobFailed(f"{uri}: holds neither {' nor '.join(LABEL_FILES)}")
    where, table = join(uri, name), _read(store, name)
    known = [attribute for attribute in ATTRIBUTES if attribute in table.column_names]
    columns = table.column_names
    if KEY not in columns or not known or len(set(columns)) < len(columns):
        raise JobFailed(
            f"{where}: has the columns {', '.join(columns)}; expected {KEY}, one at least of {', '.join(ATTRIBUTES)}, "
            "and none twice"
        )
    keys = _texts(where, table, KEY)
    _check_keys(where, keys)
    return pa.table({KEY: keys} | {attribute: _answers(where, table, attribute, keys) for attribute in known})


def find_labels(store: Store) -> str | None:
    """The name of the file of labels at the store's root; None: there is none.

    Raises:
        JobFailed: there are two.
    """
    found = [name for name in LABEL_FILES if store.has(name)]
    if len(found) > 1:
        raise JobFailed(f"{store.uri}: holds both {' and '.join(found)}; leave the one that counts")
    return found[0] if found else None


def _read(store: Store, name: str) -> pa.Table:
    """The columns that are of interest; those of a CSV file as they are written there."""
    data = io.BytesIO(store.get(name))
    try:
        if name.endswith(".csv"):
            texts = dict.fromkeys((KEY, *ATTRIBUTES), pa.string())
            return pa.csv.read_csv(data, convert_options=pa.csv.ConvertOptions(column_types=texts))
        return pq.read_table(data)
    except pa.ArrowInvalid as error:
        raise JobFailed(f"{join(store.uri, name)}: cannot be read: {error}") from None


def _texts(where: str, table: pa.Table, column: str) -> pa.ChunkedArray:
    try:
        return table[column].cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise JobFailed(f"{where}: column {column} is of {table[column].type}; expected text or numbers") from None


def _check_keys(where: str, keys: pa.ChunkedArray) -> None:
    seen: dict[str, int] = {}
    for row, key in enumerate(keys.to_pylist(), start=1):
        if not key:
            raise JobFailed(f"{where}: row {row}: the key is empty; expected a picture's name, relative to the folder")
        if key.startswith("/") or ".." in key.split("/"):
            raise JobFailed(f"{where}: row {row}: key {key!r} leads out of the folder; expected a name inside it")
        if (first := seen.setdefault(key, row)) != row:
            raise JobFailed(f"{where}: row {row}: key {key!r} stands in row {first} too; expected each once")


def _answers(where: str, table: pa.Table, attribute: str, keys: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = _texts(where, table, attribute)
    places = pc.index_in(pc.utf8_lower(pc.utf8_trim_whitespace(texts)), pa.array(list(ANSWERS)))
    if places.null_count:
        row = pc.index(pc.is_null(places), True).as_py()
        raise JobFailed(
            f"{where}: row {row + 1} ({keys[row]}): {attribute} is {texts[row].as_py()!r}; expected {EXPECTED}"
        )
    return pc.take(pa.array(list(ANSWERS.values())), places)
