"""From keys to pixels: whatever is wrong with one picture stays with that picture."""

import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from celebvision import images
from celebvision.batch import fetch
from celebvision.batch.fetch import AHEAD, TOGETHER, Failure, Fetcher, Key
from celebvision.storage import Denied, NotFound, Store, Throttled, Unreachable, open_store
from celebvision.storage.local import LocalStore

HEIGHT, WIDTH, MAX_PIXELS, MAX_BYTES = 20, 16, 10_000, 20_000


def picture(kind: str = "JPEG", size: tuple[int, int] = (40, 50), colour: int = 100, **words: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour, 0, 0)).save(buffer, kind, **words)
    return buffer.getvalue()


def fetcher(store: Store, threads: int = 3) -> Fetcher:
    return Fetcher(store, lambda data: images.decode(data, HEIGHT, WIDTH, MAX_PIXELS), MAX_BYTES, threads)


def keys_of(store: Store) -> list[Key]:
    return [Key(stat.key, stat.size, stat.etag) for stat in store.list()]


def red(outcome: NDArray[np.uint8] | Failure) -> int:
    assert not isinstance(outcome, Failure), outcome
    assert outcome.shape == (HEIGHT, WIDTH, 3)
    return int(outcome[..., 0].mean().round())


BAD = {
    "corrupt.jpg": (picture()[:300] + b"\xff" * 600, "decode", ""),
    "empty.jpg": (b"", "decode", "empty"),
    "many bytes.jpg": (b"x" * (MAX_BYTES + 1), "fetch", "20001 bytes; at most 20000"),
    "many pixels.png": (picture("PNG", (101, 100)), "decode", "too large: 101×100"),
    "text.jpg": (b"This was never a picture.", "decode", "of no known format"),
    "truncated.jpg": (picture(size=(99, 99))[:-40], "decode", "not a whole JPEG"),
}


def test_each_bad_picture_is_one_failure_with_stage_and_reason_and_its_neighbours_are_well(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for name, (data, _, _) in BAD.items():
        store.put(name, data)
        store.put(f"{name} and then.jpg", picture())
    keys = keys_of(store)
    outcomes = dict(zip((key.key for key in keys), fetcher(store).pixels(keys), strict=True))
    for name, (_, stage, message) in BAD.items():
        failure = outcomes[name]
        assert isinstance(failure, Failure)
        assert failure.stage == stage
        assert failure.message.startswith(message)
        assert len(failure.message) > 10
        assert red(outcomes[f"{name} and then.jpg"]) == 100


@pytest.mark.parametrize("name", ["named.jpg", "without ending", "a%b#c?.gif"])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_a_mislabelled_picture_is_shown_for_what_it_is(tmp_path: Path, name: str, kind: str) -> None:
    store = open_store(str(tmp_path))
    store.put(name, picture(kind))
    assert [red(outcome) for outcome in fetcher(store).pixels(keys_of(store))] == [100]


def test_a_picture_with_broken_exif_costs_nobody_else(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("1.png", picture("PNG", exif=b"Exif\0\0garbage and more"))
    store.put("2.png", picture("PNG"))
    _, neighbour = fetcher(store).pixels(keys_of(store))
    assert red(neighbour) == 100


def test_whatever_a_decoder_is_driven_to_is_the_failure_of_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(data: bytes, height: int, width: int, max_pixels: int) -> NDArray[np.uint8]:
        if data == b"cursed":
            raise ZeroDivisionError("float division by zero")
        return honest(data, height, width, max_pixels)

    honest = images.decode
    monkeypatch.setattr(images, "decode", decode)
    store = open_store(str(tmp_path))
    store.put("1.jpg", b"cursed")
    store.put("2.jpg", picture())
    first, second = fetcher(store).pixels(keys_of(store))
    assert first == Failure("decode", "ZeroDivisionError", "float division by zero")
    assert red(second) == 100


@pytest.mark.parametrize("kind", [NotFound, Denied, Throttled, Unreachable])
def test_what_storage_does_not_give_is_a_failure_of_the_fetch(tmp_path: Path, kind: type[Exception]) -> None:
    class Refusing(LocalStore):
        def get(self, key: str) -> bytes:
            raise kind(f"{key}: the reason")

    (failure,) = fetcher(Refusing(str(tmp_path))).pixels([Key("a.jpg", 9, "e")])
    assert failure == Failure("fetch", kind.__name__, "a.jpg: the reason")


def test_what_was_deleted_since_the_listing_or_cannot_be_a_file_is_a_failure(tmp_path: Path) -> None:
    gone, outside = fetcher(open_store(str(tmp_path))).pixels([Key("gone.jpg", 9, "e"), Key("../up.jpg", 9, "e")])
    assert isinstance(gone, Failure)
    assert (gone.stage, gone.error) == ("fetch", "NotFound")
    assert isinstance(outside, Failure)
    assert outside.stage == "fetch"


class Counting(LocalStore):
    """Any key is a picture as red as its name says; counts what was asked for."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def get(self, key: str) -> bytes:
        with self.lock:
            self.asked.append(key)
        return picture("PNG", colour=int(key))


def numbered(count: int) -> list[Key]:
    return [Key(str(number), 9, "e") for number in range(count)]


def test_pictures_come_in_the_order_of_their_keys(tmp_path: Path) -> None:
    outcomes = fetcher(Counting(str(tmp_path))).pixels(numbered(100))
    assert [red(outcome) for outcome in outcomes] == list(range(100))


def test_few_pictures_are_held_however_slowly_they_are_taken(tmp_path: Path) -> None:
    store, threads = Counting(str(tmp_path)), 3
    for taken, _ in enumerate(fetcher(store, threads).pixels(numbered(100)), start=1):
        assert len(store.asked) <= taken - 1 + AHEAD * threads
    assert sorted(store.asked, key=int) == [key.key for key in numbered(100)]


def test_few_bytes_are_held_however_large_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "AHEAD_BYTES", 5 * 9)
    store = Counting(str(tmp_path))
    for taken, _ in enumerate(fetcher(store, threads=4).pixels(numbered(100)), start=1):
        assert len(store.asked) <= taken + 5
    assert len(store.asked) == 100


def test_large_pictures_are_not_given_to_one_thread_several_at_a_time(tmp_path: Path) -> None:
    class Meeting(Counting):
        def get(self, key: str) -> bytes:
            if int(key) < threads:
                all_here.wait(10)
            return super().get(key)

    threads = 3
    all_here, store = threading.Barrier(threads), Meeting(str(tmp_path))
    large = [replace(key, size=fetch.TOGETHER_BYTES) for key in numbered(threads * AHEAD * TOGETHER)]
    pictures = replace(fetcher(store, threads), max_bytes=fetch.TOGETHER_BYTES).pixels(large)
    assert [red(outcome) for outcome in pictures] == list(range(len(large)))


def test_what_nobody_wants_any_more_is_not_fetched(tmp_path: Path) -> None:
    class Waiting(Counting):
        def get(self, key: str) -> bytes:
            data = super().get(key)
            if int(key) >= TOGETHER:
                may_go_on.wait(10)
            return data

    may_go_on, store = threading.Event(), Waiting(str(tmp_path))
    pixels = fetcher(store, threads=1).pixels(numbered(50))
    next(pixels)
    threading.Timer(0.2, may_go_on.set).start()
    pixels.close()
    assert len(store.asked) <= TOGETHER + 1


def test_too_large_an_object_is_never_fetched(tmp_path: Path) -> None:
    store = Counting(str(tmp_path))
    (failure,) = fetcher(store).pixels([Key("0", MAX_BYTES + 1, "e")])
    assert isinstance(failure, Failure)
    assert store.asked == []


def test_of_an_object_of_unknown_size_no_more_is_read_than_shows_that_it_is_too_large(tmp_path: Path) -> None:
    read: list[int] = []

    class Ranges(LocalStore):
        def get_range(self, key: str, start: int, length: int) -> bytes:
            data = super().get_range(key, start, length)
            read.append(len(data))
            return data

    store = Ranges(str(tmp_path))
    store.put("film.jpg", b"x" * (5 * MAX_BYTES))
    store.put("red.jpg", picture())
    failure, good = fetcher(store).pixels([Key("film.jpg", 0, ""), Key("red.jpg", 0, "")])
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.error) == ("fetch", "TooManyBytes")
    assert max(read) == MAX_BYTES + 1
    assert red(good) == 100


# ---- rows of Parquet files ----


def shard(store: Store, name: str, images: list[bytes | None], group: int = 10) -> list[Key]:
    stream = io.BytesIO()
    ids = [f"{number}#/x" for number in range(len(images))]
    pq.write_table(pa.table({"image_id": ids, "image": pa.array(images, pa.binary())}), stream, row_group_size=group)
    etag = store.put(name, stream.getvalue())
    return [Key(f"{name}#{row:09}/{image_id}", 0, etag, name, row) for row, image_id in enumerate(ids)]


def reds(count: int) -> list[bytes | None]:
    return [picture("PNG", colour=number) for number in range(count)]


class CountingRanges(LocalStore):
    """Counts how often a file is opened, and what lies in memory of it."""

    opened = 0

    def open(self, key: str) -> BinaryIO:
        self.opened += 1
        return super().open(key)


def test_pictures_of_shards_come_in_the_order_asked_for_among_others(tmp_path: Path) -> None:
    store = CountingRanges(str(tmp_path))
    one, two = shard(store, "a#1.parquet", reds(40)), shard(store, "b.parquet", reds(40))
    store.put("ab.png", picture("PNG", colour=99))
    keys = [one[3], one[17], *one[30:], Key("ab.png", 9, "e"), two[0], two[39]]
    outcomes = [red(outcome) for outcome in fetcher(store).pixels(keys)]
    assert outcomes == [3, 17, *range(30, 40), 99, 0, 39]
    assert store.opened == 2


def test_a_row_group_is_read_once_and_only_where_a_row_of_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    keys = shard(store, "a.parquet", reds(40))
    groups: list[int] = []
    read = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, n, columns: groups.append(n) or read(self, n, columns)
    )
    assert len(list(fetcher(store).pixels([*keys[5:12], *keys[35:]]))) == 12
    assert groups == [0, 1, 3]


def test_bad_pictures_of_a_shard_are_failures_of_their_own(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    keys = shard(store, "a.parquet", [picture(), None, b"text", b"x" * (MAX_BYTES + 1), picture()])
    first, null, text, large, last = fetcher(store).pixels(keys)
    assert red(first) == red(last) == 100
    assert [(f.stage, f.error) for f in (null, text, large) if isinstance(f, Failure)] == [
        ("decode", "UndecodableImage"),
        ("decode", "UndecodableImage"),
        ("fetch", "TooManyBytes"),
    ]


def test_a_shard_that_cannot_be_read_costs_its_own_pictures_alone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    gone, broken, changed, well = (shard(store, f"{n}.parquet", reds(12)) for n in range(4))
    store.delete("0.parquet")
    store.put("1.parquet", b"PAR1 no more")
    shard(store, "2.parquet", reds(5))
    broken = [replace(key, etag="") for key in broken]
    keys = [*gone, *broken, *changed, *well, replace(well[0], row=77)]
    outcomes = list(fetcher(store).pixels(keys))
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert len(failures) == 37
    assert [failures[at].error for at in (0, 12, 24, 36)] == ["NotFound", "ArrowInvalid", "StorageError", "NotFound"]
    assert {failure.stage for failure in failures} == {"fetch"}
    assert [red(outcome) for outcome in outcomes[36:48]] == list(range(12))


def test_an_error_of_storage_keeps_its_name_on_the_way_through_arrow(tmp_path: Path) -> None:
    class Slow(LocalStore):
        def open(self, key: str) -> BinaryIO:
            class Raw(io.FileIO):
                def read(self, size: int | None = -1) -> Any:
                    raise Throttled(f"{key}: slower")

            return io.BufferedReader(Raw(tmp_path / key))

    keys = shard(LocalStore(str(tmp_path)), "a.parquet", reds(3))
    for outcome in fetcher(Slow(str(tmp_path))).pixels(keys):
        assert isinstance(outcome, Failure)
        assert outcome == Failure("fetch", "Throttled", "a.parquet: slower")
