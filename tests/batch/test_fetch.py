"""From keys to pixels: whatever is wrong with one picture stays with that picture."""

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from celebvision import images
from celebvision.batch.fetch import AHEAD, Failure, Fetcher, Key
from celebvision.storage import Denied, NotFound, Store, Throttled, Unreachable, open_store
from celebvision.storage.local import LocalStore

HEIGHT, WIDTH, MAX_PIXELS, MAX_BYTES = 20, 16, 10_000, 20_000


def picture(kind: str = "JPEG", size: tuple[int, int] = (40, 50), colour: int = 100, **words: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour, 0, 0)).save(buffer, kind, **words)
    return buffer.getvalue()


def fetcher(store: Store, threads: int = 3) -> Fetcher:
    return Fetcher(store, HEIGHT, WIDTH, MAX_PIXELS, MAX_BYTES, threads)


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


def test_what_nobody_wants_any_more_is_not_fetched(tmp_path: Path) -> None:
    class Waiting(Counting):
        def get(self, key: str) -> bytes:
            data = super().get(key)
            if int(key) > 0:
                may_go_on.wait(10)
            return data

    may_go_on, store = threading.Event(), Waiting(str(tmp_path))
    pixels = fetcher(store, threads=1).pixels(numbered(50))
    next(pixels)
    threading.Timer(0.2, may_go_on.set).start()
    pixels.close()
    assert len(store.asked) <= 2


def test_too_large_an_object_is_never_fetched(tmp_path: Path) -> None:
    store = Counting(str(tmp_path))
    (failure,) = fetcher(store).pixels([Key("0", MAX_BYTES + 1, "e")])
    assert isinstance(failure, Failure)
    assert store.asked == []
