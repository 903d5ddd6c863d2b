"""CelebA's own files: read however they were published, and refused in plain words where they are something else."""

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from celebvision.celeba.drawn import write_dataset
from celebvision.celeba.original import find_images, read_labels
from celebvision.celeba.schema import ATTRIBUTES, BOX, LANDMARKS
from celebvision.job import JobFailed
from celebvision.storage import join, open_store

COUNT = 60
Edit = Callable[[str], str]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("celeba")
    write_dataset(folder, COUNT, seed=5, size=(44, 54))
    return folder


@pytest.fixture
def source(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the drawn data set, to change."""
    return shutil.copytree(drawn, tmp_path / "source")


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "img_align_celeba").iterdir()}


def read_all(folder: Path) -> dict[str, bytes]:
    store = open_store(str(folder))
    return {name: place.read(store) for name, place in find_images(store).items()}


def into_zip(folder: Path, method: int, inside: str = "img_align_celeba/") -> Path:
    """Move the pictures into the zip that is published."""
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w", method) as archive:
        archive.mkdir(inside.rstrip("/"))
        for name, data in pictures(folder).items():
            archive.writestr(inside + name, data)
    shutil.rmtree(folder / "img_align_celeba")
    return folder / "img_align_celeba.zip"


def write_boxes_and_landmarks(folder: Path) -> None:
    for name, columns in (("list_bbox_celeba", BOX), ("list_landmarks_align_celeba", LANDMARKS)):
        head = ("image_id " if columns is BOX else "") + " ".join(columns)
        rows = [
            f"{number:06d}.jpg    " + "  ".join(str(number + at) for at in range(len(columns)))
            for number in range(1, COUNT + 1)
        ]
        (folder / f"{name}.txt").write_text("\n".join([str(COUNT), head, *rows]) + "\n")


def as_csv(folder: Path) -> None:
    """Repack the label files as Kaggle does."""
    for path in sorted(folder.glob("*.txt")):
        lines = [line.split() for line in path.read_text().splitlines()]
        if len(lines[0]) == 1:
            head = [name for name in lines[1] if name != "image_id"]
            lines = lines[2:]
        else:
            head = ["partition" if "partition" in path.name else "identity"]
        rows = [["image_id", *head], *lines]
        path.with_suffix(".csv").write_text("".join(",".join(row) + "\n" for row in rows))
        path.unlink()


def change(path: Path, edit: Edit) -> None:
    path.write_text(edit(path.read_text()))


def refusal(folder: Path) -> str:
    with pytest.raises(JobFailed) as error:
        read_labels(open_store(str(folder)), seed=0)
    assert str(folder) in str(error.value)
    return str(error.value)


# --- pictures


@pytest.mark.parametrize("inside", ["", "Img/"])
@pytest.mark.parametrize("nested", ["", "img_align_celeba/"])
def test_the_folder_gives_every_picture_byte_for_byte(source: Path, inside: str, nested: str) -> None:
    expected = pictures(source)
    aside = (source / "img_align_celeba").rename(source / "aside")
    target = source / inside / "img_align_celeba" / nested
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.rename(target)
    assert read_all(source) == expected


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("inside", ["", "img_align_celeba/", "img_align_celeba/img_align_celeba/"])
def test_the_zip_gives_every_picture_byte_for_byte(source: Path, method: int, inside: str) -> None:
    expected = pictures(source)
    into_zip(source, method, inside)
    assert read_all(source) == expected
    assert {name: place.size for name, place in find_images(open_store(str(source))).items()} == {
        name: len(data) for name, data in expected.items()
    }


def test_a_zip_written_as_a_stream_is_read_too(source: Path) -> None:
    """Such a zip has each member's size behind it, and an archive may have other bytes before it."""

    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

    expected, stream = pictures(source), Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in expected.items():
            archive.writestr(name, data)
    shutil.rmtree(source / "img_align_celeba")
    (source / "img_align_celeba.zip").write_bytes(b"before" + stream.getvalue())
    assert read_all(source) == expected


def test_the_zip_on_s3_is_read_without_fetching_it_whole(source: Path, bucket: str) -> None:
    expected = pictures(source)
    store = open_store(join(bucket, "original"))
    store.upload(into_zip(source, zipfile.ZIP_STORED), "img_align_celeba.zip")
    places = find_images(store)
    assert {name: place.read(store) for name, place in places.items()} == expected
    assert all(place.span < place.size + 200 for place in places.values())


@pytest.mark.parametrize("zipped", [False, True])
def test_what_a_mac_leaves_beside_pictures_is_no_picture(source: Path, zipped: bool) -> None:
    expected = pictures(source)
    for name in (".DS_Store", "._000001.jpg"):
        (source / "img_align_celeba" / name).write_bytes(b"Mac OS X")
    if zipped:
        into_zip(source, zipfile.ZIP_STORED)
    assert read_all(source) == expected


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_of_the_zip_costs_itself_alone(source: Path, method: int) -> None:
    path = into_zip(source, method)
    store = open_store(str(source))
    places = find_images(store)
    hurt = sorted(places)[3]
    start = places[hurt].start
    assert start is not None
    data = bytearray(path.read_bytes())
    data[start + 80 : start + 140] = b"\xff" * 60
    path.write_bytes(data)
    for name, place in places.items():
        if name == hurt:
            with pytest.raises(ValueError, match=rf"zip member at byte {start} of img_align_celeba.zip"):
                place.read(store)
        else:
            assert place.read(store)


def test_a_bomb_in_the_zip_gives_no_more_than_it_announced(source: Path) -> None:
    path = into_zip(source, zipfile.ZIP_STORED)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", bytes(50_000_000))
    data = path.read_bytes()
    directory = data.rindex(b"PK\1\2")
    path.write_bytes(data[: directory + 24] + (1000).to_bytes(4, "little") + data[directory + 28 :])
    store = open_store(str(source))
    place = find_images(store)["bomb.jpg"]
    assert len(place._inflated(store.get_range(place.key, (place.start or 0) + 38, place.packed))) == 1000
    with pytest.raises(ValueError, match="does not match its checksum"):
        place.read(store)


def test_a_file_that_is_no_zip_is_refused(source: Path) -> None:
    path = into_zip(source, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(JobFailed, match=r"img_align_celeba.zip: not a whole zip file"):
        find_images(open_store(str(source)))


def test_a_zip_packed_in_a_way_not_read_here_is_refused_at_once(source: Path) -> None:
    into_zip(source, zipfile.ZIP_BZIP2)
    with pytest.raises(JobFailed, match="is encrypted or compressed in a way not read here"):
        find_images(open_store(str(source)))


def test_an_encrypted_zip_is_refused_at_once(source: Path) -> None:
    path = into_zip(source, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(JobFailed, match="is encrypted or"):
        find_images(open_store(str(source)))


def test_a_source_without_pictures_is_refused(source: Path) -> None:
    shutil.rmtree(source / "img_align_celeba")
    with pytest.raises(JobFailed, match=r"holds neither img_align_celeba/ with pictures nor img_align_celeba.zip"):
        find_images(open_store(str(source)))


# --- labels


@pytest.mark.parametrize("inside", ["", "Anno/"])
@pytest.mark.parametrize("csv", [False, True])
def test_text_and_csv_say_the_same(source: Path, inside: str, csv: bool) -> None:
    write_boxes_and_landmarks(source)
    lines = [line.split() for line in (source / "list_attr_celeba.txt").read_text().splitlines()[2:]]
    identity_of = dict(line.split() for line in (source / "identity_CelebA.txt").read_text().splitlines())
    split_of = dict(line.split() for line in (source / "list_eval_partition.txt").read_text().splitlines())
    if csv:
        as_csv(source)
    if inside:
        (source / inside).mkdir()
        for path in [*source.glob("*.txt"), *source.glob("*.csv")]:
            path.rename(source / inside / path.name)
    labels = read_labels(open_store(str(source)), seed=0)
    assert set(labels.columns) == {*ATTRIBUTES, "split", "identity", *BOX, *LANDMARKS}
    assert labels.index.tolist() == [line[0] for line in lines]
    assert set(map(str, labels[list(ATTRIBUTES)].dtypes)) == {"bool"}
    for image_id, *values in lines:
        row = labels.loc[image_id]
        assert row[list(ATTRIBUTES)].tolist() == [value == "1" for value in values]
        assert str(row["identity"]) == identity_of[image_id]
        assert row["split"] == ("train", "valid", "test")[int(split_of[image_id])]
        number = int(image_id[:6])
        assert row[list(BOX)].tolist() == list(range(number, number + 4))
        assert row[list(LANDMARKS)].tolist() == list(range(number, number + 10))


def test_what_the_source_lacks_has_no_column(source: Path) -> None:
    (source / "identity_CelebA.txt").unlink()
    labels = read_labels(open_store(str(source)), seed=0)
    assert set(labels.columns) == {*ATTRIBUTES, "split"}


def test_without_a_partition_nobody_is_in_two_splits_and_the_seed_decides(source: Path) -> None:
    (source / "list_eval_partition.txt").unlink()
    change(source / "identity_CelebA.txt", lambda text: "".join(f"{line}\n" for line in text.splitlines()[:-6]))
    drawn = {seed: read_labels(open_store(str(source)), seed) for seed in (0, 1)}
    for labels in drawn.values():
        assert (labels.groupby("identity")["split"].nunique() == 1).all()
        assert set(labels["split"]) <= {"train", "valid", "test"}
    assert drawn[0]["split"].tolist() != drawn[1]["split"].tolist()
    pd.testing.assert_frame_equal(drawn[0], read_labels(open_store(str(source)), 0))


def test_pictures_of_unknown_people_are_not_taken_for_one_person(source: Path) -> None:
    (source / "list_eval_partition.txt").unlink()
    change(source / "identity_CelebA.txt", lambda text: text.splitlines()[0] + "\n")
    labels = read_labels(open_store(str(source)), seed=0)
    assert labels["identity"].notna().sum() == 1
    counts = labels["split"].value_counts()
    assert len(counts) == 3
    assert counts["train"] > COUNT / 2


def test_a_picture_that_the_partition_leaves_out_has_no_split(source: Path) -> None:
    change(
        source / "list_eval_partition.txt",
        lambda text: text.replace("000002.jpg 0\n", "").replace("3.jpg 0", "3.jpg 7"),
    )
    labels = read_labels(open_store(str(source)), seed=0)
    lacking = labels.index[labels["split"].isna()]
    assert lacking.tolist() == ["000002.jpg", *(f"0000{tens}3.jpg" for tens in range(5))]


# --- what is not CelebA


def test_a_source_without_attributes_is_refused(source: Path) -> None:
    (source / "list_attr_celeba.txt").unlink()
    assert "holds no list_attr_celeba.txt or .csv" in refusal(source)


@pytest.mark.parametrize(
    ("name", "edit", "words"),
    [
        ("list_attr_celeba.txt", lambda text: "", "not in CelebA's format"),
        ("list_attr_celeba.txt", lambda text: "a novel\nby nobody\nof two\n", "rows have 1 values"),
        ("list_attr_celeba.txt", lambda text: text.replace("60\n", "61\n", 1), "announces 61 rows and has 60"),
        ("list_attr_celeba.txt", lambda text: text.replace(" Young", " Old", 1), "lacks the columns Young"),
        ("list_attr_celeba.txt", lambda text: text.replace(" Young", "", 1), "header names 39 columns and the rows"),
        ("list_attr_celeba.txt", lambda text: text.replace("9.jpg -1", "9.jpg 0", 1), "000009.jpg has a value other"),
        ("list_attr_celeba.txt", lambda text: text.replace("9.jpg -1", "9.jpg x", 1), "not in CelebA's format"),
        ("list_attr_celeba.txt", lambda text: text[:-6] + "\n", "000060.jpg has a value other"),
        ("list_attr_celeba.txt", lambda text: text.replace("000009", "000008", 1), "000008.jpg stands there twice"),
        ("list_eval_partition.txt", lambda text: text.replace("000009", "000008"), "000008.jpg stands there twice"),
        ("list_eval_partition.txt", lambda text: text.replace(" 1", " one"), "not in CelebA's format"),
        ("identity_CelebA.txt", lambda text: text.replace("000009", "000008"), "000008.jpg stands there twice"),
        ("identity_CelebA.txt", lambda text: text.replace(" 1\n", " 5000000000\n"), "not in CelebA's format"),
        ("identity_CelebA.txt", lambda text: text.replace(" 1\n", " 1.5\n"), "not in CelebA's format"),
        ("list_bbox_celeba.txt", lambda text: "x y\n", "list_bbox_celeba.txt: not in CelebA's format"),
    ],
)
def test_label_files_that_are_not_celebas_are_refused_by_name(source: Path, name: str, edit: Edit, words: str) -> None:
    path = source / name
    path.touch()
    change(path, edit)
    message = refusal(source)
    assert words in message
    assert path.stem in message


def test_bytes_that_are_no_text_are_refused(source: Path) -> None:
    (source / "list_attr_celeba.txt").write_bytes(b"2\n\xff\xfe\x00\n\xff\xfe\xff 1\n\xff\xfe 2\n")
    assert "list_attr_celeba.txt: not in CelebA's format" in refusal(source)
