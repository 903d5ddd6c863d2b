"""Where pictures come from: what the filters let through, lists that others made, and rows of Parquet files."""

import csv
import gzip
import io
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from celebvision.batch import manifest
from celebvision.batch.fetch import Failure, Fetcher, Key
from celebvision.batch.sources import Row, _narrowed, pictures
from celebvision.config import ClassifySettings
from celebvision.images import decode
from celebvision.job import JobFailed
from celebvision.storage import Store, join, open_store

TIMES = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 29)]


def words(input: str, **others: Any) -> ClassifySettings:  # noqa: A002 (the setting's own name)
    return ClassifySettings(input=input, output="/nowhere", model="cnn", registry="/nowhere", **others)


def found(input: str, **others: Any) -> list[str]:  # noqa: A002
    return [stat.key for stat in pictures(words(input, **others))]


def fill(uri: str, sizes: dict[str, int]) -> Store:
    store = open_store(uri)
    for key, size in sizes.items():
        store.put(key, b"x" * size)
    return store


def test_whatever_its_name_is_an_object_is_not_left_out(bucket: str, odd_keys: list[str]) -> None:
    store = fill(bucket, dict.fromkeys(odd_keys, 3))
    assert found(bucket, suffixes=[]) == sorted(odd_keys)
    outcomes = Fetcher(store, lambda data: decode(data, 8, 8), 100, 4).pixels([Key(key, 3, "") for key in odd_keys])
    assert {outcome.stage for outcome in outcomes if isinstance(outcome, Failure)} == {"decode"}  # all were fetched


# ---- filters ----


@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize(
    ("glob", "wanted"),
    [
        ("*", ["2023/a.jpg", "2024/b/IMG_1.jpg", "2024/b/img_2.jpg", "2024/c.png"]),
        ("2024/*", ["2024/b/IMG_1.jpg", "2024/b/img_2.jpg", "2024/c.png"]),
        ("2024/*/IMG_*.jpg", ["2024/b/IMG_1.jpg"]),
        ("202[34]/?.*", ["2023/a.jpg", "2024/c.png"]),
        ("2023/a.jpg", ["2023/a.jpg"]),
        ("../*", []),
        ("nothing", []),
    ],
)
def test_a_glob_is_of_the_whole_key_and_minds_case(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, glob: str, wanted: list[str]
) -> None:
    place = str(tmp_path) if kind == "local" else str(request.getfixturevalue("bucket"))
    fill(place, dict.fromkeys(["2023/a.jpg", "2024/b/IMG_1.jpg", "2024/b/img_2.jpg", "2024/c.png"], 1))
    assert found(place, glob=glob) == wanted


def test_a_glob_asks_for_no_more_than_it_begins_with() -> None:
    assert _narrowed("", "2024/*/a") == "2024/"
    assert _narrowed("in/", "in/2024*") == "in/2024"
    assert _narrowed("in/", "i*") == "in/"
    assert _narrowed("in/", "out/*") is None
    assert _narrowed("in/", "") == "in/"


def test_sizes_have_both_ends_and_the_end_counts(tmp_path: Path) -> None:
    fill(str(tmp_path), {f"{size}.jpg": size for size in range(6)})
    assert found(str(tmp_path), min_size_bytes=2, max_size_bytes=4) == ["2.jpg", "3.jpg", "4.jpg"]
    assert found(str(tmp_path), max_size_bytes=0) == ["0.jpg"]


def test_times_are_from_and_with_until_and_without(tmp_path: Path) -> None:
    rows = [("a.jpg", TIMES[0]), ("b.jpg", TIMES[1]), ("c.jpg", TIMES[2])]
    pq.write_table(
        pa.table({"key": [key for key, _ in rows], "last_modified": [t for _, t in rows]}), tmp_path / "l.parquet"
    )
    spans = {"modified_since": TIMES[1], "modified_before": TIMES[2]}
    assert found(str(tmp_path), input_manifest=str(tmp_path / "l.parquet"), **spans) == ["b.jpg"]


# ---- lists ----

KEYS = ["a/1.jpg", "a/b c+d%.jpg", "a/é😀.jpg", 'a/x\ny,"z".jpg', "b/2.jpg"]


def test_a_parquet_list_is_taken_in_order_once_with_what_it_tells(tmp_path: Path, bucket: str) -> None:
    order = random.Random(0).sample(KEYS * 3, len(KEYS) * 3)
    columns = {
        "key": order,
        "size": [len(key) for key in order],
        "etag": [f'"{key}"' for key in order],
        "last_modified": pa.array([TIMES[0]] * len(order), pa.timestamp("ms")),
        "more": [1] * len(order),
    }
    pq.write_table(pa.table(columns), tmp_path / "list.parquet")
    stats = list(pictures(words(join(bucket, "a"), input_manifest=str(tmp_path / "list.parquet"))))
    assert [stat.key for stat in stats] == sorted(KEYS[:4])
    assert [(stat.size, stat.etag, stat.last_modified) for stat in stats] == [
        (len(key), key, TIMES[0]) for key in sorted(KEYS[:4])
    ]


def write_csv(rows: Sequence[Sequence[object]], header: Sequence[str] | None = None) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([header, *rows] if header else rows)
    return text.getvalue().encode()


@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz"])
def test_a_csv_list_needs_a_key_alone(bucket: str, name: str) -> None:
    content = write_csv([[key] for key in KEYS], ["key"])
    open_store(bucket).put(f"lists/{name}", gzip.compress(content) if name.endswith("gz") else content)
    stats = list(pictures(words(bucket, input_manifest=join(bucket, "lists", name))))
    assert [stat.key for stat in stats] == sorted(KEYS)
    assert {(stat.size, stat.etag, stat.last_modified) for stat in stats} == {(0, "", manifest.LONG_AGO)}


def test_filters_hold_for_lists_as_well(tmp_path: Path) -> None:
    rows = [
        ["1.jpg", 1, "2026-01-01T00:00:00Z"],
        ["2.jpg", 9, "2026-01-02T00:00:00.000Z"],
        ["3.txt", 9, "2026-01-02T00:00:00Z"],
    ]
    (tmp_path / "list.csv").write_bytes(write_csv(rows, ["key", "size", "last_modified"]))
    given = {"input_manifest": str(tmp_path / "list.csv"), "modified_since": TIMES[1]}
    assert found(str(tmp_path), min_size_bytes=5, **given) == ["2.jpg"]
    assert found(str(tmp_path), glob="1*", input_manifest=str(tmp_path / "list.csv")) == ["1.jpg"]


@pytest.mark.parametrize("encode", [quote, quote_plus])
@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
def test_s3_inventory_is_read_as_it_lies(bucket: str, kind: str, encode: Any) -> None:
    store, source = open_store(bucket), "s3://photos"
    files = [f"inv/photos/daily/data/{number}.{'csv.gz' if kind == 'CSV' else 'parquet'}" for number in range(2)]
    for file, part in zip(files, (KEYS[3:], KEYS[:3]), strict=True):
        keys = [*part, "deleted.jpg", "older.jpg"]
        latest, gone = [True] * len(part) + [True, False], [False] * len(part) + [True, False]
        if kind == "CSV":
            columns = zip(keys, latest, gone, strict=True)
            rows = [
                ["photos", encode(k), str(n).lower(), str(g).lower(), 7, "2026-01-01T00:00:00.000Z", "abc"]
                for k, n, g in columns
            ]
            store.put(file, gzip.compress(write_csv(rows)))
        else:
            times = pa.array([TIMES[0]] * len(keys), pa.timestamp("ms"))
            columns = {"bucket": ["photos"] * len(keys), "key": keys, "is_latest": latest, "is_delete_marker": gone}
            stream = io.BytesIO()
            pq.write_table(
                pa.table(
                    columns | {"size": [7] * len(keys), "last_modified_date": times, "e_tag": ["abc"] * len(keys)}
                ),
                stream,
            )
            store.put(file, stream.getvalue())
    schema = "Bucket, Key, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"
    listed = {
        "sourceBucket": "photos",
        "fileFormat": kind,
        "fileSchema": schema,
        "files": [{"key": file} for file in files],
    }
    store.put("inv/photos/daily/2026-01-01T00-00Z/manifest.json", json.dumps(listed).encode())
    uri = join(bucket, "inv/photos/daily/2026-01-01T00-00Z/manifest.json")
    stats = list(pictures(words(source, input_manifest=uri)))
    assert [stat.key for stat in stats] == sorted(KEYS)
    assert {(stat.size, stat.etag, stat.last_modified) for stat in stats} == {(7, "abc", TIMES[0])}
    with pytest.raises(JobFailed, match=r"inventory of bucket photos; the input lies in others"):
        found("s3://others", input_manifest=uri)


def test_a_list_longer_than_memory_is_sorted_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "CHUNK_ROWS", 100)
    monkeypatch.setattr(manifest, "MERGE_ROWS", 7)
    order = [f"{number % 700:04}😀\uffee.jpg" for number in random.Random(0).sample(range(1000), 1000)]
    days = list(range(len(order)))
    table = pa.table(
        {
            "key": order,
            "size": days,
            "last_modified": pa.array([day * 10**6 for day in days], pa.timestamp("us", "UTC")),
        }
    )
    pq.write_table(table, tmp_path / "list.parquet", row_group_size=30)
    stats = list(pictures(words(str(tmp_path), input_manifest=str(tmp_path / "list.parquet"))))
    assert [stat.key for stat in stats] == sorted(set(order))
    newest = {key: day for day, key in enumerate(order)}
    assert {stat.key: stat.size for stat in stats} == newest


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.csv", b"name,size\na.jpg,1\n", r"list.csv: has no column key.* name, size"),
        ("list.csv", b"key\na.jpg\n", r"no column size, which a filter of this run needs"),
        ("list.csv", b"key,size\na.jpg,big\n", r"list.csv: cannot be read.*big"),
        ("list.parquet", b"nothing", r"list.parquet: cannot be read as a list"),
        ("list.txt", b"a.jpg", r"list.txt: is no list of keys: give a .parquet, .csv"),
        ("manifest.json", b"{}", r"should hold sourceBucket, fileFormat and files"),
        ("manifest.json", b"{", r"cannot be read as a list"),
        (
            "manifest.json",
            b'{"sourceBucket": "b", "fileFormat": "ORC", "files": []}',
            r"set the inventory to CSV or Parquet",
        ),
        ("manifest.json", b'{"sourceBucket": "b", "fileFormat": "CSV", "files": [{"key": "gone.csv"}]}', r"gone.csv"),
        ("gone.csv", None, r"input_manifest: .*gone.csv: there is no such file"),
    ],
)
def test_a_wrong_list_is_refused_with_what_would_be_right(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(JobFailed, match=message):
        found(str(tmp_path), input_manifest=str(tmp_path / name), min_size_bytes=1)


# ---- rows of Parquet files ----


def parquet(images: int, name: str = "image_id", column: str = "image") -> bytes:
    stream = io.BytesIO()
    columns = {name: [f"{number:03}.jpg" for number in range(images)], column: [bytes(100_000)] * images}
    pq.write_table(pa.table(columns), stream, row_group_size=10, compression="none", use_dictionary=False)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_rows_of_shards_are_pictures_where_there_are_no_others(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    store = open_store(str(tmp_path) if kind == "local" else str(request.getfixturevalue("bucket")))
    names = ["a.parquet", "a.parquet!.parquet", "split=train/part-00000.parquet", "split=train/x#1.parquet"]
    etags = {name: store.put(name, parquet(12)) for name in names}
    store.put("dataset.json", b"{}")
    store.put("failures.parquet", parquet(2, column="reason"))
    stats = list(pictures(words(store.uri)))
    assert [stat.key for stat in stats] == sorted(
        f"{name}#{row:09}/{row:03}.jpg" for name in names for row in range(12)
    )
    assert all(isinstance(stat, Row) and stat.etag == etags[stat.file] and stat.size == 0 for stat in stats)
    assert [stat.row for stat in stats if isinstance(stat, Row)] == [*range(12)] * 4
    assert len(found(store.uri, glob="split=train/*")) == 24


def test_pictures_win_over_shards(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a.parquet", parquet(2))
    store.put("b.jpg", b"x")
    store.put("c.parquet", parquet(2))
    assert found(str(tmp_path)) == ["b.jpg"]
    assert found(str(tmp_path), suffixes=[]) == ["b.jpg"]


def test_a_shard_without_image_ids_has_rows_all_the_same(tmp_path: Path) -> None:
    open_store(str(tmp_path)).put("a.parquet", parquet(2, name="other"))
    assert found(str(tmp_path)) == ["a.parquet#000000000/", "a.parquet#000000001/"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (parquet(1, column="pixels"), "none of them has a binary column image"),
        (b"no", "a.parquet is no whole Parquet file"),
    ],
)
def test_parquet_without_pictures_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    open_store(str(tmp_path)).put("a.parquet", content)
    with pytest.raises(JobFailed, match=message):
        found(str(tmp_path))


def test_listing_shards_does_not_read_the_pictures(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(bucket)
    store.put("a.parquet", data := parquet(40))
    read: list[int] = []
    get_range = type(store).get_range

    def counted(self: Store, key: str, start: int, length: int) -> bytes:
        read.append(length)
        return get_range(self, key, start, length)

    monkeypatch.setattr(type(store), "get_range", counted)
    assert len(found(bucket)) == 40
    assert sum(read) < len(data) / 20
