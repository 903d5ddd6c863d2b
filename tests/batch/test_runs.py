"""`runs` shows what ran on an output, and how it stands."""

import json

import pytest
from labelling import command

from celebvision.batch.record import LEASE, Run
from celebvision.batch.runs import runs
from celebvision.config import RunsSettings
from celebvision.job import JobFailed
from celebvision.lease import lease
from celebvision.storage import Store, open_store


@pytest.fixture
def output(bucket: str) -> Store:
    return open_store(f"{bucket}/labels")


def save(output: Store, run_id: str, state: str, **others: object) -> None:
    model = {"name": "cnn", "version": "1", "weights_sha256": ""}
    words = {"verb": "classify", "created": "", "config": {}, "model": model, "code_version": ""}
    words |= {"inventory": {"keys": 100}, "whole": True}
    Run(run_id=run_id, state=state, **words | others).save(output)  # type: ignore


def shown(output: Store) -> list[dict[str, object]]:
    status, stdout, _ = command(["runs", "--output", output.uri, "--json"])
    assert status == 0
    rows: list[dict[str, object]] = json.loads(stdout)["runs"]
    return rows


def test_every_run_is_shown_with_its_state_counts_rate_and_eta(output: Store) -> None:
    save(output, "1-words", "done", counts={"results": 98, "failures": 2}, seconds=50.0)
    save(output, "2-words", "running", counts={"results": 19, "failures": 1}, seconds=10.0, retry="failures")
    with lease(output, LEASE):
        done, running = shown(output)
    assert (done["run_id"], done["state"], done["results"], done["failures"]) == ("1-words", "done", 98, 2)
    assert (done["images_per_s"], done["eta_s"]) == (2.0, None)
    assert (running["state"], running["verb"], running["images_per_s"]) == ("running", "classify --retry failures", 2.0)
    assert running["eta_s"] == 40  # 80 keys at 2 a second


def test_while_the_rest_is_listed_the_keys_so_far_are_shown_and_no_time_that_is_left(output: Store) -> None:
    save(output, "1-words", "running", whole=False, counts={"results": 19, "failures": 1}, seconds=10.0)
    with lease(output, LEASE):
        (running,) = shown(output)
    assert (running["state"], running["keys"], running["images_per_s"]) == ("running", 100, 2.0)
    assert running["eta_s"] is None


def test_a_run_that_nobody_works_on_is_shown_as_stopped(output: Store) -> None:
    save(output, "1-words", "running", counts={"results": 10, "failures": 0}, seconds=10.0)
    save(output, "2-words", "failed", error="access is refused")
    stopped, failed = shown(output)
    assert (stopped["state"], stopped["eta_s"]) == ("stopped", None)
    assert (failed["state"], failed["error"]) == ("failed", "access is refused")


def test_people_get_a_table(output: Store, capfd: pytest.CaptureFixture[str]) -> None:
    save(output, "1-words", "interrupted")
    runs(RunsSettings(output=output.uri))
    told = capfd.readouterr().err
    assert "images_per_s" in told
    assert "interrupted" in told


def test_where_nothing_ran_it_says_so(output: Store) -> None:
    with pytest.raises(JobFailed, match="no run; give the --output of classify"):
        runs(RunsSettings(output=output.uri))
