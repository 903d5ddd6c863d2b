"""Drawn faces: the same seed draws the same bytes, what is written reads back as CelebA, the broken is broken."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError

from celebvision.celeba.drawn import draw_attributes, messy_bucket, write_dataset
from celebvision.celeba.face import draw_face
from celebvision.celeba.schema import ATTRIBUTES

COUNT = 40


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("celeba")
    write_dataset(folder, COUNT, seed=7)
    return folder


@pytest.fixture(scope="module")
def bucket_of_12() -> dict[str, bytes]:
    return dict(messy_bucket(12, seed=3))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_writes_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "again", COUNT, seed=7)
    assert contents(tmp_path / "again") == contents(dataset)
    write_dataset(tmp_path / "other", COUNT, seed=8)
    other = contents(tmp_path / "other")
    assert all(other[name] != data for name, data in contents(dataset).items() if name.endswith(".jpg"))
    assert list(messy_bucket(9, seed=1)) == list(messy_bucket(9, seed=1))


def test_every_face_is_another(dataset: Path) -> None:
    images = [data for name, data in contents(dataset).items() if name.endswith(".jpg")]
    assert len(images) == len(set(images)) == COUNT


def test_the_text_files_read_back_as_celeba(dataset: Path) -> None:
    lines = (dataset / "list_attr_celeba.txt").read_text().splitlines()
    assert int(lines[0]) == COUNT
    assert tuple(lines[1].split()) == ATTRIBUTES
    rows = {name: values for name, *values in map(str.split, lines[2:])}
    assert list(rows) == [f"{number:06d}.jpg" for number in range(1, COUNT + 1)]
    assert all(len(values) == 40 and set(values) <= {"-1", "1"} for values in rows.values())
    assert {path.name for path in (dataset / "img_align_celeba").iterdir()} == set(rows)
    for name in rows:
        with Image.open(dataset / "img_align_celeba" / name) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (178, 218))

    split_of = dict(map(str.split, (dataset / "list_eval_partition.txt").read_text().splitlines()))
    assert list(split_of) == list(rows)
    assert list(split_of.values()) == ["0"] * 32 + ["1"] * 4 + ["2"] * 4

    identity_of = dict(map(str.split, (dataset / "identity_CelebA.txt").read_text().splitlines()))
    assert list(identity_of) == list(rows)
    male = ATTRIBUTES.index("Male")
    for identity in set(identity_of.values()):
        pictures = [name for name in rows if identity_of[name] == identity]
        assert len({split_of[name] for name in pictures}) == 1
        assert len({rows[name][male] for name in pictures}) == 1
    assert {values[male] for values in rows.values()} == {"-1", "1"}


def test_attributes_do_not_contradict_each_other() -> None:
    rng = np.random.default_rng(0)
    for number in range(2000):
        has = draw_attributes(rng, male=number % 2 == 0)
        assert tuple(has) == ATTRIBUTES
        assert has["Male"] == (number % 2 == 0)
        hair = sum(has[f"{colour}_Hair"] for colour in ("Black", "Blond", "Brown", "Gray"))
        assert hair <= (0 if has["Bald"] else 1)
        assert not (has["No_Beard"] and (has["Goatee"] or has["Mustache"]))
        assert has["Male"] or has["No_Beard"]


@pytest.mark.parametrize("attribute", sorted(set(ATTRIBUTES) - {"Attractive", "Straight_Hair", "Sideburns"}))
def test_each_attribute_can_be_seen(attribute: str) -> None:
    """Attractive is in nobody's eye but the beholder's; straight hair is how hair is drawn; sideburns need hair."""
    beard = attribute in ("5_o_Clock_Shadow", "Goatee", "Mustache")
    without, has = ({"No_Beard": not beard, attribute: value} for value in (False, True))
    faces = [np.asarray(draw_face(np.random.default_rng(5), each)).astype(int) for each in (without, has)]
    changed = (abs(faces[0] - faces[1]).max(axis=2) > 20).sum()
    assert changed > 40  # of 38,804 pixels


@pytest.mark.parametrize("size", [(178, 218), (64, 64), (256, 300)])
def test_a_face_is_drawn_at_the_size_asked_for(size: tuple[int, int]) -> None:
    image = draw_face(np.random.default_rng(1), {"Eyeglasses": True}, size)
    assert (image.size, image.mode) == (size, "RGB")


def test_a_messy_bucket_has_as_many_objects_as_asked_for(bucket_of_12: dict[str, bytes]) -> None:
    assert len(bucket_of_12) == 12
    assert any(" " in key and "🎉" in key for key in bucket_of_12)
    with pytest.raises(ValueError, match="count is 6"):
        next(messy_bucket(6, seed=0))


def test_all_but_the_broken_can_be_decoded(bucket_of_12: dict[str, bytes]) -> None:
    broken = {key for key in bucket_of_12 if key.startswith("broken/")}
    assert broken == {"broken/truncated.jpg", "broken/empty.jpg", "broken/text.jpg"}
    for key in bucket_of_12.keys() - broken:
        with Image.open(io.BytesIO(bucket_of_12[key])) as image:
            image.load()
            assert image.format == ("PNG" if key.endswith(".png") else "JPEG")
    with Image.open(io.BytesIO(bucket_of_12["broken/truncated.jpg"])) as image:
        assert image.size == (178, 218)
        with pytest.raises(OSError, match="truncated"):
            image.load()
    assert bucket_of_12["broken/empty.jpg"] == b""
    for key in ("broken/empty.jpg", "broken/text.jpg"):
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(bucket_of_12[key]))


def test_cmyk_is_cmyk(bucket_of_12: dict[str, bytes]) -> None:
    with Image.open(io.BytesIO(bucket_of_12["odd/cmyk.jpg"])) as image:
        assert image.mode == "CMYK"


def test_the_rotated_face_is_upright_once_exif_is_applied(bucket_of_12: dict[str, bytes]) -> None:
    key = "odd/rotated by exif.jpg"
    index = list(bucket_of_12).index(key)
    with Image.open(io.BytesIO(bucket_of_12[key])) as stored:
        assert stored.getexif()[0x0112] == 6
        assert stored.size == (218, 178)
        upright = np.asarray(ImageOps.exif_transpose(stored)).astype(int)
    # The same face stands upright, as a plain file, in the bucket that is so much longer.
    plain = list(messy_bucket(index + 1 + 7, seed=3))[index][1]
    with Image.open(io.BytesIO(plain)) as image:
        drawn = np.asarray(image).astype(int)
    assert upright.shape == drawn.shape
    assert abs(upright - drawn).mean() < 6  # two JPEGs of one picture
    assert abs(upright[::-1, ::-1] - drawn).mean() > 20
