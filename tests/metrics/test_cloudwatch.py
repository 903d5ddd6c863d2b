"""CloudWatch is told the key figures within its limits, and harms no job where it refuses, is slow or is not there."""

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from celebvision.config import WatchedSettings
from celebvision.metrics import Figures, names, telling
from celebvision.metrics.cloudwatch import A_CALL, JUDGED, CloudWatch, dimension
from celebvision.metrics.names import LOSSES, METRICS, OUTCOMES, STAGES, VALIDATED

NAMESPACE = "CelebVision"


class Told:
    """Takes what CloudWatch would take, as its documents limit it; moto takes anything."""

    def __init__(self) -> None:
        self.data: list[dict[str, Any]] = []
        self.refuses = False

    def put_metric_data(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> None:  # noqa: N803 (AWS's names)
        if self.refuses:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutMetricData")
        assert Namespace == NAMESPACE
        assert 0 < len(MetricData) <= 1000
        for datum in MetricData:
            assert len(datum["Dimensions"]) <= 30
            for one in datum["Dimensions"]:
                assert re.fullmatch(r"[^:][\x20-\x7e]{0,254}", one["Name"])
                assert re.fullmatch(r"[\x20-\x7e]{1,1024}", one["Value"])
                assert one["Value"].strip()
            assert abs(datum["Value"]) <= 2**360
        self.data = MetricData

    def values(self, **labels: str) -> dict[str, float]:
        """Of exactly these labels."""
        return {
            datum["MetricName"]: datum["Value"]
            for datum in self.data
            if {one["Name"]: one["Value"] for one in datum["Dimensions"]} == labels
        }


JOB = {"verb": "classify", "model": "cnn", "output": "s3://photos/labels"}


@pytest.fixture
def figures() -> Figures:
    made = Figures(**JOB)
    made.set_one(names.STATE, "running")
    made.set(names.MOVED, time.time() - 700)
    made.set(names.ENDED, 0.0)
    made.set(names.DEADLINE, time.time() + 100)
    made.set(names.ETA, 160.0)
    made.set(names.RATE, 2.5)
    return made


def sent(figures: Figures) -> tuple[CloudWatch, Told]:
    sink, told = CloudWatch(NAMESPACE, figures), Told()
    sink.client = told
    assert sink.send() == ""
    return sink, told


def test_alarms_get_what_they_watch_of_the_worst_job_and_of_each(figures: Figures) -> None:
    figures.add(names.IMAGES, 90, stage="fetch", outcome="ok")
    figures.add(names.IMAGES, 10, stage="fetch", outcome="failed")
    figures.add(names.FAILURES, 10, stage="fetch", reason="NotFound")
    figures.add(names.FAILURES, 5, stage="decode", reason="UndecodableImage")
    figures.add(names.RETRIES, 20, reason="Throttled")
    figures.set(names.BUSY, 0.1)
    figures.set(names.QUEUE, 9)
    figures.set(names.WORKERS, 2)
    figures.set(names.LOSS, float("nan"), loss="generator")
    figures.set(names.LOSS, 0.5, loss="cycle")
    figures.set(names.WARNINGS, 3)
    _, told = sent(figures)
    judged = told.values()
    assert judged.keys() == JUDGED.keys()
    assert {name: value for name, value in told.values(**JOB).items() if name in JUDGED} == judged
    assert judged.pop("celebvision_job_idle_seconds") == pytest.approx(700, abs=5)
    assert judged.pop("celebvision_job_late_seconds") == pytest.approx(60, abs=5)
    assert {name.removeprefix("celebvision_"): value for name, value in judged.items()} == {
        "job_failed": 0,
        "failure_ratio": 0.15,
        "throttled_ratio": 0.2,
        "accelerator_idle_ratio": 0.9,
        "losses_not_finite": 1,
        "training_warnings": 3,
    }
    assert told.values(**JOB)["celebvision_images_per_second"] == 2.5
    assert "celebvision_loss" not in told.values(**JOB, loss="generator"), "NaN is no value of CloudWatch's"


def test_a_job_of_which_storage_turns_all_away_is_throttled(figures: Figures) -> None:
    _, told = sent(figures)
    assert "celebvision_throttled_ratio" not in told.values(), "nothing was asked for"
    figures.add(names.RETRIES, 7, reason="Throttled")
    _, told = sent(figures)
    assert told.values()["celebvision_throttled_ratio"] == 7


def test_a_job_that_has_ended_is_neither_idle_nor_late(figures: Figures) -> None:
    figures.set(names.ENDED, time.time())
    figures.set_one(names.STATE, "failed")
    _, told = sent(figures)
    assert told.values() == {"celebvision_job_failed": 1}


def test_counters_are_sent_as_what_came_and_nothing_is_lost_by_a_refusal(figures: Figures) -> None:
    figures.add(names.IMAGES, 100, stage="write", outcome="ok")
    sink, told = sent(figures)
    written = {**JOB, "stage": "write", "outcome": "ok"}
    assert told.values(**written) == {"celebvision_images_total": 100}
    figures.add(names.IMAGES, 30, stage="write", outcome="ok")
    told.refuses = True
    assert sink.send().startswith("cloudwatch: CelebVision did not take the job's figures: ")
    told.refuses = False
    figures.add(names.IMAGES, 20, stage="write", outcome="ok")
    assert sink.send() == ""
    assert told.values(**written) == {"celebvision_images_total": 50}


def test_all_that_a_job_can_tell_is_one_call(figures: Figures) -> None:
    for metric in METRICS.values():
        if metric.kind == "gauge" and set(metric.labels) <= {"loss", "figure"} and metric is not names.ENDED:
            for label in (*LOSSES, *VALIDATED):
                labels = dict.fromkeys(metric.labels, label)
                if all(value in metric.labels[name] for name, value in labels.items()):
                    figures.set(metric, 1e100, **labels)
    for stage in STAGES:
        for outcome in OUTCOMES:
            figures.add(names.IMAGES, 1, stage=stage, outcome=outcome)
    _, told = sent(figures)
    assert 20 < len(told.data) < A_CALL


@pytest.mark.parametrize("output", ["", " ", "s3://bücket/日本", "a\nb\x1b[2J", 3000 * "k", 3000 * "ü"])
def test_any_output_is_a_dimension(output: str) -> None:
    figures = Figures("classify", "cnn", output)
    figures.set(names.RATE, 1.0)
    sent(figures)
    assert re.fullmatch(r"[\x20-\x7e]{1,1024}", dimension(output))


def test_cloudwatch_has_it_and_shows_it(s3_endpoint: str, figures: Figures) -> None:
    figures.add(names.IMAGES, 7, stage="write", outcome="ok")
    assert CloudWatch(NAMESPACE, figures).send() == ""
    now = datetime.now(UTC)
    found = boto3.client("cloudwatch").get_metric_statistics(
        Namespace=NAMESPACE,
        MetricName="celebvision_images_total",
        Dimensions=[{"Name": k, "Value": v} for k, v in {**JOB, "stage": "write", "outcome": "ok"}.items()],
        StartTime=now - timedelta(minutes=5),
        EndTime=now + timedelta(minutes=5),
        Period=300,
        Statistics=["Sum"],
    )
    assert sum(point["Sum"] for point in found["Datapoints"]) == 7


def test_where_there_is_none_a_job_loses_a_line_and_little_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testaccess")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testsecret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    began = time.monotonic()
    with telling(WatchedSettings(cloudwatch=NAMESPACE), Figures(**JOB), "s3://photos/labels/runs/one"):
        pass
    assert time.monotonic() - began < 15
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: cloudwatch: CelebVision did not take the job's figures: ")


def test_without_a_region_or_credentials_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, figures: Figures
) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers
    assert "region" in CloudWatch(NAMESPACE, figures).send()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert "credentials" in CloudWatch(NAMESPACE, figures).send()


@pytest.mark.parametrize("namespace", ["AWS/EC2", "", "a b", ":x", 256 * "n"])
def test_a_namespace_that_cloudwatch_refuses_is_refused_first(namespace: str) -> None:
    with pytest.raises(ValueError, match="cloudwatch"):
        WatchedSettings(cloudwatch=namespace)
