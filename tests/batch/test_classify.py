"""`classify`: each picture ends as one result or one failure, once, whatever is done to the run meanwhile."""

import io
import json
import re
import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from labelling import House, Ran, command, everything, fill, published, record, rows
from moto.s3.models import S3Backend
from PIL import Image

from celebvision.batch import inventory, run
from celebvision.batch.label import Labelling
from celebvision.batch.pipeline import work_of
from celebvision.config import ClassifySettings
from celebvision.job import JobFailed
from celebvision.registry import load_state, promote
from celebvision.storage import Store, open_store, write_table
from celebvision.storage.client import client

ODD = ("a b%20.jpg", "a#b?c=d&e.JPG", "😀.jpg", "../up.jpg", "a/../b.jpg", "//twice//.jpg", "k" * 996 + ".jpg")
BROKEN = {
    "bad/empty.jpg": (b"", "decode"),
    "bad/huge.png": (b"", "decode"),
    "bad/many bytes.jpg": (b"x" * 200_001, "fetch"),
    "bad/text.jpg": (b"This was never a picture.", "decode"),
    "bad/truncated.jpg": (b"", "decode"),
    "gone.jpg": (b"", "fetch"),
}


@pytest.fixture(scope="module")
def labelled(ray_cluster: None, faces: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    client().create_bucket(Bucket=bucket)
    here = f"s3://{bucket}"
    huge = io.BytesIO()
    Image.new("1", (1001, 1000)).save(huge, "PNG")
    broken = {key: data for key, (data, _) in BROKEN.items()}
    broken |= {"bad/huge.png": huge.getvalue(), "bad/truncated.jpg": faces[0][:3000], "gone.jpg": faces[1]}
    mislabelled = io.BytesIO()
    Image.open(io.BytesIO(faces[2])).save(mislabelled, "PNG")
    good = dict(zip(ODD, faces, strict=False)) | {"png.jpg": mislabelled.getvalue()}
    good |= {f"faces/{number:02}.jpg": face for number, face in enumerate(faces)}
    fill(here, broken | good | {"notes.txt": b"no picture", "labels/earlier.jpg": faces[0]})
    registry = str(tmp_path_factory.mktemp("registry"))
    version = published(registry, 1)
    promote(registry, "cnn", version.version)
    words = ["classify", "--input", here, "--output", f"{here}/labels", "--registry", registry, "--model", "cnn"]
    words += ["--shard_keys", "5", "--batch_size", "4", "--max_pixels", "1000000", "--max_bytes", "200000", "--json"]

    def list_and_lose_one(store: Store, key: str, table: pa.Table) -> None:
        if "gone.jpg" in table["key"].to_pylist():
            open_store(here).delete("gone.jpg")
        write_table(store, key, table)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inventory, "write_table", list_and_lose_one)
        return Ran(here, f"{here}/labels", sorted(good), version, words, *command([*words, "--max_failures", "5"]))


def test_each_key_is_exactly_once_in_results_or_failures(labelled: Ran) -> None:
    results, failures = rows(labelled.output, "results"), rows(labelled.output, "failures")
    assert [row["key"] for row in results] == labelled.good
    assert [row["key"] for row in failures] == sorted(BROKEN)


def test_every_failure_has_its_stage_and_reason(labelled: Ran) -> None:
    for row in rows(labelled.output, "failures"):
        assert row["stage"] == BROKEN[row["key"]][1], row
        assert row["error"], row
        assert row["message"], row


def test_every_row_says_which_model_version_and_run_made_it(labelled: Ran) -> None:
    told = json.loads(labelled.stdout)
    for row in [*rows(labelled.output, "results"), *rows(labelled.output, "failures")]:
        assert (row["model"], row["model_version"]) == ("cnn", labelled.version.version)
        assert row["run_id"] == told["run_id"]
        assert row["etag"]


def test_every_result_has_a_label_and_how_sure_it_is(labelled: Ran) -> None:
    results = rows(labelled.output, "results")
    assert {row["label"] for row in results} <= {"male", "female"}
    assert all(0.5 <= row["probability"] <= 1 for row in results)
    assert len({row["probability"] for row in results}) > 5


def test_the_command_tells_people_how_far_it_is_and_programs_how_it_went(labelled: Ran) -> None:
    keys = len(labelled.good) + len(BROKEN)
    assert f"classify: {keys} of {keys} images" in labelled.stderr
    assert re.search(rf"classify: \d+ of {keys} images, [\d.]+/s, ETA \d+ s \d failed", labelled.stderr)
    (line,) = labelled.stdout.splitlines()
    told = json.loads(line)
    assert (told["keys"], told["results"], told["failures"]) == (keys, len(labelled.good), 6)
    assert (told["failures_fetch"], told["failures_decode"]) == (2, 4)
    assert told["model"] == f"cnn@{labelled.version.version}"
    assert rows(labelled.bucket, told["results_at"].removeprefix(f"{labelled.bucket}/").partition("/run=")[0])


def test_the_record_of_a_finished_run_is_true(labelled: Ran) -> None:
    told = record(labelled.output)
    assert told["state"] == "done"
    assert told["error"] == ""
    assert told["counts"] == {"results": len(labelled.good), "failures": 6, "failures_fetch": 2, "failures_decode": 4}
    assert told["inventory"]["keys"] == len(labelled.good) + 6
    assert told["model"]["weights_sha256"] == labelled.version.weights_sha256
    assert told["config"]["shard_keys"] == 5
    assert told["seconds"] > 0
    assert not list(open_store(labelled.output).list(f"runs/{told['run_id']}/parts/"))


def test_the_exit_status_tells_of_too_many_failures_and_a_finished_run_is_left_alone(labelled: Ran) -> None:
    assert labelled.status == 3  # six failures, five allowed
    before = everything(open_store(labelled.output))
    status, stdout, stderr = command([*labelled.words, "--max_failures", "6"])
    assert status == 0
    assert stdout == labelled.stdout
    assert "nothing new" in stderr
    assert everything(open_store(labelled.output)) == before


def test_wrong_words_give_exit_status_2_and_a_failed_job_1(labelled: Ran, tmp_path: Path) -> None:
    status, _, stderr = command([*labelled.words, "--shard_keys", "many"])
    assert (status, "shard_keys" in stderr) == (2, True)
    status, stdout, stderr = command([*labelled.words, "--input", str(tmp_path), "--output", str(tmp_path / "labels")])
    assert (status, stdout) == (1, "")
    assert "holds no picture" in stderr


@pytest.mark.usefixtures("on_ray")
def test_an_answer_does_not_depend_on_which_pictures_share_the_batch(labelled: Ran, tmp_path: Path) -> None:
    one, other = rows(labelled.output, "results"), str(tmp_path / "labels")
    words = [*labelled.words[1:-1], "--output", other, "--shard_keys", "1000"]
    settings = dict(zip(words[::2], words[1::2], strict=True))
    run.classify(ClassifySettings(**{name.removeprefix("--"): value for name, value in settings.items()}))
    found = {row["key"]: (row["label"], row["probability"]) for row in rows(other, "results")}
    expected = {row["key"]: (row["label"], row["probability"]) for row in one}
    assert {key: answer for key, answer in found.items() if not key.startswith("labels/")} == expected


def test_the_network_sees_batches_of_one_size_however_few_the_pictures(house: House, tmp_path: Path) -> None:
    here = str(tmp_path)
    settings = ClassifySettings(input=here, output=here, model="cnn", registry=house.registry, batch_size=5)
    work = work_of(
        settings, run.new_run(settings, house.first, "words"), house.first, load_state(house.registry, house.first)
    )
    assert isinstance(work, Labelling)
    work.classifier.probabilities = lambda images: torch.full((len(images), 1), len(images))  # type: ignore
    pictures = [np.zeros((109, 89, 3), np.uint8)] * 3
    assert work.infer(pictures).tolist() == [[5], [5], [5]]


@pytest.mark.usefixtures("on_ray")
def test_two_stages_give_the_same_rows_as_one(labelled: Ran, tmp_path: Path) -> None:
    other = str(tmp_path / "labels")
    status, _, stderr = command([*labelled.words, "--output", other, "--split_stages"])
    assert status == 0, stderr
    for kind in ("results", "failures"):
        expected = [row | {"run_id": ""} for row in rows(labelled.output, kind)]
        found = [row | {"run_id": ""} for row in rows(other, kind) if not row["key"].startswith("labels/")]
        assert found == [row for row in expected if row["key"] != "gone.jpg"]


@pytest.mark.usefixtures("on_ray")
def test_no_progress_is_an_error_that_says_what_waits_for_what(
    house: House, bucket: str, faces: list[bytes], tmp_path: Path
) -> None:
    fill(f"{bucket}/photos", {f"{number}.jpg": face for number, face in enumerate(faces[:3])})
    settings = ClassifySettings(
        input=f"{bucket}/photos",
        output=str(tmp_path / "labels"),
        model="cnn",
        registry=house.registry,
        stall_timeout_s=20,
    )
    honest, told = S3Backend.get_object, threading.Event()

    def stall(self: S3Backend, bucket_name: str, key_name: str, *arguments: Any, **words: Any) -> Any:
        if key_name == "photos/1.jpg":
            told.wait()
        return honest(self, bucket_name, key_name, *arguments, **words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Backend, "get_object", stall)
        try:
            with pytest.raises(JobFailed, match="nothing has moved for 20 s") as failed:
                run.classify(settings)
        finally:
            told.set()
    assert "fetches from 'photos/1.jpg' on, picture 1 of 3" in str(failed.value)
    assert "of 2 CPU" in str(failed.value)
    assert record(settings.output)["state"] == "failed"
    assert run.classify(settings).summary["results"] == 3  # the same command continues
