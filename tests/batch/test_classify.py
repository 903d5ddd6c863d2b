"""`classify`: each picture ends as one result or one failure, once, whatever is done to the run meanwhile."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from contextlib import nullcontext, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
from moto.s3.exceptions import S3ClientError
from moto.s3.models import S3Backend
from PIL import Image

from celebvision import cli, job, ray_session
from celebvision.batch import inventory, run
from celebvision.batch.fetch import Failure
from celebvision.batch.pipeline import Answer, ClassifyShards, _refuse_if_storage_is_at_fault
from celebvision.celeba.drawn import draw_face, messy_bucket
from celebvision.config import ClassifySettings
from celebvision.job import JobFailed, Outcome
from celebvision.models import complete_arguments, create
from celebvision.registry import Damaged, ModelVersion, load_state, promote, publish
from celebvision.storage import Store, open_store, read_table
from celebvision.storage.client import client

SMALL = {"outputs": 1, "width": 8, "depths": [1]}


def published(registry: str, seed: int) -> ModelVersion:
    """A version of `cnn` that was never trained: its answers are no good, but they are always the same."""
    torch.manual_seed(seed)
    network = create("cnn", **SMALL)
    return publish(
        registry,
        "cnn",
        state=network.state_dict(),
        architecture="cnn",
        arguments=complete_arguments("cnn", **SMALL),
        preprocessing=network.preprocessing.to_json(),
        targets=["Male"],
        classes={"Male": ("female", "male")},
        metrics={},
        data_digest="",
        code_version="",
        seed=seed,
        card="",
        samples={},
    )


@dataclass
class House:
    """A registry with two versions, the first in production."""

    registry: str
    first: ModelVersion
    second: ModelVersion


@pytest.fixture
def house(tmp_path: Path) -> House:
    registry = str(tmp_path / "registry")
    house = House(registry, published(registry, 1), published(registry, 2))
    promote(registry, "cnn", house.first.version)
    return house


@pytest.fixture
def on_ray(ray_cluster: None) -> None:
    ray_session.start()  # joins what runs, and hushes it


@pytest.fixture(scope="module")
def faces() -> list[bytes]:
    return [data for key, data in messy_bucket(19, seed=3) if key.startswith("faces/")]


def fill(uri: str, pictures: dict[str, bytes]) -> None:
    for key, data in pictures.items():
        open_store(uri).put(key, data)


def rows(output: str, kind: str, run_id: str = "") -> list[dict[str, Any]]:
    store = open_store(output)
    return [row for stat in store.list(f"{kind}/run={run_id}") for row in read_table(store, stat.key).to_pylist()]


def record(output: str) -> dict[str, Any]:
    """The `run.json` of the latest run."""
    store = open_store(output)
    latest: dict[str, Any] = json.loads(store.get(f"runs/{store.folders('runs')[-1]}/run.json"))
    return latest


def everything(store: Store) -> dict[str, str]:
    return {stat.key: stat.etag for stat in store.list()}


# One messy bucket, labelled once; several promises are looked at.

ODD = ("a b%20.jpg", "a#b?c=d&e.JPG", "😀.jpg", "../up.jpg", "a/../b.jpg", "//twice//.jpg", "k" * 996 + ".jpg")
BROKEN = {
    "bad/empty.jpg": (b"", "decode"),
    "bad/huge.png": (b"", "decode"),
    "bad/many bytes.jpg": (b"x" * 200_001, "fetch"),
    "bad/text.jpg": (b"This was never a picture.", "decode"),
    "bad/truncated.jpg": (b"", "decode"),
    "gone.jpg": (b"", "fetch"),
}


@dataclass
class Labelled:
    """What the command did, and where."""

    bucket: str
    good: list[str]
    version: ModelVersion
    words: list[str]
    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return f"{self.bucket}/labels"


@pytest.fixture(scope="module")
def labelled(ray_cluster: None, faces: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Labelled:
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

    def list_and_lose_one(*arguments: Any) -> dict[str, int]:
        counts = inventory.write_inventory(*arguments)
        open_store(here).delete("gone.jpg")
        return counts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "write_inventory", list_and_lose_one)
        return Labelled(here, sorted(good), version, words, *command([*words, "--max_failures", "5"]))


def command(words: list[str]) -> tuple[int, str, str]:
    """The command on the cluster that is there: exit status, stdout and stderr."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(ray, "shutdown", lambda: None)
        patch.setattr(job, "LINE_INTERVAL_S", 0)
        status = cli.main(words)
    return status, stdout.getvalue(), stderr.getvalue()


def test_each_key_is_exactly_once_in_results_or_failures(labelled: Labelled) -> None:
    results, failures = rows(labelled.output, "results"), rows(labelled.output, "failures")
    assert [row["key"] for row in results] == labelled.good
    assert [row["key"] for row in failures] == sorted(BROKEN)


def test_every_failure_has_its_stage_and_reason(labelled: Labelled) -> None:
    for row in rows(labelled.output, "failures"):
        assert row["stage"] == BROKEN[row["key"]][1], row
        assert row["error"], row
        assert row["message"], row


def test_every_row_says_which_model_version_and_run_made_it(labelled: Labelled) -> None:
    told = json.loads(labelled.stdout)
    for row in [*rows(labelled.output, "results"), *rows(labelled.output, "failures")]:
        assert (row["model"], row["model_version"]) == ("cnn", labelled.version.version)
        assert row["run_id"] == told["run_id"]
        assert row["etag"]


def test_every_result_has_a_label_and_how_sure_it_is(labelled: Labelled) -> None:
    results = rows(labelled.output, "results")
    assert {row["label"] for row in results} <= {"male", "female"}
    assert all(0.5 <= row["probability"] <= 1 for row in results)
    assert len({row["probability"] for row in results}) > 5


def test_the_command_tells_people_how_far_it_is_and_programs_how_it_went(labelled: Labelled) -> None:
    keys = len(labelled.good) + len(BROKEN)
    assert f"classify: {keys} of {keys} images" in labelled.stderr
    assert re.search(rf"classify: \d+ of {keys} images, [\d.]+/s, ETA \d+ s \d failed", labelled.stderr)
    (line,) = labelled.stdout.splitlines()
    told = json.loads(line)
    assert (told["keys"], told["results"], told["failures"]) == (keys, len(labelled.good), 6)
    assert (told["failures_fetch"], told["failures_decode"]) == (2, 4)
    assert told["model"] == f"cnn@{labelled.version.version}"
    assert rows(labelled.bucket, told["results_at"].removeprefix(f"{labelled.bucket}/").partition("/run=")[0])


def test_the_record_of_a_finished_run_is_true(labelled: Labelled) -> None:
    told = record(labelled.output)
    assert told["state"] == "done"
    assert told["error"] == ""
    assert told["counts"] == {"results": len(labelled.good), "failures": 6, "failures_fetch": 2, "failures_decode": 4}
    assert told["inventory"]["keys"] == len(labelled.good) + 6
    assert told["model"]["weights_sha256"] == labelled.version.weights_sha256
    assert told["config"]["shard_keys"] == 5
    assert told["seconds"] > 0
    assert not list(open_store(labelled.output).list(f"runs/{told['run_id']}/parts/"))


def test_the_exit_status_tells_of_too_many_failures_and_a_finished_run_is_left_alone(labelled: Labelled) -> None:
    assert labelled.status == 3  # six failures, five allowed
    before = everything(open_store(labelled.output))
    status, stdout, stderr = command([*labelled.words, "--max_failures", "6"])
    assert status == 0
    assert stdout == labelled.stdout
    assert "nothing new" in stderr
    assert everything(open_store(labelled.output)) == before


def test_wrong_words_give_exit_status_2_and_a_failed_job_1(labelled: Labelled, tmp_path: Path) -> None:
    status, _, stderr = command([*labelled.words, "--shard_keys", "many"])
    assert (status, "shard_keys" in stderr) == (2, True)
    status, stdout, stderr = command([*labelled.words, "--input", str(tmp_path), "--output", str(tmp_path / "labels")])
    assert (status, stdout) == (1, "")
    assert "holds no picture" in stderr


@pytest.mark.usefixtures("on_ray")
def test_an_answer_does_not_depend_on_which_pictures_share_the_batch(labelled: Labelled, tmp_path: Path) -> None:
    one, other = rows(labelled.output, "results"), str(tmp_path / "labels")
    words = [*labelled.words[1:-1], "--output", other, "--shard_keys", "1000"]
    settings = dict(zip(words[::2], words[1::2], strict=True))
    run.classify(ClassifySettings(**{name.removeprefix("--"): value for name, value in settings.items()}))
    found = {row["key"]: (row["label"], row["probability"]) for row in rows(other, "results")}
    expected = {row["key"]: (row["label"], row["probability"]) for row in one}
    assert {key: answer for key, answer in found.items() if not key.startswith("labels/")} == expected


@pytest.mark.usefixtures("on_ray")
def test_the_network_sees_batches_of_one_size_however_few_the_pictures(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # this is not the worker's own process
    here = str(tmp_path)
    settings = ClassifySettings(input=here, output=here, model="cnn", registry=house.registry, batch_size=5)
    weights = ray.put(load_state(house.registry, house.first))
    worker = ClassifyShards(settings, run._new_run(settings, house.first, "words"), house.first, weights)
    worker.classifier.probabilities = lambda images: torch.full((len(images), 1), len(images))  # type: ignore
    pictures = [np.zeros((109, 89, 3), np.uint8)] * 3
    assert worker._infer(pictures).tolist() == [[5], [5], [5]]


# Runs that are started again.


@pytest.mark.usefixtures("on_ray")
def test_a_later_run_takes_only_what_is_new_or_changed(house: House, faces: list[bytes], tmp_path: Path) -> None:
    photos, output = str(tmp_path / "photos"), str(tmp_path / "labels")
    settings = ClassifySettings(input=photos, output=output, model="cnn", registry=house.registry)
    fill(photos, {"1.jpg": faces[1], "2.jpg": faces[2], "3.jpg": faces[3], "bad.jpg": b"bad"})
    first = run.classify(settings)
    before = everything(open_store(output))
    assert run.classify(settings) == first
    assert everything(open_store(output)) == before

    fill(photos, {"2.jpg": faces[5], "0.jpg": faces[0]})
    open_store(photos).delete("3.jpg")
    later = run.classify(settings)
    assert later.summary["keys"] == 2
    assert [row["key"] for row in rows(output, "results", later.summary["run_id"])] == ["0.jpg", "2.jpg"]
    assert everything(open_store(output)).items() >= before.items()
    assert run.classify(settings) == later


class Refused(S3ClientError):
    code = 403

    def __init__(self) -> None:
        super().__init__("AccessDenied", "Access Denied")


@pytest.mark.usefixtures("on_ray")
def test_a_run_that_storage_failed_goes_on_with_its_own_model_and_without_doing_anything_twice(
    house: House, bucket: str, faces: list[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    photos, output = f"{bucket}/photos", f"{bucket}/labels"
    fill(photos, {f"{number:02}.jpg": face for number, face in enumerate(faces)})
    settings = ClassifySettings(input=photos, output=output, model="cnn", registry=house.registry, shard_keys=6)
    names = [f"photos/{number:02}.jpg" for number in range(12)]
    honest = S3Backend.get_object

    def refuse_the_second_shard(self: S3Backend, bucket_name: str, key_name: str, *arguments: Any, **words: Any) -> Any:
        if key_name in names[6:]:
            wait_until(lambda: any("parts/part-00000" in key for key in self.get_bucket(bucket_name).keys))
            raise Refused
        return honest(self, bucket_name, key_name, *arguments, **words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Backend, "get_object", refuse_the_second_shard)
        with pytest.raises(JobFailed, match="access is refused"):
            run.classify(settings)
    failed = record(output)
    assert failed["state"] == "failed"
    assert "access is refused" in failed["error"]
    assert rows(output, "results") == []
    promote(house.registry, "cnn", house.second.version)
    parts = {key: etag for key, etag in everything(open_store(output)).items() if "/parts/" in key}
    assert len(parts) == 1

    capfd.readouterr()
    outcome = run.classify(settings)
    assert "classify: 6 of 6 images" in capfd.readouterr().err
    results = rows(output, "results")
    assert [row["key"] for row in results] == names
    assert {row["model_version"] for row in results} == {house.first.version}
    done = record(output)
    assert (done["run_id"], done["state"], done["error"]) == (failed["run_id"], "done", "")
    assert done["counts"] == {"results": 12, "failures": 0}
    assert done["seconds"] > failed["seconds"]
    assert outcome == Outcome(outcome.summary, 0)

    anew = run.classify(settings)  # production has moved: labels anew
    results = rows(output, "results", anew.summary["run_id"])
    assert [row["key"] for row in results] == names
    assert {row["model_version"] for row in results} == {house.second.version}
    promote(house.registry, "cnn", house.first.version)
    assert run.classify(settings) == outcome  # and back: that is all done


@pytest.mark.parametrize(
    ("denied", "lost", "deleted", "of", "is_at_fault"),
    [
        (20, 0, 0, 20, True),
        (19, 0, 0, 20, False),
        (19, 0, 1, 20, False),
        (1, 0, 0, 1, False),
        (2, 0, 0, 2, True),
        (1, 1, 0, 2, True),
        (0, 3, 0, 20, False),
        (0, 4, 0, 20, True),
        (0, 20, 0, 200, False),
        (0, 21, 0, 200, True),
        (0, 0, 20, 20, False),
    ],
)
def test_a_shard_fails_for_the_storage_not_for_a_picture_or_two(
    denied: int, lost: int, deleted: int, of: int, is_at_fault: bool
) -> None:
    kinds = ["Denied"] * denied + ["Unreachable", "Throttled"] * (lost // 2) + ["Unreachable"] * (lost % 2)
    failures = [Failure("fetch", kind, "the reason") for kind in [*kinds, *["NotFound"] * deleted]]
    outcomes: list[Answer] = [*failures, *[np.zeros(1, np.float32)] * (of - len(failures))]
    with pytest.raises(JobFailed, match="the reason") if is_at_fault else nullcontext():
        _refuse_if_storage_is_at_fault(outcomes, of=of)


@pytest.mark.usefixtures("on_ray")
def test_a_listing_that_was_cut_off_is_done_anew(
    house: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, output = str(tmp_path / "photos"), str(tmp_path / "labels")
    settings = ClassifySettings(input=photos, output=output, model="cnn", registry=house.registry, shard_keys=2)
    fill(photos, {f"{number}.jpg": face for number, face in enumerate(faces[:5])})

    def cut_off(store: Store, key: str, table: Any) -> None:
        write(store, key, table)
        if key.endswith("part-00001.parquet"):
            raise KeyboardInterrupt

    write = inventory.write_table
    with monkeypatch.context() as patch:
        patch.setattr(inventory, "write_table", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run.classify(settings)
    assert record(output)["state"] == "listing"
    for gone in ("0.jpg", "1.jpg"):
        open_store(photos).delete(gone)
    outcome = run.classify(settings.model_copy(update={"shard_keys": 1000}))
    assert outcome.summary["keys"] == 3
    assert [row["key"] for row in rows(output, "results")] == ["2.jpg", "3.jpg", "4.jpg"]
    assert record(output)["inventory"]["shards"] == len(open_store(output).folders("runs")) == 1


@pytest.mark.usefixtures("s3_endpoint")
def test_an_empty_input_is_refused_and_leaves_nothing(house: House, tmp_path: Path) -> None:
    photos, output = str(tmp_path / "photos"), str(tmp_path / "labels")
    fill(photos, {"notes.txt": b"no picture"})
    settings = ClassifySettings(input=photos, output=output, model="cnn", registry=house.registry)
    for _ in range(2):
        with pytest.raises(JobFailed, match=r"photos: holds no picture .*\.jpg"):
            run.classify(settings)
        assert everything(open_store(output)) == {}


def test_a_listing_cut_off_and_then_found_empty_leaves_nothing(
    house: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, output = str(tmp_path / "photos"), str(tmp_path / "labels")
    settings = ClassifySettings(input=photos, output=output, model="cnn", registry=house.registry)
    fill(photos, {"a.jpg": faces[0]})

    def cut_off(*arguments: Any) -> dict[str, int]:
        inventory.write_inventory(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "write_inventory", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run.classify(settings)
    open_store(photos).delete("a.jpg")
    with pytest.raises(JobFailed, match="holds no picture"):
        run.classify(settings)
    assert everything(open_store(output)) == {}


def test_a_damaged_model_is_refused_before_any_work(house: House, faces: list[bytes], tmp_path: Path) -> None:
    photos, output = str(tmp_path / "photos"), str(tmp_path / "labels")
    fill(photos, {"a.jpg": faces[0]})
    weights = f"cnn/{house.first.version}/model.safetensors"
    open_store(house.registry).put(weights, open_store(house.registry).get(weights)[:-1])
    with pytest.raises(Damaged, match="torn or altered"):
        run.classify(ClassifySettings(input=photos, output=output, model="cnn", registry=house.registry))
    assert everything(open_store(output)) == {}


# The command itself, killed.


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some hundred photos, large enough to take a while."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(8):
        picture = draw_face(np.random.default_rng(number), {}, size=(712, 872)).resize((2136, 2616))
        picture.save(folder / f"{number:03}.jpg", quality=92)
    for number in range(8, 240):
        (folder / f"{number:03}.jpg").write_bytes((folder / f"{number % 8:03}.jpg").read_bytes())
    (folder / "bad.jpg").write_bytes(b"bad")
    return folder


def test_a_run_whose_driver_was_killed_is_continued_and_nothing_is_done_twice(
    house: House, many_photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "labels"
    words = [str(Path(sys.executable).parent / "celebvision"), "classify", "--input", str(many_photos)]
    words += ["--output", str(output), "--registry", house.registry, "--model", "cnn", "--shard_keys", "10", "--json"]
    mark = uuid.uuid4().hex
    environment = os.environ | {"CELEBVISION_TEST_MARK": mark}

    killed = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(list(output.glob("runs/*/parts/*.parquet"))) >= 2, timeout_s=200)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        for process in processes_with(mark):  # without their driver most of Ray's end by themselves, but not all
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    wait_until(lambda: not processes_with(mark))
    before = {part: part.stat().st_mtime_ns for part in output.glob("runs/*/parts/*.parquet")}
    assert 2 <= len(before) < 25, "the kill came too late to show anything"
    assert json.loads(next(output.glob("runs/*/run.json")).read_text())["state"] == "running"
    assert not (output / "results").exists()
    for file in output.rglob("*.parquet"):
        pq.read_table(file)  # whole

    again = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = {part: {time_ns} for part, time_ns in before.items()}
    while again.poll() is None:
        for part in before:
            seen[part] |= {part.stat().st_mtime_ns} if part.exists() else set()
        time.sleep(0.05)
    stdout, stderr = again.communicate()
    assert again.returncode == 0, stderr
    assert seen == {part: {time_ns} for part, time_ns in before.items()}
    left = 241 - 10 * len(before) + (9 if any("00024" in part.name for part in before) else 0)
    assert f"classify: {left} of {left} images" in stderr
    told = json.loads(stdout)
    assert (told["keys"], told["results"], told["failures"]) == (241, 240, 1)
    assert [row["key"] for row in rows(str(output), "results")] == [f"{number:03}.jpg" for number in range(240)]
    assert [row["key"] for row in rows(str(output), "failures")] == ["bad.jpg"]
    (told,) = [json.loads(file.read_text()) for file in output.glob("runs/*/run.json")]
    assert (told["state"], told["counts"]) == ("done", {"results": 240, "failures": 1, "failures_decode": 1})


def processes_with(mark: str) -> list[int]:
    """Processes whose environment holds `mark`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # ended meanwhile
    return found


def wait_until(happened: Any, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
