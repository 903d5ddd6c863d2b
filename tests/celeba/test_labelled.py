"""A folder of pictures with a file of labels: what is read of it, what is refused, and the shards it becomes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from celebvision.celeba.drawn import draw_attributes
from celebvision.celeba.face import draw_face
from celebvision.celeba.ingest import ingest
from celebvision.celeba.labelled import read_labels
from celebvision.celeba.original import drawn_split
from celebvision.celeba.schema import SPLITS
from celebvision.celeba.shards import DataSet
from celebvision.config import IngestSettings
from celebvision.job import JobFailed
from celebvision.storage import Store, open_store

COUNT = 40


def labels(folder: Path, text: str) -> str:
    (folder / "labels.csv").write_text(text)
    return str(folder)


def test_every_way_to_say_yes_and_no_is_understood(tmp_path: Path) -> None:
    table = read_labels(labels(tmp_path, "Young,key,Male,by\n1,a.jpg,True,me\n-1,b/ü 1.jpg, false ,you\n0,007,1,\n"))
    assert table.schema.equals(pa.schema([("key", pa.string()), ("Male", pa.bool_()), ("Young", pa.bool_())]))
    assert table.to_pydict() == {
        "key": ["a.jpg", "b/ü 1.jpg", "007"],
        "Male": [True, False, True],
        "Young": [True, False, False],
    }


@pytest.mark.parametrize("answers", [[True, False], [1, 0], [1, -1], ["1", "False"]])
def test_labels_in_parquet_are_the_same(answers: list[object], bucket: str) -> None:
    store = open_store(f"{bucket}/faces")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"key": ["a.jpg", "b.jpg"], "Bald": answers}), sink)
    store.put("labels.parquet", sink.getvalue().to_pybytes())
    assert read_labels(store.uri).to_pydict() == {"key": ["a.jpg", "b.jpg"], "Bald": [True, False]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("key,Male\na,1\nb,2\n", r"labels.csv: row 2 \(b\): Male is '2'; expected 1, true, 0, -1 or false"),
        ("key,Male,Bald\na,1,\n", r"labels.csv: row 1 \(a\): Bald is ''; expected 1, true"),
        ("key,Male\na,1\n,1\n", "row 2: the key is empty; expected a picture's name"),
        ("key,Male\nb/../../a,1\n", "row 1: key 'b/../../a' leads out of the folder"),
        ("key,Male\n/etc/passwd,1\n", "row 1: key '/etc/passwd' leads out of the folder"),
        ("key,Male\na,1\nb,1\na,0\n", "row 3: key 'a' stands in row 1 too"),
        ("key,Man\na,1\n", "has the columns key, Man; expected key, one at least of 5_o_Clock_Shadow"),
        ("name,Male\na,1\n", "has the columns name, Male; expected key"),
        ("key,Male,Male\na,1,1\n", "has the columns key, Male, Male; expected .* none twice"),
        ("key,Male\na,1,1\n", "labels.csv: cannot be read: .*Expected 2 columns"),
        ("", "labels.csv: cannot be read"),
    ],
)
def test_wrong_labels_are_refused_with_file_row_and_what_was_expected(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=told):
        read_labels(labels(tmp_path, text))


def test_a_folder_has_one_file_of_labels(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"holds neither labels.csv nor labels.parquet"):
        read_labels(str(tmp_path))
    pq.write_table(pa.table({"key": ["a"], "Male": [True]}), tmp_path / "labels.parquet")
    with pytest.raises(JobFailed, match=r"holds both labels.csv and labels.parquet; leave the one that counts"):
        read_labels(labels(tmp_path, "key,Male\na,1\n"))
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "labels.parquet").write_bytes(b"no such thing")
    with pytest.raises(JobFailed, match=r"labels.parquet: cannot be read"):
        read_labels(str(tmp_path))


@pytest.fixture
def faces(bucket: str) -> tuple[Store, dict[str, bool]]:
    """Drawn faces in folders, and whether each is a man's; one labelled face is missing, and one has no label."""
    store, rng = open_store(f"{bucket}/faces"), np.random.default_rng(4)
    men = {f"{number % 3}/{number}.jpg": bool(number % 2) for number in range(COUNT)}
    for key, male in men.items():
        picture = pa.BufferOutputStream()
        draw_face(rng, draw_attributes(rng, male), size=(44, 54)).save(picture, "JPEG")
        store.put(key, picture.getvalue().to_pybytes())
    store.put("unlabelled.png", store.get("0/0.jpg"))
    store.put("broken.jpg", b"no picture")
    store.put("notes.txt", b"no picture, and nobody says so")
    rows = [f"{key},{int(male)}" for key, male in {**men, "missing.jpg": True, "broken.jpg": True}.items()]
    store.put("labels.csv", "\n".join(["key,Male", *rows]).encode())
    return store, men


@pytest.mark.usefixtures("ray_cluster")
def test_shards_hold_what_is_known_and_no_more_and_every_other_picture_is_a_failure(
    faces: tuple[Store, dict[str, bool]], tmp_path: Path
) -> None:
    store, men = faces
    outcome = ingest(IngestSettings(labelled=store.uri, output=str(tmp_path), seed=5))
    data = DataSet.load(str(tmp_path))
    found = {}
    for shard in data.shards:
        table = pq.read_table(tmp_path / shard.path, partitioning=None)
        assert table.column_names == ["image_id", "image", "Male"]
        assert shard.positives == {"Male": sum(table["Male"].to_pylist())}
        for row in table.to_pylist():
            found[row["image_id"]] = row["Male"]
            assert row["image"] == store.get(row["image_id"])
            assert shard.split == drawn_split(row["image_id"], 5)
    assert found == men
    assert all(data.rows(split) for split in SPLITS)
    rows = pq.read_table(tmp_path / "failures.parquet").to_pylist()
    assert {row["image_id"]: (row["stage"], row["error"]) for row in rows} == {
        "broken.jpg": ("decode", "UndecodableImage"),
        "missing.jpg": ("list", "NoImage"),
        "unlabelled.png": ("label", "NoLabels"),
    }
    assert outcome.failures == 3


@pytest.mark.usefixtures("ray_cluster")
def test_the_same_folder_gives_the_same_data(faces: tuple[Store, dict[str, bool]], tmp_path: Path) -> None:
    digests = [
        ingest(IngestSettings(labelled=faces[0].uri, output=str(tmp_path / name))).summary["digest"] for name in "ab"
    ]
    assert digests[0] == digests[1]
