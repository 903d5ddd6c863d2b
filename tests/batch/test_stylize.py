"""`stylize`: each picture ends as one picture in the style or one failure, once, in the same engine as `classify`."""

import io
import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
from labelling import House, Ran, command, everything, fill, published_style, record, rows
from moto.s3.exceptions import S3ClientError
from moto.s3.models import S3Backend
from PIL import Image

from celebvision import ray_session
from celebvision.batch import draw, gallery, pipeline, run
from celebvision.batch.inventory import write_inventory
from celebvision.batch.pipeline import WorkShards
from celebvision.batch.record import Run
from celebvision.config import ClassifySettings, PlanSettings, StylizeSettings
from celebvision.job import JobFailed
from celebvision.registry import load_state, promote
from celebvision.storage import Full, open_store, read_table
from celebvision.storage.client import client

ODD = ("a b%20.jpg", "a#b?c=d&e.JPG", "😀.jpg", "../up.jpg", "a/../b.jpg", "//twice//.jpg", "k" * 996 + ".jpg")
BROKEN = {
    "bad/empty.jpg": "decode",
    "bad/many bytes.jpg": "fetch",
    "bad/truncated.jpg": "decode",
    "k" * 1020 + ".jpg": "write",  # which is as long as a key may be, before the output's own folder
}
ROTATED = "rotated.jpg"
NAMED_OTHERWISE = {"face.png": "face.png.jpg", "face.png.jpg": "face.png.jpg.jpg", "face.jpeg": "face.jpeg"}


class TooLong(S3ClientError):
    code = 400

    def __init__(self) -> None:
        super().__init__("KeyTooLongError", "Your key is too long")


@pytest.fixture(scope="module")
def style(tmp_path_factory: pytest.TempPathFactory) -> House:
    registry = str(tmp_path_factory.mktemp("registry"))
    house = House(registry, published_style(registry, 1), published_style(registry, 2))
    promote(registry, "sketch", house.first.version)
    return house


def settings_for(style: House, tmp_path: Path, **others: Any) -> StylizeSettings:
    places = {"input": str(tmp_path / "photos"), "output": str(tmp_path / "drawn")}
    return StylizeSettings(**(places | {"model": "sketch", "registry": style.registry} | others))


@pytest.fixture(scope="module")
def drawn(ray_cluster: None, style: House, faces: list[bytes]) -> Ran:
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    client().create_bucket(Bucket=bucket)
    here = f"s3://{bucket}"
    exif, rotated = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.open(io.BytesIO(faces[0])).save(rotated, "JPEG", exif=exif)
    good = dict(zip([*ODD, *NAMED_OTHERWISE], faces, strict=False)) | {ROTATED: rotated.getvalue()}
    contents = {
        "bad/many bytes.jpg": b"x" * 200_001,
        "bad/truncated.jpg": faces[0][:3000],
        "k" * 1020 + ".jpg": faces[0],
    }
    fill(here, {key: contents.get(key, b"") for key in BROKEN} | good)
    fill(here, {"notes.txt": b"no picture", "drawn/images/earlier.jpg": faces[0]})
    words = ["stylize", "--input", here, "--output", f"{here}/drawn", "--registry", style.registry, "--model", "sketch"]
    words += ["--shard_keys", "6", "--batch_size", "4", "--max_bytes", "200000", "--json"]
    honest = S3Backend.put_object

    def put_object(self: S3Backend, bucket_name: str, key_name: str, *arguments: Any, **others: Any) -> Any:
        if len(key_name.encode()) > 1024:  # as S3 does
            raise TooLong
        return honest(self, bucket_name, key_name, *arguments, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Backend, "put_object", put_object)
        return Ran(here, f"{here}/drawn", sorted(good), style.first, words, *command([*words, "--max_failures", "3"]))


def test_each_key_is_exactly_once_in_results_or_failures(drawn: Ran) -> None:
    assert drawn.status == 3, drawn.stderr  # four failures, three allowed
    assert [row["key"] for row in rows(drawn.output, "results")] == drawn.good
    assert {row["key"]: row["stage"] for row in rows(drawn.output, "failures")} == BROKEN


def test_every_result_is_a_picture_named_by_its_key_and_there_are_no_others(drawn: Ran) -> None:
    results, store = rows(drawn.output, "results"), open_store(drawn.output)
    for row in results:
        data = store.get(f"images/{row['output_key']}")
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", (row["width"], row["height"]))
        assert row["bytes"] == len(data)
        assert row["ms"] > 0
    names = {row["key"]: row["output_key"] for row in results}
    assert names == {key: NAMED_OTHERWISE.get(key, key) for key in drawn.good}
    there = {stat.key for stat in store.list("images/")}
    assert there == {f"images/{name}" for name in names.values()} | {"images/earlier.jpg"}


def test_a_rotated_picture_is_drawn_upright_and_the_others_are_as_large_as_they_were(drawn: Ran) -> None:
    sizes = {row["key"]: (row["width"], row["height"]) for row in rows(drawn.output, "results")}
    assert sizes.pop(ROTATED) == (218, 178)
    assert set(sizes.values()) == {(178, 218)}


def test_every_row_says_which_model_version_and_run_made_it(drawn: Ran) -> None:
    told = json.loads(drawn.stdout)
    for row in [*rows(drawn.output, "results"), *rows(drawn.output, "failures")]:
        assert (row["model"], row["model_version"]) == ("sketch", drawn.version.version)
        assert row["run_id"] == told["run_id"]
        assert row["etag"]


def test_the_command_tells_what_it_did_and_where(drawn: Ran) -> None:
    keys = len(drawn.good) + len(BROKEN)
    assert f"stylize: {keys} of {keys} images" in drawn.stderr
    told = json.loads(drawn.stdout)
    assert (told["keys"], told["results"], told["failures"]) == (keys, len(drawn.good), 4)
    assert (told["failures_fetch"], told["failures_decode"], told["failures_write"]) == (1, 2, 1)
    assert told["images_at"] == f"{drawn.output}/images"
    status, stdout, _ = command(["runs", "--output", drawn.output, "--json"])
    (shown,) = json.loads(stdout)["runs"]
    assert (status, shown["verb"], shown["state"], shown["results"]) == (0, "stylize", "done", len(drawn.good))


def test_a_finished_run_leaves_a_sheet_and_nothing_half_done(drawn: Ran) -> None:
    told, store = record(drawn.output), open_store(drawn.output)
    assert (told["state"], told["verb"]) == ("done", "stylize")
    left = {stat.key.removeprefix(f"runs/{told['run_id']}/").split("/")[0] for stat in store.list("runs/")}
    assert left == {"run.json", "inventory", "sheet.png"}
    sheet = Image.open(io.BytesIO(store.get(f"runs/{told['run_id']}/sheet.png")))
    pairs = min(gallery.SHOWN, len(drawn.good))
    assert sheet.height == -(-pairs // gallery.PAIRS_A_ROW) * (128 + 16)


def test_a_finished_run_is_left_alone(drawn: Ran) -> None:
    before = everything(open_store(drawn.output))
    status, stdout, stderr = command(drawn.words)
    assert (status, stdout) == (0, drawn.stdout)
    assert "nothing new" in stderr
    assert everything(open_store(drawn.output)) == before


def test_a_plan_forecasts_it_and_writes_nothing(drawn: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(open_store(drawn.bucket))
    words = ["plan", *drawn.words[1:], "--format", "webp", "--sample", "5"]
    monkeypatch.setattr("celebvision.batch.plan.MEASURE_S", 0.5)
    status, stdout, stderr = command(words)
    assert status == 0, stderr
    told = json.loads(stdout)
    assert told["keys"] == len(drawn.good) + len(BROKEN)
    assert told["images_per_s"] > 0
    assert told["infer_s"] > 0
    assert everything(open_store(drawn.bucket)) == before


# ---- words ----


@pytest.mark.parametrize(
    "wrong", [["--format", "gif"], ["--quality", "0"], ["--quality", "101"], ["--size", "0"], ["--split_stages"]]
)
def test_wrong_words_are_refused(style: House, tmp_path: Path, wrong: list[str]) -> None:
    words = ["stylize", "--input", str(tmp_path), "--output", "out", "--registry", style.registry, "--model", "sketch"]
    status, _, stderr = command([*words, *wrong])
    assert status == 2
    assert wrong[0].removeprefix("--") in stderr


def test_a_model_of_the_other_kind_is_refused_before_any_work(style: House, house: House, tmp_path: Path) -> None:
    drawing = settings_for(style, tmp_path)
    with pytest.raises(JobFailed, match=r"model: cnn@.* labels pictures; the verb for it is classify"):
        run.stylize(drawing.model_copy(update={"model": "cnn", "registry": house.registry}))
    labelling = ClassifySettings(input=drawing.input, output=drawing.output, model="sketch", registry=style.registry)
    with pytest.raises(JobFailed, match=r"model: sketch@.* redraws pictures; the verb for it is stylize"):
        run.classify(labelling)
    assert everything(open_store(drawing.output)) == {}


def test_a_plan_knows_the_words_of_the_models_verb_alone(style: House, house: House, tmp_path: Path) -> None:
    from celebvision.batch.plan import _job

    draws = {"input": "in", "output": "out", "model": "sketch", "registry": style.registry}
    labels = draws | {"model": "cnn", "registry": house.registry}
    optimises = {"input": "in", "output": "out", "model": "vgg", "style": ["a.jpg"], "size": 64}
    assert _job(PlanSettings(**draws, format="png", sample=3)) == StylizeSettings(**draws, format="png")
    assert _job(PlanSettings(**labels, nodes=2)) == ClassifySettings(**labels)
    assert _job(PlanSettings(**optimises, sample=3)) == StylizeSettings(**optimises)
    with pytest.raises(JobFailed, match="format: is no setting of the verb for cnn"):
        _job(PlanSettings(**labels, format="png"))
    with pytest.raises(JobFailed, match="split_stages: is no setting of the verb for sketch"):
        _job(PlanSettings(**draws, split_stages=True))


@pytest.mark.parametrize(
    ("source", "output", "is_refused"),
    [
        ("photos", "photos", True),
        ("photos", "photos/drawn", False),
        ("photos", "drawn", False),
        ("here/photos", "here", False),
        ("here/images", "here", True),
        ("here/images/2024", "here", True),
        ("here/images2", "here", False),
    ],
)
@pytest.mark.parametrize("where", ["local", "s3"])
def test_what_is_drawn_never_lands_among_what_is_read(
    style: House, tmp_path: Path, where: str, source: str, output: str, is_refused: bool
) -> None:
    root = str(tmp_path) if where == "local" else "s3://bucket"
    settings = settings_for(style, tmp_path, input=f"{root}/{source}", output=f"{root}/{output}")
    if is_refused:
        with pytest.raises(JobFailed, match="give it a folder of its own"):
            run.stylize(settings)
    else:
        gallery.refuse_own_pictures(settings)


# ---- runs started again ----


def drawn_at(settings: StylizeSettings) -> dict[str, str]:
    """The pictures, and what tells when each was written."""
    return {stat.key: stat.etag for stat in open_store(settings.output).list("images/")}


@pytest.mark.usefixtures("on_ray")
def test_a_later_run_draws_only_what_is_new_or_changed_and_a_retry_what_failed(
    style: House, faces: list[bytes], tmp_path: Path
) -> None:
    settings = settings_for(style, tmp_path, format="webp", size=40)
    fill(settings.input, {"1.jpg": faces[1], "2.jpg": faces[2], "bad.jpg": b"bad"})
    first = run.stylize(settings)
    assert (first.summary["results"], first.failures) == (2, 1)
    assert {(row["width"], row["height"]) for row in rows(settings.output, "results")} == {(40, 49)}
    before = drawn_at(settings)
    assert set(before) == {"images/1.jpg.webp", "images/2.jpg.webp"}

    fill(settings.input, {"2.jpg": faces[5], "3.jpg": faces[3]})
    later = run.stylize(settings)
    assert [row["key"] for row in rows(settings.output, "results", later.summary["run_id"])] == ["2.jpg", "3.jpg"]
    after = drawn_at(settings)
    assert {key for key in after if after[key] != before.get(key)} == {"images/2.jpg.webp", "images/3.jpg.webp"}

    fill(settings.input, {"bad.jpg": faces[6]})
    retried = run.stylize(settings.model_copy(update={"retry": "failures"}))
    assert [row["key"] for row in rows(settings.output, "results", retried.summary["run_id"])] == ["bad.jpg"]
    assert set(drawn_at(settings)) - set(after) == {"images/bad.jpg.webp"}

    with pytest.raises(JobFailed, match=r"with other words \(size is 40 there\); give another output"):
        run.stylize(settings.model_copy(update={"size": 41}))


@pytest.mark.usefixtures("on_ray")
def test_what_another_version_has_replaced_is_drawn_again(style: House, faces: list[bytes], tmp_path: Path) -> None:
    settings = settings_for(style, tmp_path, format="png")
    fill(settings.input, {"1.jpg": faces[1]})
    store = open_store(settings.output)
    contents = []
    try:
        for version in (style.first, style.second, style.first):
            promote(style.registry, "sketch", version.version)
            told = run.stylize(settings).summary
            assert (told["keys"], told["model"]) == (1, f"sketch@{version.version}")
            contents.append(store.get("images/1.jpg.png"))
    finally:
        promote(style.registry, "sketch", style.first.version)
    assert contents[0] == contents[2] != contents[1]
    assert run.stylize(settings).summary == told  # and now it stands


@pytest.mark.usefixtures("on_ray")
def test_rows_of_parquet_files_are_drawn_under_their_keys(style: House, faces: list[bytes], tmp_path: Path) -> None:
    settings = settings_for(style, tmp_path)
    stream = io.BytesIO()
    pq.write_table(pa.table({"image_id": ["1.jpg", "2.png"], "image": faces[:2]}), stream)
    open_store(settings.input).put("part-0.parquet", stream.getvalue())
    run.stylize(settings)
    keys = [row["output_key"] for row in rows(settings.output, "results")]
    assert keys == ["part-0.parquet#000000000/1.jpg", "part-0.parquet#000000001/2.png.jpg"]
    assert set(drawn_at(settings)) == {f"images/{key}" for key in keys}


# ---- the journal of a shard ----


def worker_for(
    settings: StylizeSettings, style: House, monkeypatch: pytest.MonkeyPatch
) -> tuple[WorkShards, list[str]]:
    """A worker in this process, for a run of one listed shard; and the names that it puts."""
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # this is not the worker's own process
    monkeypatch.setattr(draw, "JOURNAL_S", -1)
    made = replace(run.new_run(settings, style.first, "words"), run_id="run")
    output = open_store(settings.output)
    if not list(output.list(f"{made.folder}/inventory/")):
        write_inventory(settings, output, made, [])
    weights = ray.put(load_state(style.registry, style.first))
    worker = WorkShards(settings, made, style.first, weights, ray_session.Board())
    names: list[str] = []
    honest = worker.work.put  # type: ignore[attr-defined]

    def put(key: str, data: bytes) -> str:
        names.append(key)
        etag: str = honest(key, data)
        return etag

    monkeypatch.setattr(worker.work, "put", put)
    return worker, names


SHARD = pa.table({"shard": [0]})


@pytest.mark.usefixtures("on_ray")
def test_a_shard_begun_again_draws_only_what_its_journal_lacks_and_leaves_the_same_bytes(
    style: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {f"{at:02}.jpg": face for at, face in enumerate(faces)} | {"03.jpg": b"bad"}
    settings, other = (settings_for(style, tmp_path, batch_size=3, output=str(tmp_path / name)) for name in "ab")
    fill(settings.input, pictures)
    worker, names = worker_for(other, style, monkeypatch)
    worker(SHARD)
    assert len(names) == len(pictures) - 1 == 11

    worker, names = worker_for(settings, style, monkeypatch)
    put = worker.work.put  # type: ignore[attr-defined]

    def full_at_last(key: str, data: bytes) -> str:
        if len(names) == 9:
            raise Full(f"{key}: no space left")
        etag: str = put(key, data)
        return etag

    monkeypatch.setattr(worker.work, "put", full_at_last)
    with pytest.raises(Full):
        worker(SHARD)
    made, output = worker.run, open_store(settings.output)
    known = read_table(output, made.journal(0)).to_pylist()
    assert [row["key"] for row in known] == sorted(pictures)[: len(known)]
    assert len(known) >= 6
    assert len(known) % 3 == 0
    written = {row["output_key"]: output.stat(f"images/{row['output_key']}").etag for row in known if row["output_key"]}

    worker, again = worker_for(settings, style, monkeypatch)
    worker(SHARD)
    assert sorted(again) == [f"images/{key}" for key in sorted(pictures)[len(known) :]]
    assert {name: output.stat(f"images/{name}").etag for name in written} == written
    parts = [read_table(open_store(one.output), made.part(0)) for one in (settings, other)]
    first, second = (part.drop_columns(["ms"]).to_pylist() for part in parts)
    assert first == second
    contents = [
        {stat.key: store.get(stat.key) for stat in store.list("images/")}
        for store in (output, open_store(other.output))
    ]
    assert contents[0] == contents[1]


@pytest.mark.usefixtures("on_ray")
def test_what_may_be_the_storages_fault_is_in_no_journal(
    style: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(style, tmp_path, batch_size=2)
    fill(settings.input, {f"{at}.jpg": faces[at] for at in range(8)})
    worker, _ = worker_for(settings, style, monkeypatch)
    honest = type(worker.output).get

    def lost(self: Any, key: str) -> bytes:
        if key in ("4.jpg", "5.jpg", "6.jpg", "7.jpg"):
            raise pipeline.Unreachable(f"{key}: away")
        data: bytes = honest(self, key)
        return data

    with monkeypatch.context() as patch:
        patch.setattr(type(worker.output), "get", lost)
        with pytest.raises(JobFailed, match=r"4 of 8 pictures of a shard could not be fetched: .*away"):
            worker(SHARD)
    keys = read_table(worker.output, worker.run.journal(0))["key"].to_pylist()
    assert keys == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    worker, names = worker_for(settings, style, monkeypatch)
    worker(SHARD)
    assert len(names) == 4


# ---- the sheet ----


def test_things_are_spread_evenly() -> None:
    assert gallery._spread(range(10), 3) == [0, 3, 6]
    assert gallery._spread([1, 2], 20) == [1, 2]
    assert gallery._spread([], 20) == []


@pytest.mark.usefixtures("on_ray")
def test_a_picture_that_is_gone_does_not_cost_the_sheet(
    style: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(style, tmp_path)
    fill(settings.input, {"a.jpg": faces[0], "b\n😀.jpg": faces[1], "bad.jpg": b"bad"})
    worker, _ = worker_for(settings, style, monkeypatch)
    worker(SHARD)
    made: Run = worker.run
    made.inventory = {"shards": 1}
    store = open_store(settings.output)
    open_store(settings.input).delete("a.jpg")
    store.put("images/b\n😀.jpg", b"no picture")
    gallery.put_sheet(settings, store, made)
    sheet = Image.open(io.BytesIO(store.get(made.sheet)))
    left_of_pair, right_of_pair = sheet.getpixel((60, 60)), sheet.getpixel((128 + 60, 60))
    assert left_of_pair == (225, 225, 225) != right_of_pair  # the input is gone, what was drawn of it is there
    assert sheet.getpixel((3 * 128 + 60, 60)) == (225, 225, 225)
