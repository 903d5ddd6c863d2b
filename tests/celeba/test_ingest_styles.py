"""A folder of style pictures becomes shards: untouched, shuffled by a seed, the broken ones listed."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ingesting import COUNT, KIB, failures_of, files_of, rows_of

from celebvision.celeba.drawn import messy_bucket
from celebvision.celeba.ingest import ingest
from celebvision.celeba.shards import DataSet
from celebvision.celeba.write import SCHEMA
from celebvision.config import MIB, IngestSettings, WordsError, parse
from celebvision.job import JobFailed, Outcome
from celebvision.storage import join, open_store


@pytest.fixture(scope="module")
def style_pictures() -> dict[str, bytes]:
    """Key and bytes of 30 objects; names repeat in subfolders, and all but those under `broken/` are pictures."""
    pictures = {key.replace("faces/", "a/"): data for key, data in messy_bucket(24, seed=5)}
    faces = {key: data for key, data in pictures.items() if key.startswith("a/")}
    for number, (key, data) in enumerate(list(faces.items())[:5]):
        pictures[f"b/{'deeper/' * number}{key.removeprefix('a/')}"] = data + bytes(number)
    pictures["top level.JPEG"] = next(iter(faces.values()))
    return pictures


@pytest.fixture(scope="module")
def style_folder(style_pictures: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures in a folder, with what else lies about in one."""
    folder = tmp_path_factory.mktemp("styles")
    others = {"notes.txt": b"by nobody", "a/._0001.jpg": b"a Mac's", "a/.DS_Store": b"too"}
    for key, data in {**style_pictures, **others}.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def styles(style_folder: Path, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    output = tmp_path_factory.mktemp("style-shards")
    return output, run_styles(style_folder, output)


def run_styles(folder: Path | str, output: Path | str, **words: Any) -> Outcome:
    return ingest(IngestSettings(style_folder=str(folder), output=str(output), **words))


def test_style_pictures_are_kept_untouched_under_their_keys(
    styles: tuple[Path, Outcome], style_pictures: dict[str, bytes], style_folder: Path
) -> None:
    output, outcome = styles
    rows = list(rows_of(output))
    good = {key: data for key, data in style_pictures.items() if not key.startswith("broken/")}
    assert {row["image_id"]: row["image"] for _, row in rows} == good
    assert len(rows) == len(good) == 27
    assert {split for split, _ in rows} == {"train"}
    order = [row["image_id"] for _, row in rows]
    assert order != sorted(order)
    schema = pq.read_schema(output / "split=train" / "part-00000.parquet")
    assert schema.names == ["image_id", "image"]
    assert [schema.field(name).type for name in schema.names] == [SCHEMA.field(name).type for name in schema.names]
    content = json.loads((output / "dataset.json").read_text())
    assert content["source"] == str(style_folder)
    assert content["splits"] == {"train": {"rows": 27, "attributes": {}}}
    (shard,) = content["shards"]
    assert shard["sha256"] == hashlib.sha256((output / shard["path"]).read_bytes()).hexdigest()
    assert DataSet.load(str(output)).positives("train") == {}
    wanted = {"output": str(output), "train": 27, "failures": 3, "shards": 1, "digest": content["digest"]}
    assert (outcome.summary, outcome.failures) == (wanted, 3)


def test_broken_style_pictures_are_listed(styles: tuple[Path, Outcome]) -> None:
    broken = ("broken/truncated.jpg", "broken/empty.jpg", "broken/text.jpg")
    assert failures_of(styles[0]) == dict.fromkeys(broken, ("decode", "UndecodableImage"))


def test_style_shards_from_s3_to_s3_are_the_same(styles: tuple[Path, Outcome], style_folder: Path, bucket: str) -> None:
    source, output = open_store(join(bucket, "monet")), open_store(join(bucket, "shards"))
    for path in style_folder.rglob("*.*"):
        if path.is_file():
            source.put(str(path.relative_to(style_folder)), path.read_bytes())
    assert run_styles(source.uri, output.uri).summary["digest"] == styles[1].summary["digest"]
    stored = {stat.key: output.get(stat.key) for stat in output.list()}
    assert stored.pop("dataset.json")
    assert stored == files_of(styles[0])


def test_the_seed_decides_the_order_of_style_pictures(
    styles: tuple[Path, Outcome], style_folder: Path, tmp_path: Path
) -> None:
    run_styles(style_folder, tmp_path, seed=1)
    orders = [[row["image_id"] for _, row in rows_of(output)] for output in (styles[0], tmp_path)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_large_style_sets_are_cut_and_what_they_left_is_removed(
    large: Path, style_folder: Path, styles: tuple[Path, Outcome], tmp_path: Path
) -> None:
    outcome = run_styles(large / "img_align_celeba", tmp_path, shard_bytes=MIB, row_group_bytes=128 * KIB)
    assert (outcome.summary["train"], outcome.summary["shards"]) == (COUNT, 5)
    assert all(shard.row_groups > 4 for shard in DataSet.load(str(tmp_path)).shards[:4])
    run_styles(style_folder, tmp_path)
    assert files_of(tmp_path) == files_of(styles[0])


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("nothing")
    (tmp_path / "folder" / ".jpg").write_text("hidden")
    for folder in ("folder", "nowhere"):
        with pytest.raises(JobFailed, match=rf"{folder}: holds no picture whose name ends in \.jpg, "):
            run_styles(tmp_path / folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "style_folder: None is refused: give one of --source, --labelled and --style_folder"),
        (
            ["--source", "a", "--style_folder", "b"],
            "'b' is refused: give one of --source, --labelled and --style_folder, not several",
        ),
        (["--style_folder", "gs://b"], "style_folder: 'gs://b' is refused: should be s3://bucket/prefix or a local"),
    ],
)
def test_exactly_one_of_source_and_style_folder_is_taken(words: list[str], told: str) -> None:
    with pytest.raises(WordsError) as refused:
        parse(IngestSettings, ["--output", "c", *words], "celebvision ingest")
    assert told in str(refused.value)
    assert parse(IngestSettings, ["--output", "c", "--style_folder", "b"], "celebvision ingest").pictures == "b"
