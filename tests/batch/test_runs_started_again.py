"""Runs that are started again: they go on, do nothing twice, and take what is new, changed or failed."""

import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labelling import House, Refused, everything, fill, record, rows, wait_until
from moto.s3.models import S3Backend

from celebvision.batch import inventory, run
from celebvision.batch.fetch import Answer, Failure
from celebvision.batch.pipeline import refuse_if_storage_is_at_fault
from celebvision.config import ClassifySettings
from celebvision.job import JobFailed, Outcome
from celebvision.registry import Damaged, promote
from celebvision.storage import StorageError, Store, open_store


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
            wait_until(lambda: any("parts/part-00000" in key for key in self.get_bucket(bucket_name).keys), 120)
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
    outcomes: list[Answer] = [*failures, *[{}] * (of - len(failures))]
    with pytest.raises(JobFailed, match="the reason") if is_at_fault else nullcontext():
        refuse_if_storage_is_at_fault(outcomes, of=of)


@pytest.mark.usefixtures("on_ray")
def test_a_listing_that_was_cut_off_goes_on_behind_its_last_shard(
    house: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, output = str(tmp_path / "photos"), str(tmp_path / "labels")
    settings = ClassifySettings(input=photos, output=output, model="cnn", registry=house.registry, shard_keys=2)
    fill(photos, {f"{number}.jpg": face for number, face in enumerate(faces[:5])})

    def cut_off(store: Store, key: str, table: Any) -> None:
        if key.endswith("part-00002.parquet"):
            raise StorageError("the cable was pulled")
        write(store, key, table)

    write, spread = inventory.write_table, run.Spread.of
    with monkeypatch.context() as patch:
        patch.setattr(inventory, "write_table", cut_off)
        patch.setattr(run.Spread, "of", lambda settings, shards: replace(spread(settings, shards), actors=9))
        with pytest.raises(StorageError, match="the cable was pulled"):
            run.classify(settings)
    assert (record(output)["state"], record(output)["error"]) == ("listing", "the cable was pulled")
    open_store(photos).delete("0.jpg")
    fill(photos, {"00.jpg": faces[0], "3a.jpg": faces[0], "5.jpg": faces[0], "6.jpg": faces[0]})
    outcome = run.classify(settings.model_copy(update={"shard_keys": 1000}))
    assert (outcome.summary["keys"], outcome.failures) == (8, 1)
    listed = [f"{number}.jpg" for number in range(7)]  # 00.jpg lies before what had been listed
    assert [row["key"] for row in rows(output, "results")] == [*listed[1:4], "3a.jpg", *listed[4:]]
    assert [row["key"] for row in rows(output, "failures")] == ["0.jpg"]
    assert record(output)["inventory"]["shards"] == 4
    assert len(open_store(output).folders("runs")) == 1


@pytest.mark.usefixtures("s3_endpoint")
def test_an_empty_input_is_refused_and_leaves_nothing(house: House, tmp_path: Path) -> None:
    photos, output = str(tmp_path / "photos"), str(tmp_path / "labels")
    fill(photos, {"notes.txt": b"no picture"})
    settings = ClassifySettings(input=photos, output=output, model="cnn", registry=house.registry)
    for _ in range(2):
        with pytest.raises(JobFailed, match=r"photos: holds no picture .*\.jpg"):
            run.classify(settings)
        assert everything(open_store(output)) == {}


def test_a_listing_cut_off_before_its_first_shard_and_then_found_empty_leaves_nothing(
    house: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, output = str(tmp_path / "photos"), str(tmp_path / "labels")
    settings = ClassifySettings(input=photos, output=output, model="cnn", registry=house.registry)
    fill(photos, {"a.jpg": faces[0]})

    def cut_off(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        raise StorageError("the cable was pulled")

    with monkeypatch.context() as patch:
        patch.setattr(inventory, "write_table", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run.classify(settings)
    assert record(output)["state"] == "listing"
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


# Failures that are retried.


def settings_for(house: House, tmp_path: Path, **others: Any) -> ClassifySettings:
    photos, output = str(tmp_path / "photos"), str(tmp_path / "labels")
    return ClassifySettings(input=photos, output=output, model="cnn", registry=house.registry, **others)


@pytest.mark.usefixtures("on_ray")
def test_retry_does_the_failures_and_nothing_else(house: House, faces: list[bytes], tmp_path: Path) -> None:
    settings = settings_for(house, tmp_path)
    fill(settings.input, {"good.jpg": faces[0], "mended.jpg": b"bad", "still.jpg": b"bad", "gone.jpg": b"bad"})
    first = run.classify(settings)
    assert first.failures == 3
    fill(settings.input, {"mended.jpg": faces[1], "new.jpg": faces[2]})
    open_store(settings.input).delete("gone.jpg")

    retried = run.classify(settings.model_copy(update={"retry": "failures"}))
    assert (retried.summary["keys"], retried.failures) == (2, 1)
    assert [row["key"] for row in rows(settings.output, "results", retried.summary["run_id"])] == ["mended.jpg"]
    assert [row["key"] for row in rows(settings.output, "failures", retried.summary["run_id"])] == ["still.jpg"]
    assert record(settings.output)["retry"] == "failures"

    again = run.classify(settings.model_copy(update={"retry": "failures"}))
    assert (again.summary["keys"], again.failures) == (1, 1)  # what was mended is not done again
    later = run.classify(settings)
    assert later.summary["keys"] == 1  # the new one
    assert [row["key"] for row in rows(settings.output, "results", later.summary["run_id"])] == ["new.jpg"]


@pytest.mark.usefixtures("on_ray")
def test_where_nothing_failed_there_is_nothing_to_retry(
    house: House, faces: list[bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(house, tmp_path)
    retry = settings.model_copy(update={"retry": "failures"})
    fill(settings.input, {"good.jpg": faces[0]})
    with pytest.raises(JobFailed, match=r"no run .* is done"):
        run.classify(retry)
    first = run.classify(settings)
    assert run.classify(retry) == first
    assert "no failure to retry" in capfd.readouterr().err


def test_failures_are_retried_when_the_run_is_done_and_not_before(
    house: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(house, tmp_path)
    fill(settings.input, {"good.jpg": faces[0]})

    def cut_off(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_work", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run.classify(settings)
    with pytest.raises(JobFailed, match="is not done; the same command without --retry continues it"):
        run.classify(settings.model_copy(update={"retry": "failures"}))
