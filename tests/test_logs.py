"""What a job says: to people, and as JSON; and of failures no more than somebody can read."""

import json
import logging
from collections.abc import Iterator
from typing import Any, cast

import pytest

from celebvision import logs
from celebvision.cli import main
from celebvision.logs import FailureLog, about, configure, say


@pytest.fixture
def said_as_json(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    configure(as_json=True)
    yield
    configure(as_json=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets: its only element is the time in seconds."""
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    return now


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_people_read_words(capsys: pytest.CaptureFixture[str]) -> None:
    configure(as_json=False)
    say("measuring on [bold]2[/bold] of 9 keys :smile:")
    say("the generator gives always the same", logging.WARNING)
    logging.getLogger("celebvision.lease").warning("somebody else has it")
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "measuring on [bold]2[/bold] of 9 keys :smile:"
    assert second == "warning: the generator gives always the same"
    assert third.endswith(" WARNING somebody else has it")


def test_a_machine_reads_json_with_the_job_in_each_line(said_as_json: None, capsys: pytest.CaptureFixture[str]) -> None:
    with about(verb="classify", run_id="20260131T070000Z-0a1b2c3d"):
        say("classify: 5 of 9 images", done=5.0, total=9.0)
        FailureLog().tell({"fetch NotFound": 3}, {"fetch NotFound": ("a\nb\x1b[31m.jpg", "there is no such object")})
    logging.getLogger("botocore").warning("a key has\ngone")
    progress, failure, other = lines(capsys)
    job = {"verb": "classify", "run_id": "20260131T070000Z-0a1b2c3d"}
    assert progress.items() >= {"level": "INFO", "message": "classify: 5 of 9 images", "done": 5.0, **job}.items()
    assert failure.items() >= {"level": "WARNING", "stage": "fetch", "reason": "NotFound", "count": 3, **job}.items()
    assert failure["key"] == "a\nb\x1b[31m.jpg"  # JSON itself escapes it
    assert failure["message"] == r"fetch: NotFound: a\nb\x1b[31m.jpg: there is no such object (and 2 more)"
    assert other["message"] == "a key has\ngone"
    assert "run_id" not in other


def test_a_kind_of_failure_has_a_line_each_interval_and_each_failure_is_in_one(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    failures = FailureLog()
    for now in range(0, 200, 10):
        clock[0] = now
        failures.tell({"decode UndecodableImage": 2}, {"decode UndecodableImage": (f"{now}.jpg", "is truncated")})
    clock[0] = 5
    failures.tell({"fetch NotFound": 1}, {"fetch NotFound": ("other.jpg", "is gone")})
    failures.rest()
    assert [record.message for record in caplog.records] == [
        "decode: UndecodableImage: 0.jpg: is truncated (and 1 more)",
        "decode: UndecodableImage: 60.jpg: is truncated (and 11 more)",
        "decode: UndecodableImage: 120.jpg: is truncated (and 11 more)",
        "decode: UndecodableImage: 180.jpg: is truncated (and 11 more)",
        "fetch: NotFound: other.jpg: is gone",
        "decode: UndecodableImage: 190.jpg: is truncated (and 1 more)",
    ]


def test_what_storage_says_again_and_again_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure(as_json=False)
    log = logging.getLogger("celebvision.storage.client")
    for attempt in range(3, 9):
        log.warning("attempt %d of 10: SlowDown", attempt, extra={"kind": "Throttled"})
        log.warning("attempt %d of 10: reset", attempt, extra={"kind": "Unreachable"})
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_key_of_any_length_is_one_short_line() -> None:
    assert logs.printable(5000 * "k") == logs.SHOWN * "k" + "…"
    assert logs.printable("\u202egpj.\r") == r"\u202egpj.\r"


def test_a_failed_command_says_so_in_json(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    try:
        assert main(["cluster", "status", "--folder", f"{tmp_path}/none", "--log_json"]) == 1
    finally:
        configure(as_json=False)
    (line,) = lines(capsys)
    assert line["level"] == "ERROR"
    assert str(line["message"]).startswith("celebvision cluster: ")


def test_a_log_group_counts_failures_by_lines_in_the_embedded_metric_format(capsys: pytest.CaptureFixture[str]) -> None:
    configure(as_json=True, namespace="CelebVision")
    try:
        with about(verb="classify", model="cnn", output="s3://photos/ü", run_id="one"):
            FailureLog().tell({"fetch NotFound": 3}, {"fetch NotFound": ("a.jpg", "there is no such object")})
            say("classify: 5 of 9 images", done=5.0, total=9.0)
    finally:
        configure(as_json=False)
    failure, progress = lines(capsys)
    told = cast("dict[str, Any]", failure["_aws"])
    (metrics,) = told["CloudWatchMetrics"]
    assert metrics["Namespace"] == "CelebVision"
    assert isinstance(told["Timestamp"], int)
    # As its specification says: what is named stands at the root, dimensions as words and metrics as numbers.
    for dimensions in metrics["Dimensions"]:
        assert 0 < len(dimensions) <= 30
        assert all(isinstance(failure[name], str) for name in dimensions)
    assert [(one["Name"], one["Unit"], failure[one["Name"]]) for one in metrics["Metrics"]] == [
        ("celebvision_failures_total", "Count", 3)
    ]
    assert "_aws" not in progress
