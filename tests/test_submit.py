"""What is sent to a cluster, what is refused before, and how a job's log is followed."""

import io
import json
import platform
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.job_submission import JobDetails, JobStatus

from celebvision import cli, config
from celebvision.config import SubmitSettings
from celebvision.job import JobFailed
from celebvision.storage import open_store
from celebvision.submit import package, run
from celebvision.submit.cluster import connect
from celebvision.submit.follow import exit_status, follow
from celebvision.submit.places import Place, places, sent
from celebvision.submit.probe import look

NOWHERE = "http://127.0.0.1:1"
JOB = "--input s3://photos/new --output s3://labels --model cnn --registry models"


def submit_settings(verb: str, words: str) -> SubmitSettings:
    return SubmitSettings(address=NOWHERE, verb=verb, words=words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["classify", "--", "--input", "a"], "output: is missing; give --output"),
        (["classify", "--", "--imput", "a"], "--imput: there is no such setting; did you mean --input?"),
        (["paint", "--"], "verb: 'paint' is refused"),
        (["runs", "--", "--output", "a"], "verb: 'runs' is refused"),
        (["--", "--input", "a"], "of which verb?"),
        (["classify", "--stop", "x", "--", *JOB.split()], "verb, stop: give one of them"),
        (["classify", "--env", "HOME,AWS_SECRET_ACCESS_KEY", "--", *JOB.split()], "looks like a secret"),
        (["classify", "--env", "MY_token", "--", *JOB.split()], "looks like a secret"),
        (["classify", "--env", "CELEBVISION_WEBHOOK_URL", "--", *JOB.split()], "looks like a secret"),
    ],
)
def test_wrong_words_are_told_before_anybody_is_asked(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    at = words.index("--")
    assert cli.main(["submit", *words[:at], "--address", NOWHERE, *words[at:]]) == 2
    assert told in capsys.readouterr().err


def test_nobody_at_the_address_is_told_with_a_way_to_get_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["submit", "classify", "--address", NOWHERE, "--", *JOB.split()]) == 1
    assert f"{NOWHERE}: no cluster answers" in capsys.readouterr().err


def test_words_arrive_as_they_were_whatever_is_in_them() -> None:
    verb = cli.VERBS["submit"]
    words = ["classify", "--address", NOWHERE, "--", *JOB.split(), "--glob", 'it\'s "a", [b] $c/*']
    settings = config.parse(SubmitSettings, cli._with_flags(verb, words), "submit")
    assert settings.job().model_dump()["glob"] == 'it\'s "a", [b] $c/*'


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("classify", f"{JOB} --modified_since 2026-01-31T00:00:00Z --max_failures 3 --json"),
        ("stylize", f"{JOB} --style s3://b/a.jpg,s3://b/b.jpg --size 64 --gatys.optimizer adam"),
        ("train", '--data s3://d --registry s3://r --phases \'[{"epochs": 2, "learning_rate": 0.1}]\''),
        ("evaluate", "--model cnn,vgg --registry s3://r --data s3://d --output s3://o --style s3://b/a.jpg"),
    ],
)
def test_what_is_sent_is_read_there_as_the_same_job(verb: str, words: str, tmp_path: Path) -> None:
    job = submit_settings(verb, words.replace("--registry models", "--registry s3://models")).job()
    package.fill(tmp_path, sent(job), places(verb, job), None, with_code=False)
    read = config.parse(config.JOBS[verb], ["--config", str(tmp_path / package.JOB)], verb)
    assert read == job
    assert read.model_fields_set == job.model_fields_set


def test_places_are_those_of_the_settings_from_the_root_on() -> None:
    found = set(places("classify", submit_settings("classify", JOB).job()))
    here = str(Path("models").absolute())
    assert found == {
        Place("input", "s3://photos/new", False),
        Place("output", "s3://labels", True),
        Place("registry", here, False),
    }
    assert sent(submit_settings("classify", JOB).job())["registry"] == here
    train = submit_settings("train", "--data s3://d --registry s3://r --weights s3://w/net.safetensors").job()
    assert Place("registry", "s3://r", True) in places("train", train)
    assert Place("weights", "s3://w/net.safetensors", False) in places("train", train)
    plan = submit_settings("plan", JOB).job()
    assert not any(place.writes for place in places("plan", plan))


def test_the_code_goes_with_the_settings_and_too_much_of_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = package.fill(tmp_path, {"input": "s3://ü"}, [], 2, with_code=True)
    assert size < package.MAX_BYTES / 4
    assert yaml.safe_load((tmp_path / package.JOB).read_text()) == {"input": "s3://ü"}
    assert json.loads((tmp_path / package.PROBE).read_text()) == {"places": [], "gpus": 2}
    assert (tmp_path / "celebvision" / "__main__.py").exists()
    assert not list(tmp_path.rglob("__pycache__"))
    monkeypatch.setattr(package, "MAX_BYTES", size // 2)
    (tmp_path / "again").mkdir()
    with pytest.raises(JobFailed, match=r"its largest file is celebvision/.*: move it out"):
        package.fill(tmp_path / "again", {}, [], None, with_code=True)


def test_the_probe_tells_of_each_place_and_leaves_nothing(bucket: str, tmp_path: Path) -> None:
    open_store(bucket).put("photos/a.jpg", b"x")
    fine = [("input", f"{bucket}/photos", False), ("output", f"{bucket}/labels", True)]
    fine += [("style", f"{bucket}/photos/a.jpg", False), ("registry", str(tmp_path), False)]
    assert look([Place(*place) for place in fine]) == []
    assert [stat.key for stat in open_store(bucket).list()] == ["photos/a.jpg"]
    missing = [Place("input", f"{bucket}-not", False), Place("output", f"{bucket}-not", True)]
    missing.append(Place("registry", f"{tmp_path}/not", False))
    told = look(missing)
    assert [problem.partition(":")[0] for problem in told] == ["input", "output", "registry"]


class Job:
    """A client of a job whose log comes in pieces, over a connection that drops before the last of them."""

    def __init__(self, pieces: list[str]) -> None:
        self.pieces, self.connections = pieces, 0

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        self.connections += 1
        for piece in self.pieces[: self.connections]:
            yield piece
        if self.connections < len(self.pieces):
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")

    def get_job_info(self, _: str) -> JobDetails:
        return ended(JobStatus.FAILED, 3)

    def get_job_logs(self, _: str) -> str:
        return "".join(self.pieces) + "last\n"


def ended(status: JobStatus, code: int | None) -> JobDetails:
    return JobDetails(type="SUBMISSION", entrypoint="", status=status, driver_exit_code=code)


def test_a_connection_that_drops_repeats_no_line_and_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celebvision.submit.follow.AGAIN_S", 0)
    stream, job = io.StringIO(), Job(["one\ntw", "o\n", "three\n"])
    details = follow(job, "id", stream)  # type: ignore[arg-type]
    assert stream.getvalue() == "one\ntwo\nthree\nlast\n"
    assert job.connections == 3
    assert exit_status(details) == 3


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 2, 2),
        (JobStatus.FAILED, None, 1),
        (JobStatus.STOPPED, None, 130),
    ],
)
def test_submit_ends_as_the_job_did(status: JobStatus, code: int | None, expected: int) -> None:
    assert exit_status(ended(status, code)) == expected


@contextmanager
def dashboard(ray_version: str, python_version: str) -> Iterator[str]:
    """The address of what answers as a cluster of these versions does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = {"rayVersion": ray_version, "pythonVersion": python_version}
            body = json.dumps({"version": "4", "ray_version": ray_version, "ray_commit": "0", "data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any, **words: Any) -> None:
            """Nothing: the tests look at what is told."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("ray_version", "python_version", "told"),
    [
        ("2.59.0", platform.python_version(), f"the cluster runs Ray 2.59.0, and this command {ray.__version__}"),
        (ray.__version__, "3.12.1", "the cluster runs Python 3.12, and this command 3.11"),
    ],
)
def test_a_cluster_of_another_version_is_refused(ray_version: str, python_version: str, told: str) -> None:
    with dashboard(ray_version, python_version) as address, pytest.raises(JobFailed, match=told):
        connect(address)


def test_ctrl_c_lets_go_of_a_job_and_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> JobDetails:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "follow", interrupted)
    outcome = run._until_it_ends(
        submit_settings("classify", JOB),
        Job([]),  # type: ignore[arg-type] # which has no call to stop it
        "celebvision-classify-1",
        io.StringIO(),
    )
    assert outcome.status == 130
    assert outcome.summary["logs"] == f"celebvision submit --address {NOWHERE} --logs celebvision-classify-1"
    assert "the job goes on" in capsys.readouterr().err


def test_of_two_submissions_at_once_one_is_told_of_the_other() -> None:
    class Quicker:
        def submit_job(self, **_: object) -> None:
            raise RuntimeError("Request failed: Job with submission_id celebvision-classify-1 already exists.")

    with pytest.raises(JobFailed, match=r"runs already; follow it by `celebvision submit .* --logs"):
        run._start(submit_settings("classify", JOB), Quicker(), "", "celebvision-classify-1", {})  # type: ignore[arg-type]


def test_a_variable_that_is_to_go_along_is_there_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "value")
    assert run._value("OURS") == "value"
    monkeypatch.delenv("OURS")
    with pytest.raises(JobFailed, match=r"env: OURS is not set here"):
        run._value("OURS")
