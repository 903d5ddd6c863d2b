"""What ingest promises: every picture in a shard as it was published, the same each time, and a list of the rest."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingesting import COUNT, KIB, failures_of, files_of, rows_of

from celebvision.celeba import ingest as ingest_module
from celebvision.celeba import write
from celebvision.celeba.drawn import write_dataset
from celebvision.celeba.ingest import ingest
from celebvision.celeba.original import Place, find_images, read_labels
from celebvision.celeba.schema import ATTRIBUTES, BOX, LANDMARKS, SPLITS
from celebvision.celeba.shards import DataSet
from celebvision.celeba.write import SCHEMA
from celebvision.config import MIB, IngestSettings
from celebvision.job import JobFailed, Outcome
from celebvision.storage import Store, join, open_store

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("celeba")
    write_dataset(folder, COUNT, seed=2)
    return folder


@pytest.fixture
def source(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the drawn faces, to change."""
    return shutil.copytree(drawn, tmp_path / "source")


# --- what goes wrong


@pytest.fixture
def broken(source: Path) -> dict[str, tuple[str, str]]:
    """One picture for everything that can be wrong in `source`, with the stage and error that it should end as."""
    pictures = source / "img_align_celeba"
    (pictures / "000001.jpg").unlink()
    (pictures / "000002.jpg").write_bytes(b"")
    (pictures / "000003.jpg").write_bytes((pictures / "000003.jpg").read_bytes()[:-900])
    (pictures / "000004.jpg").write_bytes(b"this is text")
    with (pictures / "000005.jpg").open("wb") as file:
        file.truncate(65 * MIB)
    shutil.copy(pictures / "000010.jpg", pictures / "999999.jpg")
    partition = source / "list_eval_partition.txt"
    partition.write_text(partition.read_text().replace("000006.jpg 0", "000006.jpg 5"))
    return {
        "000001.jpg": ("list", "NoImage"),
        "000002.jpg": ("decode", "UndecodableImage"),
        "000003.jpg": ("decode", "UndecodableImage"),
        "000004.jpg": ("decode", "UndecodableImage"),
        "000005.jpg": ("fetch", "TooManyBytes"),
        "000006.jpg": ("label", "NoSplit"),
        "999999.jpg": ("label", "NoLabels"),
    }


@pytest.fixture(scope="module")
def clean(drawn: Path, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The shards of the drawn faces, with nothing wrong."""
    output = tmp_path_factory.mktemp("shards")
    return output, run(drawn, output)


def run(source: Path | str, output: Path | str, **words: Any) -> Outcome:
    return ingest(IngestSettings(source=str(source), output=str(output), **words))


def text_table(path: Path) -> dict[str, str]:
    return dict(line.split() for line in path.read_text().splitlines())


# --- what is written


def test_every_picture_is_in_its_split_untouched_with_its_labels(clean: tuple[Path, Outcome], drawn: Path) -> None:
    output, outcome = clean
    labels = read_labels(open_store(str(drawn)), 0)
    identity_of = text_table(drawn / "identity_CelebA.txt")
    split_of = {name: SPLITS[int(number)] for name, number in text_table(drawn / "list_eval_partition.txt").items()}
    seen = {}
    for split, row in rows_of(output):
        name = row["image_id"]
        seen[name] = split
        assert row["image"] == (drawn / "img_align_celeba" / name).read_bytes()
        assert [row[attribute] for attribute in ATTRIBUTES] == labels.loc[name, list(ATTRIBUTES)].tolist()
        assert str(row["identity"]) == identity_of[name]
        assert {row[column] for column in (*(f"box_{side}" for side in BOX), *LANDMARKS)} == {None}
    assert seen == split_of
    assert outcome.failures == 0
    assert failures_of(output) == {}
    assert {split: outcome.summary[split] for split in SPLITS} == {"train": 96, "valid": 12, "test": 12}


def test_the_columns_have_the_types_that_are_promised(clean: tuple[Path, Outcome]) -> None:
    schema = pq.read_schema(clean[0] / "split=train" / "part-00000.parquet")
    assert schema.equals(SCHEMA)
    assert schema.names[:42] == ["image_id", "image", *ATTRIBUTES]
    assert (schema.field("image_id").type, schema.field("image").type) == (pa.string(), pa.binary())
    assert {schema.field(name).type for name in ATTRIBUTES} == {pa.bool_()}
    assert schema.field("identity").type == pa.int32()


def test_dataset_json_tells_the_truth(clean: tuple[Path, Outcome], drawn: Path) -> None:
    output, outcome = clean
    content = json.loads((output / "dataset.json").read_text())
    assert (content["source"], content["seed"], content["digest"]) == (str(drawn), 0, outcome.summary["digest"])
    rows, positives = Counter[str](), {split: Counter[str]() for split in SPLITS}
    for split, row in rows_of(output):
        rows[split] += 1
        positives[split].update(name for name in ATTRIBUTES if row[name])
    for split in SPLITS:
        assert content["splits"][split]["rows"] == rows[split]
        assert content["splits"][split]["attributes"] == {name: positives[split][name] for name in ATTRIBUTES}
    for shard in content["shards"]:
        data = (output / shard["path"]).read_bytes()
        metadata = pq.read_metadata(output / shard["path"])
        assert (shard["sha256"], shard["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
        assert (shard["rows"], shard["row_groups"]) == (metadata.num_rows, metadata.num_row_groups)


def test_boxes_and_landmarks_are_kept_where_the_source_has_them(source: Path, tmp_path: Path) -> None:
    for name, columns in (("list_bbox_celeba", BOX), ("list_landmarks_align_celeba", LANDMARKS)):
        rows = [
            f"{number:06d}.jpg," + ",".join(str(number * 10 + at) for at in range(len(columns)))
            for number in range(1, COUNT + 1)
        ]
        (source / f"{name}.csv").write_text("\n".join([",".join(["image_id", *columns]), *rows]) + "\n")
    run(source, tmp_path / "out")
    for _, row in rows_of(tmp_path / "out"):
        first = 10 * int(row["image_id"][:6])
        assert [row[f"box_{side}"] for side in BOX] == list(range(first, first + 4))
        assert [row[name] for name in LANDMARKS] == list(range(first, first + 10))


# --- the same each time


def test_running_it_twice_gives_the_same_bytes(clean: tuple[Path, Outcome], drawn: Path, tmp_path: Path) -> None:
    again = run(drawn, tmp_path)
    assert files_of(tmp_path) == files_of(clean[0])
    assert again.summary["digest"] == clean[1].summary["digest"]
    assert (tmp_path / "dataset.json").read_bytes() == (clean[0] / "dataset.json").read_bytes()


def test_rows_are_shuffled_and_the_seed_decides_how(clean: tuple[Path, Outcome], drawn: Path, tmp_path: Path) -> None:
    run(drawn, tmp_path, seed=1)
    orders = [
        [row["image_id"] for split, row in rows_of(output) if split == "train"] for output in (clean[0], tmp_path)
    ]
    assert sorted(orders[0]) == sorted(orders[1])
    assert len({tuple(order) for order in (*orders, sorted(orders[0]))}) == 3
    assert sum(one == other for one, other in zip(orders[0], sorted(orders[0]), strict=True)) < 10


@pytest.mark.parametrize(
    ("method", "inside"),
    [(zipfile.ZIP_STORED, "img_align_celeba/"), (zipfile.ZIP_DEFLATED, "img_align_celeba/img_align_celeba/")],
)
def test_the_zip_gives_the_same_shards_as_the_folder(
    clean: tuple[Path, Outcome], source: Path, tmp_path: Path, method: int, inside: str
) -> None:
    with zipfile.ZipFile(source / "img_align_celeba.zip", "w", method) as archive:
        for path in (source / "img_align_celeba").iterdir():
            archive.write(path, inside + path.name)
    shutil.rmtree(source / "img_align_celeba")
    run(source, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(clean[0])


def test_from_s3_to_s3_gives_the_same_shards(clean: tuple[Path, Outcome], drawn: Path, bucket: str) -> None:
    source, output = open_store(join(bucket, "original")), open_store(join(bucket, "shards"))
    for path in drawn.rglob("*.*"):
        source.put(str(path.relative_to(drawn)), path.read_bytes())
    outcome = run(source.uri, output.uri)
    assert outcome.failures == 0
    stored = {stat.key: output.get(stat.key) for stat in output.list()}
    assert stored.pop("dataset.json")
    assert stored == files_of(clean[0])


def test_without_a_partition_nobody_is_in_two_splits(source: Path, tmp_path: Path) -> None:
    (source / "list_eval_partition.txt").unlink()
    run(source, tmp_path / "out")
    splits_of: dict[int, set[str]] = {}
    for split, row in rows_of(tmp_path / "out"):
        splits_of.setdefault(row["identity"], set()).add(split)
    assert {len(splits) for splits in splits_of.values()} == {1}
    assert set().union(*splits_of.values()) == set(SPLITS)


# --- sizes


def test_shards_and_row_groups_are_about_as_large_as_asked_for(large: Path, tmp_path: Path) -> None:
    run(large, tmp_path, shard_bytes=MIB, row_group_bytes=128 * KIB)
    train = DataSet.load(str(tmp_path)).of("train")
    assert [shard.path for shard in train] == [f"split=train/part-0000{part}.parquet" for part in range(len(train))]
    assert len(train) == 4
    for shard in train:
        metadata = pq.read_metadata(tmp_path / shard.path)
        assert shard.bytes < 1.1 * MIB
        assert shard.row_groups == metadata.num_row_groups
        sizes = [metadata.row_group(number).total_byte_size for number in range(shard.row_groups)]
        assert all(size < 140 * KIB for size in sizes)
        assert all(size > 90 * KIB for size in sizes[:-1])
    assert all(shard.bytes > 0.9 * MIB for shard in train[:-1])
    names = [row["image_id"] for _, row in rows_of(tmp_path)]
    assert len(names) == len(set(names)) == COUNT


def test_what_a_larger_ingest_left_is_removed(drawn: Path, large: Path, tmp_path: Path) -> None:
    run(large, tmp_path, shard_bytes=MIB)
    assert len(files_of(tmp_path)) == 4 + 1 + 1 + 1  # shards of three splits, and the list of failures
    (tmp_path / "notes.txt").write_text("not ours")
    run(drawn, tmp_path)
    paths = {shard.path for shard in DataSet.load(str(tmp_path)).shards}
    assert (len(paths), files_of(tmp_path).keys()) == (3, paths | {"failures.parquet"})
    assert (tmp_path / "notes.txt").exists()


def test_whatever_is_wrong_with_a_picture_is_listed_and_the_job_goes_on(
    source: Path, broken: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    outcome = run(source, tmp_path / "out", row_group_bytes=64 * KIB)
    assert failures_of(tmp_path / "out") == broken
    assert outcome.failures == outcome.summary["failures"] == len(broken)
    names = [row["image_id"] for _, row in rows_of(tmp_path / "out")]
    assert sorted([*names, *broken]) == [*(f"{number:06d}.jpg" for number in range(1, COUNT + 1)), "999999.jpg"]
    data_set = DataSet.load(str(tmp_path / "out"))
    males = Counter(split for split, row in rows_of(tmp_path / "out") if row["Male"])
    assert {split: data_set.positives(split)["Male"] for split in SPLITS} == {split: males[split] for split in SPLITS}


def test_damaged_members_of_the_zip_are_listed_and_the_job_goes_on(source: Path, tmp_path: Path) -> None:
    path = source / "img_align_celeba.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for picture in sorted((source / "img_align_celeba").iterdir()):
            archive.write(picture, picture.name, zipfile.ZIP_STORED if picture.name < "000060" else None)
    shutil.rmtree(source / "img_align_celeba")
    places = find_images(open_store(str(source)))
    data = bytearray(path.read_bytes())
    for name, at in (("000010.jpg", 200), ("000090.jpg", 60), ("000091.jpg", 0)):
        start = (places[name].start or 0) + at
        data[start : start + 30] = b"\xff" * 30
    path.write_bytes(data)
    assert run(source, tmp_path / "out").failures == 3
    assert failures_of(tmp_path / "out") == dict.fromkeys(
        ("000010.jpg", "000090.jpg", "000091.jpg"), ("fetch", "ValueError")
    )


def test_a_split_whose_pictures_are_all_broken_leaves_no_shard(source: Path, tmp_path: Path) -> None:
    for number in range(109, 121):
        (source / "img_align_celeba" / f"{number:06d}.jpg").write_bytes(b"")
    outcome = run(source, tmp_path / "out")
    assert (outcome.failures, outcome.summary["test"], outcome.summary["shards"]) == (12, 0, 2)
    assert not list((tmp_path / "out").glob("split=test/*"))


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("list_attr_celeba.txt", "holds no list_attr_celeba.txt or .csv, .* and no labels.csv or labels.parquet"),
        ("img_align_celeba", "holds neither img_align_celeba/ with pictures nor img_align_celeba.zip"),
    ],
)
def test_what_is_not_celeba_is_refused_before_anything_is_touched(
    source: Path, tmp_path: Path, missing: str, words: str
) -> None:
    run(source, tmp_path / "out")
    before = files_of(tmp_path / "out")
    (source / missing).rename(tmp_path / "aside")
    with pytest.raises(JobFailed, match=words):
        run(source, tmp_path / "out")
    assert files_of(tmp_path / "out") == before
    assert DataSet.load(str(tmp_path / "out")).rows("train") == 96


def test_labels_of_other_pictures_are_refused_before_anything_is_touched(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset.json").write_text("{}")
    for path in sorted((source / "img_align_celeba").iterdir()):
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(JobFailed, match="none of its 120 pictures has both labels and a split"):
        run(source, tmp_path / "out")
    assert (tmp_path / "out" / "dataset.json").exists()


def test_a_failed_ingest_leaves_no_data_set(drawn: Path, tmp_path: Path) -> None:
    """A reader sees the old data set or the new one, never a mixture."""
    run(drawn, tmp_path)
    shard = tmp_path / "split=valid" / "part-00000.parquet"
    shard.unlink()
    (shard / "in the way").mkdir(parents=True)
    with pytest.raises(JobFailed):
        run(drawn, tmp_path)
    with pytest.raises(JobFailed, match="its ingest has not finished"):
        DataSet.load(str(tmp_path))


# --- how it works inside: memory and progress


class Counting:
    """Stands for the board that shows progress."""

    def __init__(self) -> None:
        self.counts: list[float] = []

    def add(self, count: float) -> None:
        self.counts.append(count)


def plan_of(source: Path, settings: IngestSettings) -> Any:
    plans, _ = ingest_module._plan_celeba(open_store(str(source)), settings)
    return plans[0]


def test_every_picture_is_counted_once_good_or_bad(source: Path, broken: dict[str, Any], tmp_path: Path) -> None:
    settings = IngestSettings(source=str(source), output=str(tmp_path), row_group_bytes=64 * KIB)
    plan, tally, failures = plan_of(source, settings), Counting(), []
    writer = write._WriteShard(settings, tally)  # type: ignore[arg-type]
    groups = list(writer._row_groups(open_store(str(source)), plan, failures))
    assert len(groups) > 2
    assert sum(tally.counts) == len(plan.places) == sum(map(len, groups)) + len(failures)


def test_no_more_than_a_row_group_and_what_is_fetched_ahead_is_in_memory(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "FETCH_AHEAD", 4)
    fetched = 0
    real = Place.read

    def read(place: Place, store: Store) -> bytes:
        nonlocal fetched
        fetched += 1
        return real(place, store)

    monkeypatch.setattr(Place, "read", read)
    settings = IngestSettings(source=str(large), output=str(tmp_path), row_group_bytes=128 * KIB)
    plan = plan_of(large, settings)
    writer = write._WriteShard(settings, Counting())  # type: ignore[arg-type]
    given = 0
    for group in writer._row_groups(open_store(str(large)), plan, []):
        given += len(group)
        assert fetched == given
        assert len(group) <= 5
    assert given == 96


def test_more_failures_than_allowed_end_with_status_3(source: Path, broken: dict[str, Any], tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("celebvision")
    words = ["ingest", "--source", source, "--output", tmp_path / "out", "--max_failures", len(broken) - 1, "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["failures"] == len(broken)
    assert DataSet.load(str(tmp_path / "out")).rows("train") == 96 - len(broken) + 1
