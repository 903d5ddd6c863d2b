"""What is drawn of a key: under which name, beside whom, and what each thing that goes wrong costs."""

import errno
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from labelling import SMALL_STYLE, fill
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from celebvision.batch import draw, fetch
from celebvision.batch.draw import ENDINGS, NAMELESS, Drawing, output_key
from celebvision.batch.fetch import Answer, Failure, Key, Picture, ahead
from celebvision.batch.record import Run
from celebvision.config import PICTURES, StylizeSettings
from celebvision.images import Format, decode_whole, encode
from celebvision.models import create
from celebvision.models.cyclegan import CycleGAN
from celebvision.models.stylizer import Stylizer
from celebvision.storage import Denied, Full, Throttled, Unreachable, open_store
from celebvision.styling import Fed

FORMS: list[Format] = ["jpeg", "png", "webp"]


# ---- names ----


@pytest.mark.parametrize(
    ("key", "form", "name"),
    [
        ("a.jpg", "jpeg", "a.jpg"),
        ("a.JPEG", "jpeg", "a.JPEG"),
        ("a.png", "jpeg", "a.png.jpg"),
        ("a.png.jpg", "jpeg", "a.png.jpg.jpg"),
        ("a", "jpeg", "a.image.jpg"),
        ("a.image.jpg", "jpeg", "a.image.jpg.jpg"),
        ("a.heic", "jpeg", "a.heic.image.jpg"),
        ("folder/", "jpeg", "folder/.image.jpg"),
        ("a.jpg", "png", "a.jpg.png"),
        ("a.PNG", "png", "a.PNG"),
        ("a.webp", "webp", "a.webp"),
        ("shard.parquet#000000007/000008.jpg", "jpeg", "shard.parquet#000000007/000008.jpg"),
    ],
)
def test_a_picture_is_named_by_its_key(key: str, form: Format, name: str) -> None:
    assert output_key(key, form) == name


PIECES = [*PICTURES, NAMELESS, "a", "/", ".", ".JPG", ".Jpeg", ".PNG", ".IMAGE", ".Webp"]
KEYS = st.one_of(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join), st.text(min_size=1))


@given(st.lists(KEYS, min_size=2, max_size=30, unique=True), st.sampled_from(FORMS))
@example(["a", "a.image.jpg", "a.image.jpg.jpg", "a.jpg", "a.png", "a.png.jpg", "a.jpg.jpg"], "jpeg")
def test_no_two_keys_share_a_name_and_every_name_says_what_it_is(keys: list[str], form: Format) -> None:
    names = [output_key(key, form) for key in keys]
    assert len(set(names)) == len(keys)
    assert all(name.startswith(key) for key, name in zip(keys, names, strict=True))
    assert all(name.lower().endswith(ENDINGS[form]) for name in names)


# ---- drawing ----


@pytest.fixture
def settings(tmp_path: Path) -> StylizeSettings:
    places = {name: str(tmp_path / name) for name in ("input", "output", "registry")}
    return StylizeSettings(**places, model="sketch", batch_size=3)


@pytest.fixture
def drawing(settings: StylizeSettings) -> Drawing:
    torch.manual_seed(1)
    return drawing_of(settings)


def drawing_of(settings: StylizeSettings) -> Drawing:
    network = create("cyclegan", **SMALL_STYLE)
    return Drawing(settings, Run("run", "stylize", "running", "", {}, {}, ""), Fed(Stylizer(cast(CycleGAN, network))))


def picture(seed: int, height: int = 20, width: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    return encode(pixels, "png")


def listed(settings: StylizeSettings) -> list[Key]:
    return [Key.of(stat) for stat in open_store(settings.input).list()]


def answers(drawing: Drawing, keys: list[Key]) -> list[Answer]:
    return [answer for chunk in drawing.answers(keys, drawing.pictures(keys), in_silence) for answer in chunk]


def stylizer(drawing: Drawing) -> Stylizer:
    return cast(Fed, drawing.redraws).stylizer


def in_silence(words: str, done: float) -> None: ...


def seen(drawing: Drawing, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what the network is given from now on."""
    shapes: list[tuple[int, ...]] = []
    honest = stylizer(drawing).draw

    def tell(pictures: Tensor) -> Tensor:
        shapes.append(tuple(pictures.shape[:3]))
        return honest(pictures)

    monkeypatch.setattr(stylizer(drawing), "draw", tell)
    return shapes


def test_what_is_written_is_what_the_network_draws(drawing: Drawing, settings: StylizeSettings) -> None:
    fill(settings.input, {"a.png": png(picture(1))})
    (answer,) = answers(drawing, listed(settings))
    assert isinstance(answer, dict)
    data = open_store(settings.output).get("images/a.png.jpg")
    assert (answer["output_key"], answer["width"], answer["height"]) == ("a.png.jpg", 16, 20)
    assert answer["bytes"] == len(data)
    assert answer["ms"] > 0
    torch.manual_seed(1)
    (drawn,) = Stylizer(create("cyclegan", **SMALL_STYLE), "cpu").draw(torch.from_numpy(picture(1)[None]))  # type: ignore[arg-type]
    assert data == encode(drawn.numpy(), "jpeg", 90)


def test_pictures_of_one_size_among_a_few_keys_are_drawn_together(
    drawing: Drawing, settings: StylizeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(20, 16), (30, 30), (20, 16)] + [(20, 16)] * 3 + [(8, 8)]
    fill(settings.input, {f"{at}.png": png(picture(at, *size)) for at, size in enumerate(sizes)})
    shapes = seen(drawing, monkeypatch)
    assert len(answers(drawing, listed(settings))) == 7
    assert shapes == [(2, 20, 16), (1, 30, 30), (3, 20, 16), (1, 8, 8)]


def test_large_pictures_are_drawn_by_fewer(
    drawing: Drawing, settings: StylizeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draw, "BATCH_VALUES", 2 * 3 * 16 * 20)
    sizes = [(20, 16)] * 3 + [(40, 40)] * 2 + [(20, 16)]
    fill(settings.input, {f"{at}.png": png(picture(at, *size)) for at, size in enumerate(sizes)})
    shapes = seen(drawing, monkeypatch)
    answers(drawing, listed(settings))
    assert shapes == [(2, 20, 16), (1, 20, 16), (1, 40, 40), (1, 40, 40), (1, 20, 16)]


def test_a_shard_begun_again_behind_whole_batches_leaves_the_same_bytes(
    drawing: Drawing, settings: StylizeSettings
) -> None:
    fill(settings.input, {f"{at}.png": png(picture(at)) for at in range(8)})
    output = open_store(settings.output)
    answers(drawing, listed(settings))
    first = {stat.key: output.get(stat.key) for stat in output.list()}
    for key in first:
        output.delete(key)
    answers(drawing, listed(settings)[3:])
    again = {stat.key: output.get(stat.key) for stat in output.list()}
    assert len(again) == 5
    assert again.items() <= first.items()


# ---- what goes wrong ----


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("too much"), RuntimeError("can't allocate"), MemoryError()])
def test_a_picture_that_the_network_fails_for_costs_no_other(
    drawing: Drawing, settings: StylizeSettings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fill(
        settings.input, {"0.png": png(picture(0)), "1.png": png(picture(1)), "2.png": b"bad", "3.png": png(picture(3))}
    )
    honest, cursed = stylizer(drawing).draw, picture(1)

    def fail(pictures: Tensor) -> Tensor:
        if any(np.array_equal(one, cursed) for one in pictures.numpy()):
            raise error
        return honest(pictures)

    monkeypatch.setattr(stylizer(drawing), "draw", fail)
    first, second, third, last = answers(drawing, listed(settings))
    assert isinstance(first, dict)
    assert second == Failure("infer", type(error).__name__, str(error))
    assert isinstance(third, Failure)
    assert third.stage == "decode"
    assert isinstance(last, dict)


def test_a_lost_device_is_no_pictures_fault(
    drawing: Drawing, settings: StylizeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings.input, {"0.png": png(picture(0))})

    def lost(pictures: Tensor) -> Tensor:
        raise torch.AcceleratorError("illegal memory access")

    monkeypatch.setattr(stylizer(drawing), "draw", lost)
    with pytest.raises(torch.AcceleratorError):
        answers(drawing, listed(settings))


@pytest.mark.parametrize("kind", [Unreachable, Throttled, Full])
def test_storage_that_takes_nothing_is_no_pictures_fault(
    drawing: Drawing, settings: StylizeSettings, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    fill(settings.input, {f"{at}.png": png(picture(at)) for at in range(9)})
    asked = []

    def down(key: str, data: bytes) -> str:
        asked.append(key)
        raise kind(f"{key}: the reason")

    monkeypatch.setattr(drawing, "put", down)
    with pytest.raises(kind, match="the reason"):
        answers(drawing, listed(settings))
    assert len(asked) < 9, "it goes on as if nothing were"


def test_a_full_disk_is_told_from_a_bad_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Full, match="No space left on device"):
        open_store(str(tmp_path)).put("a.jpg", b"x")


def test_a_name_that_storage_refuses_is_that_pictures_failure(
    drawing: Drawing, settings: StylizeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings.input, {"good.png": png(picture(0))})
    keys = [Key(key, 0, "") for key in ("../up.png", "a//b.png", "good.png", "k" * 300 + ".png")]
    monkeypatch.setattr(drawing, "pictures", lambda keys: iter([picture(at) for at in range(len(keys))]))
    outcomes = dict(zip((key.key for key in keys), answers(drawing, keys), strict=True))
    assert {key[:9] for key, outcome in outcomes.items() if isinstance(outcome, dict)} == {"good.png"}
    assert {outcome.stage for outcome in outcomes.values() if isinstance(outcome, Failure)} == {"write"}
    assert [stat.key for stat in open_store(settings.output).list()] == ["images/good.png.jpg"]


def test_access_refused_to_a_name_is_a_failure(
    drawing: Drawing, settings: StylizeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings.input, {"0.png": png(picture(0))})

    def refuse(key: str, data: bytes) -> str:
        raise Denied(f"{key}: access is refused")

    monkeypatch.setattr(drawing, "put", refuse)
    assert answers(drawing, listed(settings)) == [Failure("write", "Denied", "images/0.png.jpg: access is refused")]


def test_a_picture_that_its_format_cannot_hold_is_a_failure(tmp_path: Path, settings: StylizeSettings) -> None:
    webp = settings.model_copy(update={"format": "webp"})
    drawing = drawing_of(webp)
    fill(settings.input, {"long.png": png(np.zeros((1, 16_384, 3), np.uint8))})
    (failure,) = answers(drawing, listed(settings))
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.error) == ("write", "ValueError")


# ---- ahead ----


def test_pictures_are_decoded_ahead_and_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    made = threading.Semaphore(0)
    count = 0

    def pictures() -> Iterator[Picture]:
        nonlocal count
        for at in range(20):
            count += 1
            made.release()
            yield picture(at)

    for most_bytes, held in ((fetch.AHEAD_BYTES, 4), (2 * picture(0).nbytes, 2)):
        monkeypatch.setattr(fetch, "AHEAD_BYTES", most_bytes)
        count = 0
        stream: Any = ahead(pictures(), 4)  # type: ignore[arg-type]
        np.testing.assert_array_equal(next(stream), picture(0))
        for _ in range(held + 2):  # the one taken, those that wait, and one that finds no room
            assert made.acquire(timeout=30)
        assert not made.acquire(timeout=0.1)
        assert count == held + 2
        stream.close()
        assert count == held + 2


def test_pictures_decoded_ahead_come_in_order_and_what_fails_is_raised() -> None:
    def pictures() -> Iterator[Picture]:
        for at in range(5):
            yield picture(at)
        raise ZeroDivisionError

    stream = ahead(pictures(), 2)  # type: ignore[arg-type]
    for at in range(5):
        np.testing.assert_array_equal(next(stream), picture(at))
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_what_is_drawn_of_a_turned_picture_is_upright_and_of_the_size(
    tmp_path: Path, settings: StylizeSettings
) -> None:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(picture(0, 20, 40)).save(stream, "PNG", exif=exif)
    fill(settings.input, {"turned.png": stream.getvalue()})
    for size, sides in ((None, (40, 20)), (30, (60, 30))):
        drawing = drawing_of(settings.model_copy(update={"size": size}))
        (answer,) = answers(drawing, listed(settings))
        assert isinstance(answer, dict)
        assert (answer["height"], answer["width"]) == sides
        assert decode_whole(open_store(settings.output).get("images/turned.png.jpg")).shape[:2] == sides
