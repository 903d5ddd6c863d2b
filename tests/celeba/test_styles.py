"""What style pictures promise a training: crops within their bounds, the same for a seed, and bounded memory."""

import io
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from celebvision.celeba.ingest import ingest
from celebvision.celeba.shards import DataSet, Shard
from celebvision.celeba.styles import StylePictures
from celebvision.config import IngestSettings
from celebvision.job import JobFailed
from celebvision.storage import Store, join, open_store

PATHS = ("split=train/part-00000.parquet", "split=train/part-00001.parquet")
COUNT, GROUP = 20, 4  # pictures, and rows of a row group
PICTURE_BYTES = 40 * 60 * 3


def png(pixels: NDArray[Any], **words: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG", **words)
    return stream.getvalue()


def plain(number: int) -> bytes:
    """A picture of one colour, whose red is ten times its number."""
    return png(np.full((40, 60, 3), (10 * number, 0, 255)))


def ramp(height: int, width: int) -> NDArray[Any]:
    """Red counts the columns and green the rows, so that a crop tells where it was cut."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, 0 * rows], axis=2)


def write_set(store: Store, pictures: list[bytes], positives: dict[str, int] | None = None) -> str:
    """Style shards as ingest lays them out, in two files and without its shuffling."""
    half = -(-len(pictures) // 2)
    shards = []
    for path, first in zip(PATHS, (0, half), strict=True):
        images = pictures[first : first + half]
        columns = {
            "image_id": pa.array([f"{first + at:03}.png" for at in range(len(images))], pa.string()),
            "image": pa.array(images, pa.binary()),
        }
        stream = io.BytesIO()
        pq.write_table(pa.table(columns), stream, row_group_size=GROUP)
        store.put(path, stream.getvalue())
        shards.append(Shard(path, "train", len(images), -(-len(images) // GROUP), 0, "0" * 64, positives or {}))
    store.put("dataset.json", json.dumps(DataSet("there", 0, tuple(shards)).to_json()).encode())
    return store.uri


@pytest.fixture(scope="module")
def plain_set(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_set(open_store(str(tmp_path_factory.mktemp("plain"))), [plain(number) for number in range(COUNT)])


@pytest.fixture(scope="module")
def ramp_set(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One wide and one tall picture."""
    pictures = [png(ramp(100, 200)), png(ramp(200, 100))]
    return write_set(open_store(str(tmp_path_factory.mktemp("ramp"))), pictures)


def loaded(uri: str, size: int = 32, crop: tuple[float, float] = (0.5, 1.0), seed: int = 0, **words: Any) -> Any:
    pictures = StylePictures(uri, size, crop, **words)
    pictures.load(seed)
    return pictures


def numbers(crops: NDArray[np.uint8]) -> list[int]:
    """Which of the plain pictures each crop is of."""
    assert (crops == crops[:, :1, :1]).all()
    return [int(red) // 10 for red in crops[:, 0, 0, 0]]


# --- draw


def test_a_crop_is_pixels_of_the_size_asked_for(plain_set: str) -> None:
    crops = loaded(plain_set).draw(7, np.random.default_rng(0))
    assert (crops.shape, crops.dtype) == ((7, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("new", [np.random.default_rng, lambda seed: torch.Generator().manual_seed(seed)])
def test_the_generator_decides_and_nothing_else(ramp_set: str, new: Any) -> None:
    pictures, others = loaded(ramp_set), loaded(ramp_set, seed=9)
    first = pictures.draw(8, new(3))
    np.testing.assert_array_equal(first, others.draw(8, new(3)))
    assert (first != pictures.draw(8, new(4))).any()
    generator = new(3)
    np.testing.assert_array_equal(first, pictures.draw(8, generator))
    assert (first != pictures.draw(8, generator)).any()


def test_every_picture_is_drawn_about_as_often(plain_set: str) -> None:
    drawn = Counter(numbers(loaded(plain_set, size=8).draw(4000, np.random.default_rng(0))))
    assert set(drawn) == set(range(COUNT))
    assert min(drawn.values()) > 140
    assert max(drawn.values()) < 260


def test_crops_keep_within_the_shares_and_reach_every_corner(ramp_set: str) -> None:
    least, largest = 0.4, 0.6  # 32 pixels of 80, to which the pictures are shrunk, are 40 of 100
    crops = loaded(ramp_set, crop=(least, largest)).draw(600, np.random.default_rng(0)).astype(float)
    left, right, top, bottom = crops[:, 16, 0, 0], crops[:, 16, -1, 0], crops[:, 0, 16, 1], crops[:, -1, 16, 1]
    sides = bottom - top + (bottom - top) / 31  # from the first row's middle to the last one's, and half a row more
    assert np.abs(np.abs(right - left) - (bottom - top)).max() < 4  # they are square
    assert 0.37 < sides.min() / 100 < 0.43
    assert 0.57 < sides.max() / 100 < 0.63
    assert 0.47 < sides.mean() / 100 < 0.53
    mirrored = right < left
    assert 0.4 < mirrored.mean() < 0.6
    left, right = np.minimum(left, right), np.maximum(left, right)
    wide, tall = right > 102, bottom > 102
    assert wide.any()
    assert tall.any()
    assert not (wide & tall).any()
    for first, last in ((left, right), (top, bottom)):
        assert first.min() < 4
        assert last.max() > 194


def test_a_picture_keeps_its_shape_and_is_shrunk_to_what_the_smallest_crop_needs(ramp_set: str) -> None:
    shapes = [picture.shape for picture in loaded(ramp_set, size=16, crop=(0.3, 1.0)).pictures]
    assert shapes == [(54, 108, 3), (108, 54, 3)]  # 16 / 0.3, rounded up


def test_small_pictures_are_enlarged_only_when_they_are_cropped(plain_set: str) -> None:
    pictures = loaded(plain_set, size=64)
    assert {picture.shape for picture in pictures.pictures} == {(40, 60, 3)}
    assert pictures.draw(1, np.random.default_rng(0)).shape == (1, 64, 64, 3)


def test_a_photo_of_a_painting_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    uri = write_set(open_store(str(tmp_path)), [png(ramp(100, 200), exif=exif), png(ramp(100, 200))])
    assert [picture.shape for picture in loaded(uri, size=50).pictures] == [(200, 100, 3), (100, 200, 3)]


@pytest.mark.parametrize("crop", [(0.0, 1.0), (0.9, 0.8), (0.5, 1.1)])
def test_impossible_crops_are_refused(crop: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="crop is "):
        StylePictures("anywhere", 32, crop)


def test_drawing_before_loading_is_refused(plain_set: str) -> None:
    with pytest.raises(ValueError, match="call load first"):
        StylePictures(plain_set, 32, (0.5, 1.0)).draw(1, np.random.default_rng(0))


# --- fixed


def test_fixed_crops_of_nearly_whole_pictures_are_their_centres_in_order(plain_set: str, ramp_set: str) -> None:
    pictures = StylePictures(plain_set, 20, (0.9, 1.0))
    assert numbers(pictures.fixed(6)) == list(range(6))
    assert numbers(pictures.fixed(100)) == list(range(COUNT))
    wide, tall = StylePictures(ramp_set, 100, (0.9, 1.0)).fixed(2).astype(int)
    assert np.abs(wide - ramp(100, 200)[:, 50:150]).max() < 3
    assert np.abs(tall - ramp(200, 100)[50:150]).max() < 3


def test_fixed_crops_of_parts_go_round_until_there_are_enough(ramp_set: str) -> None:
    crops = StylePictures(ramp_set, 16, (0.2, 0.6)).fixed(6).astype(int)
    assert len(crops) == 6
    assert len({crop.tobytes() for crop in crops}) == 6
    assert (crops[:, 8, 0, 0] < crops[:, 8, -1, 0]).all()  # never mirrored
    assert (crops[1::2, :, :, 0] < 104).all()  # every second one is of the tall picture, which is 100 wide


@pytest.mark.parametrize("crop", [(0.9, 1.0), (0.3, 0.6)])
def test_fixed_crops_hang_on_nothing_that_is_loaded_or_drawn(plain_set: str, crop: tuple[float, float]) -> None:
    wanted = StylePictures(plain_set, 16, crop).fixed(8)
    for seed in (1, 2):
        pictures = loaded(plain_set, 16, crop, seed, most_bytes=1)
        pictures.draw(3, np.random.default_rng(seed))
        np.testing.assert_array_equal(pictures.fixed(8), wanted)


def test_no_fixed_crops_are_none(plain_set: str) -> None:
    assert StylePictures(plain_set, 16, (0.9, 1.0)).fixed(0).shape == (0, 16, 16, 3)


# --- memory


def test_a_set_that_fits_is_read_once(plain_set: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = loaded(plain_set, most_bytes=COUNT * PICTURE_BYTES)
    assert len(pictures.pictures) == COUNT
    monkeypatch.setattr(StylePictures, "_read", None)
    pictures.load(1)


def test_the_seed_changes_nothing_of_a_set_that_fits(plain_set: str) -> None:
    first, other = (loaded(plain_set, seed=seed).draw(20, np.random.default_rng(0)) for seed in (1, 2))
    np.testing.assert_array_equal(first, other)


def test_of_a_larger_set_no_more_than_the_bound_is_held_and_all_are_seen_in_time(plain_set: str) -> None:
    pictures = StylePictures(plain_set, 36, (0.9, 1.0), most_bytes=3 * PICTURE_BYTES)
    seen = Counter[int]()
    for seed in range(60):
        pictures.load(seed)
        assert sum(picture.nbytes for picture in pictures.pictures) == 3 * PICTURE_BYTES
        seen.update(int(picture[0, 0, 0]) // 10 for picture in pictures.pictures)
    assert set(seen) == set(range(COUNT))
    assert max(seen.values()) < 30  # of 180 that were held, 9 each in the mean


def test_the_seed_decides_which_part_is_held(plain_set: str) -> None:
    parts = [loaded(plain_set, seed=seed, most_bytes=5 * PICTURE_BYTES) for seed in (4, 4, 5)]
    same, again, other = (part.draw(9, np.random.default_rng(0)) for part in parts)
    np.testing.assert_array_equal(same, again)
    assert (same != other).any()


def test_one_picture_is_held_however_large(plain_set: str) -> None:
    pictures = loaded(plain_set, most_bytes=1)
    assert len(pictures.pictures) == 1
    assert len(set(numbers(pictures.draw(5, np.random.default_rng(0))))) == 1


# --- what goes wrong


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    uri = write_set(open_store(str(tmp_path)), [plain(0), plain(1)[:-30]])
    told = rf"{tmp_path}: 001\.png in split=train/part-00001\.parquet cannot be decoded: .*; run ingest again"
    with pytest.raises(JobFailed, match=told):
        loaded(uri)


def test_what_is_no_style_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"holds no dataset\.json"):
        loaded(str(tmp_path))
    with pytest.raises(JobFailed, match="holds labelled faces and no style"):
        loaded(write_set(open_store(str(tmp_path / "celeba")), [plain(0), plain(1)], {"Male": 1}))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "dataset.json").write_text(json.dumps(DataSet("there", 0, ()).to_json()))
    with pytest.raises(JobFailed, match="holds no pictures"):
        loaded(str(tmp_path / "empty"))


# --- from a bucket, and real pictures


@pytest.mark.usefixtures("ray_cluster")
def test_what_ingest_wrote_to_a_bucket_is_read(bucket: str) -> None:
    source = open_store(join(bucket, "style"))
    for number in range(COUNT):
        source.put(f"{number % 3}/{number}.png", plain(number))
    ingest(IngestSettings(style_folder=source.uri, output=join(bucket, "shards")))
    pictures = loaded(join(bucket, "shards"))
    assert sorted(int(picture[0, 0, 0]) // 10 for picture in pictures.pictures) == list(range(COUNT))
    assert sorted(numbers(StylePictures(join(bucket, "shards"), 8, (0.9, 1.0)).fixed(COUNT))) == list(range(COUNT))


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("style", "count", "crop"),
    [("sketch", 88, (0.9, 1.0)), ("painting", 500, (0.9, 1.0)), ("vangogh", 6, (0.2, 0.6))],
)
def test_real_style_sets_start_fast(
    test_data: Path, tmp_path: Path, style: str, count: int, crop: tuple[float, float]
) -> None:
    folder = test_data / "data" / "styles" / style
    outcome = ingest(IngestSettings(style_folder=str(folder), output=str(tmp_path)))
    assert (outcome.summary["train"], outcome.failures) == (count, 0)
    began = time.perf_counter()
    pictures = loaded(str(tmp_path), 256, crop)
    assert time.perf_counter() - began < 10  # 1 s for 500; here for what would spoil the start of a training
    assert len(pictures.pictures) == count
    crops = pictures.draw(64, np.random.default_rng(0))
    assert crops.shape == (64, 256, 256, 3)
    assert (crops.std(axis=(1, 2, 3)) > 5).mean() > 0.9  # something is to be seen
