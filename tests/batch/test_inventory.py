"""The inventory: every picture of the input that no earlier run has answered, once, in order, in small shards."""

import math
import tracemalloc
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celebvision.batch.inventory import SCHEMA, _aged, _among, _newest_failures, _without, due
from celebvision.batch.listing import Listing
from celebvision.batch.record import Run
from celebvision.config import ClassifySettings
from celebvision.storage import (
    Stat,
    StorageError,
    Store,
    join,
    listing,
    open_store,
    read_table,
    s3,
    write_table,
)
from celebvision.storage.local import LocalStore


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else str(request.getfixturevalue("bucket"))


def a_run(run_id: str = "20260101T000000Z-words") -> Run:
    return Run(run_id, "classify", "listing", "", {}, {"name": "cnn", "version": "1", "weights_sha256": ""}, "")


def words(input: str, output: str, **others: Any) -> ClassifySettings:  # noqa: A002 (the setting's own name)
    return ClassifySettings(input=input, output=output, model="cnn", registry="/nowhere", **others)


def fill(uri: str, keys: Sequence[str]) -> dict[str, str]:
    """Put something under each key; gives the etags."""
    return {key: open_store(uri).put(key, key.encode()) for key in keys}


def listed(
    settings: ClassifySettings,
    output: Store,
    run: Run,
    earlier: Sequence[Run] = (),
    on_shard: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Have all of the inventory written; gives its counts, and how many pictures were listed."""
    with Listing(settings, output, run, list(earlier), on_shard=on_shard) as listing:
        listing.wait(math.inf)
    return listing.counts | {"listed": listing.listed}


def inventory(settings: ClassifySettings, earlier: Sequence[Run] = ()) -> tuple[dict[str, int], list[pa.Table]]:
    output, run = open_store(settings.output), a_run()
    said: list[None] = []
    counts = listed(settings, output, run, earlier, lambda: said.append(None))
    assert len(said) == counts["shards"]
    shards = [stat.key for stat in output.list(f"{run.folder}/inventory/")]
    assert shards == [run.shard(number) for number in range(counts["shards"])]
    return counts, [read_table(output, shard) for shard in shards]


def keys_of(shards: list[pa.Table]) -> list[str]:
    return [key for shard in shards for key in shard["key"].to_pylist()]


def test_every_picture_is_listed_once_in_order_in_shards_of_at_most_shard_keys(place: str) -> None:
    photos, output = join(place, "photos"), join(place, "labels")
    names = [f"{number % 3}/{number:02}.jpg" for number in range(23)] + [
        "0.jpg",
        "1.jpg",
        "é.jpg",
        "😀.jpg",
        "\uffee.jpg",
    ]
    etags = fill(photos, names)
    counts, shards = inventory(words(photos, output, shard_keys=5))
    found = keys_of(shards)
    folder = "photos/" if place.startswith("s3://") else ""  # of a bucket the whole key, as its owner knows it
    assert found == sorted(folder + name for name in names)
    assert [len(shard) for shard in shards] == [5, 5, 5, 5, 5, 3]
    assert all(shard.schema == SCHEMA for shard in shards)
    rows = [row for shard in shards for row in shard.to_pylist()]
    assert {row["key"]: row["etag"] for row in rows} == {folder + name: etag for name, etag in etags.items()}
    size = sum(len(name.encode()) for name in names)
    assert counts == {"shards": 6, "keys": 28, "bytes": size, "listed": 28}


def test_keys_are_taken_as_they_are(bucket: str, tmp_path: Path, odd_keys: list[str]) -> None:
    fill(bucket, odd_keys)
    _, shards = inventory(words(bucket, str(tmp_path), suffixes=[]))
    assert keys_of(shards) == sorted(odd_keys)


def test_only_pictures_are_listed_however_their_ending_is_written(place: str) -> None:
    fill(join(place, "photos"), ["a.jpg", "b.JPG", "c.JpEg", "d.txt", "e", "f.jpg.part", "g.png"])
    _, shards = inventory(words(join(place, "photos"), join(place, "labels")))
    assert [key.removeprefix("photos/") for key in keys_of(shards)] == ["a.jpg", "b.JPG", "c.JpEg", "g.png"]


@pytest.mark.parametrize(
    ("photos", "output", "wanted"),
    [
        ("", "labels", ["a.jpg", "in/b.jpg", "labelsmore.jpg", "other/runs/c.jpg"]),
        ("", "", ["a.jpg", "in/b.jpg", "labelsmore.jpg", "other/runs/c.jpg"]),
        ("in", "in", ["in/b.jpg"]),
        ("in", "in/out", ["in/b.jpg"]),
        ("in", "", ["in/b.jpg"]),
    ],
)
def test_what_a_run_wrote_is_no_input_wherever_the_output_lies(
    place: str, photos: str, output: str, wanted: list[str]
) -> None:
    mine = [
        join(output, name).lstrip("/") for name in ("runs/r/run.jpg", "results/run=1/p.jpg", "failures/run=1/p.jpg")
    ]
    fill(place, ["a.jpg", "in/b.jpg", "labelsmore.jpg", "other/runs/c.jpg", *mine])
    _, shards = inventory(words(join(place, photos), join(place, output), suffixes=[".jpg"]))
    whole = place.startswith("s3://") or not photos
    assert keys_of(shards) == [key if whole else key.removeprefix(f"{photos}/") for key in wanted]


def test_what_earlier_runs_answered_is_left_out_unless_it_has_changed(place: str) -> None:
    photos, output = join(place, "photos"), open_store(join(place, "labels"))
    folder = "photos/" if place.startswith("s3://") else ""
    etags = fill(photos, [f"{number:02}.jpg" for number in range(12)])
    now = {folder + name: etag for name, etag in etags.items()}
    first, second, others = (a_run(f"2026010{day}T000000Z-words") for day in (1, 2, 3))
    answer(output, first.results(0), {key: now[key] for key in list(now)[:3]})
    answer(output, first.results(1), {key: now[key] for key in list(now)[3:5]} | {folder + "05.jpg": "older"})
    answer(output, first.failures(0), {folder + "06.jpg": now[folder + "06.jpg"], folder + "gone.jpg": "x"})
    answer(output, second.results(0), {folder + "00.jpg": "newer", folder + "07.jpg": now[folder + "07.jpg"]})
    answer(output, others.results(0), {folder + "11.jpg": now[folder + "11.jpg"]})  # not asked about
    counts, shards = inventory(words(photos, output.uri, shard_keys=2), [first, second])
    assert [key.removeprefix(folder) for key in keys_of(shards)] == [f"{n:02}.jpg" for n in (5, 8, 9, 10, 11)]
    assert counts["listed"] == 12


def answer(output: Store, key: str, rows: dict[str, str]) -> None:
    write_table(output, key, pa.table({"key": list(rows), "etag": list(rows.values()), "label": ["male"] * len(rows)}))


pairs = st.lists(st.tuples(st.text("a/é😀\uffee", max_size=2), st.sampled_from(["1", "2", ""])))


@given(pairs, pairs)
def test_leaving_out_by_one_pass_equals_leaving_out_by_sets(
    listed: list[tuple[str, str]], answered: list[tuple[str, str]]
) -> None:
    stats = [Stat(key, 1, etag, datetime.now(UTC)) for key, etag in sorted(dict(listed).items())]
    keys = {key for key, _ in answered}
    wanted = [stat for stat in stats if (stat.key, stat.etag) not in answered and (stat.etag or stat.key not in keys)]
    assert list(_without(iter(stats), iter(sorted(answered)))) == wanted


def test_retry_does_what_the_newest_run_could_not_answer_as_it_now_stands(place: str) -> None:
    photos, output = join(place, "photos"), open_store(join(place, "labels"))
    folder = "photos/" if place.startswith("s3://") else ""
    etags = fill(photos, [f"{number}.jpg" for number in range(8)])
    now = {folder + name: etag for name, etag in etags.items()}
    first, second = (a_run(f"2026010{day}T000000Z-words") for day in (1, 2))
    rows = {
        number: {folder + f"{number}.jpg": "older" if number == 1 else now[folder + f"{number}.jpg"]}
        for number in range(8)
    }
    answer(output, first.failures(0), rows[0] | rows[1] | rows[2] | rows[3] | {folder + "gone.jpg": "x"})
    answer(output, first.results(0), rows[4] | rows[5])
    answer(output, second.results(0), rows[2])
    answer(output, second.failures(0), rows[3] | rows[5])
    settings = words(photos, output.uri, retry="failures")
    counts, (shard,) = inventory(settings, [first, second])
    assert [key.removeprefix(folder) for key in shard["key"].to_pylist()] == ["0.jpg", "1.jpg", "3.jpg", "5.jpg"]
    assert shard["etag"].to_pylist() == [now[key] for key in shard["key"].to_pylist()]
    assert (counts["keys"], counts["listed"]) == (4, 8)
    assert [stat.key for stat in due(settings, output, [first, second])] == shard["key"].to_pylist()
    assert [stat.key.removeprefix(folder) for stat in due(settings, output, [first])] == [f"{n}.jpg" for n in range(4)]


states = st.dictionaries(st.text("a/é😀\uffee", max_size=2), st.sampled_from(["results", "failures"]))


@given(st.lists(states, max_size=4), st.sets(st.text("a/é😀\uffee", max_size=2)))
def test_retrying_by_one_pass_equals_retrying_by_sets(runs: list[dict[str, str]], listed: set[str]) -> None:
    newest: dict[str, str] = {}
    for run in runs:
        newest |= run
    stats = [Stat(key, 1, "e", datetime.now(UTC)) for key in sorted(listed)]
    wanted = [stat for stat in stats if newest.get(stat.key) == "failures"]
    by_kind = [
        (age, kind, sorted(k for k in run if run[k] == kind))
        for age, run in enumerate(runs)
        for kind in ("results", "failures")
    ]
    rows = [_aged(iter([(key, "e") for key in keys]), age, kind) for age, kind, keys in by_kind]
    assert list(_among(iter(stats), _newest_failures(rows))) == wanted


def test_a_storage_that_refuses_a_shard_ends_the_listing(tmp_path: Path) -> None:
    class Full(LocalStore):
        def put(self, key: str, data: bytes) -> str:
            raise StorageError(f"{key}: disk full")

    output = str(tmp_path / "labels")
    fill(str(tmp_path / "photos"), [f"{number}.jpg" for number in range(20)])
    settings = words(str(tmp_path / "photos"), output, shard_keys=1)
    with pytest.raises(StorageError, match="disk full"):
        listed(settings, Full(output), a_run())


class Endless:
    """Lists `count` keys as S3 does, made as they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def list_objects_v2(self, **words: Any) -> dict[str, Any]:
        after = words.get("ContinuationToken") or words.get("StartAfter") or ""
        start = bisect_right(range(self.count), after, key=self.name)
        end = min(start + words["MaxKeys"], self.count)
        keys = [self.name(number) for number in range(start, end)]
        page = [{"Key": key, "Size": 9, "ETag": f'"{key}"', "LastModified": datetime.now(UTC)} for key in keys]
        return {"Contents": page} | ({"NextContinuationToken": keys[-1]} if end < self.count else {})

    @staticmethod
    def name(number: int) -> str:
        return f"img/{number:08}.jpg"


def peak_bytes(count: int, output: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """What Python holds at most while so many keys are listed and written, without the room for pages ahead."""
    monkeypatch.setattr(s3, "client", lambda: Endless(count))
    tracemalloc.start()
    counts = listed(words("s3://endless", output), open_store(output), a_run())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts["keys"] == count
    return peak


def test_memory_does_not_grow_with_the_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "AHEAD_PAGES", 10)
    few = peak_bytes(50_000, str(tmp_path / "few"), monkeypatch)
    many = peak_bytes(200_000, str(tmp_path / "many"), monkeypatch)
    assert many < 1.5 * few
    assert many < 100 << 20


def test_an_empty_input_gives_an_empty_inventory(place: str) -> None:
    counts, shards = inventory(words(join(place, "photos"), join(place, "labels")))
    assert (counts, shards) == ({"shards": 0, "keys": 0, "bytes": 0, "listed": 0}, [])
