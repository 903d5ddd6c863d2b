"""`stylize`: each picture ends as one picture in the style or one failure, once, in the same engine as `classify`."""

import io
import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawings import settings_for
from labelling import House, Ran, command, everything, fill, record, rows
from moto.s3.exceptions import S3ClientError
from moto.s3.models import S3Backend
from PIL import Image

from celebvision.batch import gallery, run
from celebvision.config import ClassifySettings, PlanSettings, StylizeSettings
from celebvision.job import JobFailed
from celebvision.registry import promote
from celebvision.storage import open_store
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
