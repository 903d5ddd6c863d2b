"""What shards promise a training: the pixels and labels of a row group, aligned, and refusals that help."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from celebvision import images
from celebvision.celeba import shards
from celebvision.celeba.schema import ATTRIBUTES
from celebvision.celeba.shards import DataSet, ReadRowGroup, RowGroup, Shard, row_groups
from celebvision.job import JobFailed
from celebvision.storage import NotFound, open_store

ROWS, GROUP = 22, 10
PATH = "split=train/part-00000.parquet"


def jpeg(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (44, 54), (10 * number, 0, 255 - 10 * number)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shard of three row groups, as ingest lays it out; picture n has the bits of n as its first attributes."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / PATH).parent.mkdir()
    columns: dict[str, Any] = {
        "image_id": [f"{number:06d}.jpg" for number in range(ROWS)],
        "image": pa.array([jpeg(number) for number in range(ROWS)], pa.binary()),
    }
    columns |= {name: [bool(number >> bit & 1) for number in range(ROWS)] for bit, name in enumerate(ATTRIBUTES)}
    pq.write_table(pa.table(columns), folder / PATH, row_group_size=GROUP)
    return folder


def read(data: Path, *numbers: int, **words: Any) -> list[dict[str, Any]]:
    reader = ReadRowGroup(str(data), words.pop("targets", ATTRIBUTES[:5]), 27, 22, **words)
    return list(reader({"path": np.array([PATH] * len(numbers)), "number": np.array(numbers)}))


def test_a_row_group_becomes_pixels_and_labels(data: Path) -> None:
    (batch,) = read(data, 0)
    assert set(batch) == {"image", "label"}
    assert (batch["image"].shape, batch["image"].dtype) == ((GROUP, 27, 22, 3), np.uint8)
    assert (batch["label"].shape, batch["label"].dtype) == ((GROUP, 5), np.float32)
    assert set(np.unique(batch["label"])) == {0.0, 1.0}


def test_picture_label_and_name_stay_together(data: Path) -> None:
    seen = []
    for batch in read(data, 2, 0, with_image_id=True):
        for pixels, label, name in zip(batch["image"], batch["label"], batch["image_id"], strict=True):
            number = int(name[:6])
            seen.append(number)
            assert sum(int(bit) << at for at, bit in enumerate(label)) == number
            np.testing.assert_array_equal(pixels, images.decode(jpeg(number), 27, 22))
    assert seen == [20, 21, *range(10)]


def test_labels_come_in_the_order_of_the_targets(data: Path) -> None:
    (forth,) = read(data, 1, targets=(ATTRIBUTES[0], ATTRIBUTES[1]))
    (back,) = read(data, 1, targets=(ATTRIBUTES[1], ATTRIBUTES[0]))
    np.testing.assert_array_equal(forth["label"], back["label"][:, ::-1])
    assert (forth["label"] != back["label"]).any()


def test_no_more_pictures_than_the_bound_are_decoded_at_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "DECODE_ROWS", 4)
    batches = read(data, 0, with_image_id=True)
    assert [len(batch["image"]) for batch in batches] == [4, 4, 2]
    assert [int(name[:6]) for batch in batches for name in batch["image_id"]] == list(range(GROUP))


def test_a_shard_that_is_gone_is_named(data: Path) -> None:
    reader = ReadRowGroup(str(data), ("Male",), 27, 22)
    with pytest.raises(NotFound, match=r"part-00009\.parquet"):
        list(reader({"path": np.array(["split=train/part-00009.parquet"]), "number": np.array([0])}))


def test_targets_that_the_shards_have_no_labels_of_are_refused_by_name(data: Path, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"targets: Tall: no attribute of .*; it has 5_o_Clock_Shadow, "):
        read(data, 0, targets=("Tall", "Male"))
    (tmp_path / PATH).parent.mkdir()
    pq.write_table(pa.table({"image_id": ["a.jpg"], "image": pa.array([jpeg(0)], pa.binary())}), tmp_path / PATH)
    with pytest.raises(JobFailed, match=r"targets: Male: no attribute of .*; .* is it a style set\?"):
        read(tmp_path, 0, targets=("Male",))


# --- dataset.json


def shard(path: str, split: str, rows: int, sha256: str = "0" * 64) -> Shard:
    return Shard(path, split, rows, 2, 1000, sha256, dict.fromkeys(ATTRIBUTES, rows // 2))


SHARDS = (shard("a", "train", 10), shard("b", "train", 6), shard("c", "test", 4))


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    written = DataSet("s3://somewhere/celeba", 7, SHARDS)
    open_store(str(tmp_path)).put("dataset.json", json.dumps(written.to_json()).encode())
    assert DataSet.load(str(tmp_path)) == written
    assert DataSet.load(str(tmp_path)).digest == written.digest


def test_counts_are_sums_over_a_splits_shards() -> None:
    content = DataSet("there", 0, SHARDS).to_json()
    assert {split: counts["rows"] for split, counts in content["splits"].items()} == {"train": 16, "test": 4}
    assert content["splits"]["train"]["attributes"] == dict.fromkeys(ATTRIBUTES, 8)
    assert DataSet("there", 0, SHARDS).rows("valid") == 0
    assert DataSet("there", 0, ()).positives("train") == {}


def test_row_groups_are_those_of_the_split() -> None:
    groups = row_groups(DataSet("there", 0, SHARDS), "train")
    assert groups == [RowGroup(path, number) for path in ("a", "b") for number in (0, 1)]


def test_the_digest_changes_with_any_shard() -> None:
    other = (*SHARDS[:2], shard("c", "test", 4, sha256="1" * 64))
    assert DataSet("there", 0, SHARDS).digest != DataSet("there", 0, other).digest
    assert DataSet("there", 0, SHARDS).digest == DataSet("elsewhere", 1, SHARDS).digest


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "holds no dataset.json: not a data set, or its ingest has not finished"),
        (b"", "dataset.json: not JSON"),
        (b"\xff\xfe", "dataset.json: not JSON"),
        (b"[]", "format None; this version reads 1"),
        (b'{"format": 2}', "format 2; this version reads 1"),
        (b'{"format": 1, "source": "x"}', "not what ingest wrote: 'seed'; run ingest again"),
        (b'{"format": 1, "source": "x", "seed": 0, "shards": [{"path": "a"}]}', "not what ingest wrote"),
    ],
)
def test_what_is_no_data_set_is_refused_with_what_to_do(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(JobFailed) as error:
        DataSet.load(str(tmp_path))
    assert words in str(error.value)
    assert str(tmp_path) in str(error.value)
