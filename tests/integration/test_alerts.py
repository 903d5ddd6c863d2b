"""Each alert by Prometheus' own tester: it fires when it should, with words that say so, and is quiet otherwise."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from celebvision.metrics import METRICS
from celebvision.metrics.names import JOB_LABELS

MONITORING = Path(__file__).parents[2] / "cluster" / "monitoring"
JOB = {"verb": "classify", "model": "cnn", "output": "s3://photos/labels"}
LIVE = {"celebvision_job_end_timestamp_seconds": "0x300"}
RAY, GATEWAY = {"job": "ray", "instance": "10.0.0.7:8080", "WorkerId": "0a"}, {"job": "celebvision"}


@dataclass(frozen=True)
class Case:
    """Series of one value a minute in promtool's words, by name or by name with labels, and what is to fire of them."""

    alert: str
    series: dict[str, str]
    minute: int
    summary: str = ""  # nothing: it is quiet
    job: dict[str, str] = field(default_factory=lambda: JOB)  # labels of series and alert
    labels: dict[str, str] = field(default_factory=dict)  # more of the alert's


def of_node(alert: str, series: dict[str, str], minute: int, summary: str = "") -> Case:
    up = {"job": "ray"} if alert == "NodeLost" else {}  # else aggregated away
    return Case(alert, series, minute, summary, {"instance": "10.0.0.7:8080"} | up)


CASES = [
    # A job that last moved at minute 5 stands still at minute 16; a moving one, and one that has ended, do not.
    Case(
        "NoProgress",
        LIVE | {"celebvision_job_last_progress_timestamp_seconds": "0+60x5 300x20"},
        16,
        "classify with cnn has done nothing for 11m 0s",
    ),
    Case("NoProgress", LIVE | {"celebvision_job_last_progress_timestamp_seconds": "0+60x30"}, 16),
    Case(
        "NoProgress",
        {
            "celebvision_job_last_progress_timestamp_seconds": "0+60x5 300x20",
            "celebvision_job_end_timestamp_seconds": "0x6 360x20",
        },
        20,
    ),
    Case(
        "JobFailed",
        {'celebvision_job_state{state="failed"}': "0x5 1x90", "celebvision_job_end_timestamp_seconds": "0x5 360x90"},
        10,
        "classify with cnn failed",
    ),
    Case(
        "JobFailed",
        {'celebvision_job_state{state="failed"}': "0x5 1x90", "celebvision_job_end_timestamp_seconds": "0x5 360x90"},
        80,
    ),
    Case("JobFailed", LIVE | {'celebvision_job_state{state="failed"}': "0x90"}, 10),
    # At minute 20 it has an hour to go, and 40 minutes to the deadline.
    Case(
        "WillNotBeDoneInTime",
        LIVE | {"celebvision_eta_seconds": "3600x60", "celebvision_job_deadline_timestamp_seconds": "3600x60"},
        20,
        "classify with cnn will be 20m 0s late",
    ),
    Case(
        "WillNotBeDoneInTime",
        LIVE | {"celebvision_job_deadline_timestamp_seconds": "3600x90"},
        75,
        "classify with cnn will be 15m 0s late",
    ),
    Case(
        "WillNotBeDoneInTime",
        LIVE | {"celebvision_eta_seconds": "600x60", "celebvision_job_deadline_timestamp_seconds": "3600x60"},
        20,
    ),
    Case(
        "WillNotBeDoneInTime",
        LIVE | {"celebvision_eta_seconds": "36000x60", "celebvision_job_deadline_timestamp_seconds": "0x60"},
        20,
    ),
    Case(
        "TooManyFailures",
        LIVE
        | {
            'celebvision_images_total{stage="fetch",outcome="ok"}': "0+90x30",
            'celebvision_images_total{stage="fetch",outcome="failed"}': "0+10x30",
            'celebvision_failures_total{stage="fetch",reason="NotFound"}': "0+10x30",
            'celebvision_failures_total{stage="decode",reason="UndecodableImage"}': "0+5x30",
        },
        20,
        "15% of the images fail in classify with cnn",
    ),
    Case(
        "TooManyFailures",
        LIVE
        | {
            'celebvision_images_total{stage="fetch",outcome="ok"}': "0+100x30",
            'celebvision_failures_total{stage="decode",reason="UndecodableImage"}': "0+4x30",
        },
        20,
    ),
    # Two of the first twenty images are no share.
    Case(
        "TooManyFailures",
        LIVE
        | {
            'celebvision_images_total{stage="fetch",outcome="ok"}': "20x30",
            'celebvision_failures_total{stage="decode",reason="UndecodableImage"}': "2x30",
        },
        20,
    ),
    Case(
        "StorageThrottled",
        LIVE
        | {
            'celebvision_images_total{stage="fetch",outcome="ok"}': "0+600x60",
            'celebvision_storage_retries_total{reason="Throttled"}': "0+150x60",
        },
        40,
        "Storage turns classify with cnn away, 250m times an image",
    ),
    Case(
        "StorageThrottled",
        LIVE
        | {
            'celebvision_images_total{stage="fetch",outcome="ok"}': "0+600x60",
            'celebvision_storage_retries_total{reason="Throttled"}': "0+6x60",
            'celebvision_storage_retries_total{reason="Unreachable"}': "0+600x60",
        },
        40,
    ),
    Case(
        "AcceleratorIdle",
        LIVE
        | {
            "celebvision_accelerator_busy_ratio": "0.1x60",
            "celebvision_queue_shards": "50x60",
            "celebvision_workers": "4x60",
        },
        30,
        "The networks of classify with cnn wait 90% of the time",
    ),
    # The last shards: not every worker has one.
    Case(
        "AcceleratorIdle",
        LIVE
        | {
            "celebvision_accelerator_busy_ratio": "0.1x60",
            "celebvision_queue_shards": "3x60",
            "celebvision_workers": "4x60",
        },
        30,
    ),
    Case(
        "AcceleratorIdle",
        LIVE | {"celebvision_data_wait_ratio": "0.7x60"},
        30,
        "The networks of train with cnn wait 70% of the time",
        JOB | {"verb": "train"},
    ),
    Case("AcceleratorIdle", LIVE | {"celebvision_data_wait_ratio": "0.1x60"}, 30, job=JOB | {"verb": "train"}),
    Case(
        "TrainingDiverged",
        LIVE | {'celebvision_loss{loss="generator"}': "1x5" + 20 * " NaN", 'celebvision_loss{loss="cycle"}': "1x30"},
        10,
        "The generator of cyclegan is no number any more",
        JOB | {"verb": "train", "model": "cyclegan"},
        {"loss": "generator"},
    ),
    Case("TrainingDiverged", LIVE | {'celebvision_loss{loss="generator"}': "1x30"}, 10, job=JOB | {"verb": "train"}),
    Case(
        "GANCollapsing",
        LIVE | {"celebvision_training_warnings": "0x5 2x30"},
        25,
        "cyclegan looks as if it collapses: 2 warnings in its last epoch",
        JOB | {"verb": "train", "model": "cyclegan"},
    ),
    # One epoch that looked odd is none.
    Case("GANCollapsing", LIVE | {"celebvision_training_warnings": "0x5 1x5 0x30"}, 25),
    Case(
        "CheckpointTooOld",
        LIVE | {"celebvision_checkpoint_timestamp_seconds": "600x200"},
        135,
        "cnn was last saved 2h 5m 0s ago",
        JOB | {"verb": "train"},
    ),
    Case("CheckpointTooOld", LIVE | {"celebvision_checkpoint_timestamp_seconds": "0+60x200"}, 135),
    Case(
        "RetrainStale",
        {"celebvision_retrain_last_success_timestamp_seconds": "-690000x60"},
        30,
        "cnn was last retrained 8d 0h 10m 0s ago",
        {"model": "cnn", "output": "s3://models"},
    ),
    Case("RetrainStale", {"celebvision_retrain_last_success_timestamp_seconds": "-600000x60"}, 30),
    of_node(
        "NodeLost",
        LIVE | {'up{job="ray"}': "1x10 0 0 stale", 'up{job="ray",instance="10.0.0.1:8080"}': "1x30"},
        14,
        "A node at work was lost: 10.0.0.7:8080",
    ),
    # One that leaves in order, one that answers again, one that begins, and the cluster's own end.
    of_node("NodeLost", LIVE | {'up{job="ray"}': "1x10 0 stale"}, 14),
    of_node("NodeLost", LIVE | {'up{job="ray"}': "1x10 0 0 1x20"}, 14),
    of_node("NodeLost", LIVE | {'up{job="ray"}': "0 0 0 1x20"}, 4),
    of_node("NodeLost", {'up{job="ray"}': "1x10 0 0 stale"}, 14),
    Case(
        "NodesDoNotCome",
        {'autoscaler_pending_nodes{NodeType="gpu-spot"}': "0x5 3x60"},
        30,
        "3 nodes have been asked for and do not come",
        {},
    ),
    Case("NodesDoNotCome", {'autoscaler_pending_nodes{NodeType="gpu-spot"}': "0x5 3x8 0x60"}, 30, job={}),
    of_node(
        "OutOfMemory",
        {'ray_memory_manager_worker_eviction_total{Name="WorkShards"}': "_x10 2x60"},
        12,
        "10.0.0.7:8080 ran out of memory: Ray ended 2 of its workers",
    ),
    of_node("OutOfMemory", {'ray_memory_manager_worker_eviction_total{Name="WorkShards"}': "_x10 2x60"}, 30),
    of_node(
        "WorkersRestart",
        {'ray_node_manager_unexpected_worker_failure_total{Name="WorkShards"}': "1x10 1+1x60"},
        14,
        "4 workers died on 10.0.0.7:8080 in a quarter of an hour",
    ),
    of_node("WorkersRestart", {'ray_node_manager_unexpected_worker_failure_total{Name="WorkShards"}': "2x60"}, 14),
    of_node(
        "DiskSpilling",
        {'ray_object_store_memory{Location="SPILLED"}': "2147483648x30"},
        10,
        "Ray has put 2GiB of 10.0.0.7:8080's objects on its disk",
    ),
    of_node(
        "DiskSpilling",
        {
            'ray_object_store_memory{Location="MMAP_SHM"}': "9e9x30",
            'ray_object_store_memory{Location="SPILLED"}': "0x30",
        },
        10,
    ),
    of_node(
        "DiskFilling",
        {"ray_node_disk_utilization_percentage": "93x30"},
        10,
        "The disk of 10.0.0.7:8080 is 93 % full",
    ),
    of_node("DiskFilling", {"ray_node_disk_utilization_percentage": "60x30"}, 10),
]


def rules() -> dict[str, dict[str, Any]]:
    """All alerts by name."""
    files = [yaml.safe_load(path.read_text()) for path in sorted((MONITORING / "rules").glob("*.yml"))]
    return {
        rule["alert"]: rule for file in files for group in file["groups"] for rule in group["rules"] if "alert" in rule
    }


def promtool(*words: str | Path) -> None:
    if not shutil.which("promtool"):
        pytest.fail("no promtool here: apt-get install --no-install-recommends prometheus")
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def as_test(case: Case, alerts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """As promtool reads it. Series of a job are there twice, as they come from Ray and from the Pushgateway."""
    series = []
    for name, values in case.series.items():
        ours = name.startswith("celebvision_")
        for origin in (RAY, GATEWAY) if ours else ({},):
            name_only, _, labels = name.rstrip("}").partition("{")
            own = (JOB if "verb" not in case.job and case.alert != "RetrainStale" else case.job) if ours else case.job
            told = {**origin, **own, **dict(re.findall(r'(\w+)="([^"]*)"', labels))}
            words = ",".join(f'{label}="{value}"' for label, value in told.items())
            series.append({"series": f"{name_only}{{{words}}}", "values": values})
    rule, expected = alerts[case.alert], []
    if case.summary:
        labels = case.job | case.labels
        words = {
            name: re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], text)
            for name, text in rule["annotations"].items()
        }
        expected = [{"exp_labels": labels | rule["labels"], "exp_annotations": words | {"summary": case.summary}}]
    tested = {"eval_time": f"{case.minute}m", "alertname": case.alert, "exp_alerts": expected}
    return {"interval": "1m", "input_series": series, "alert_rule_test": [tested]}


def test_what_prometheus_and_alertmanager_are_given_is_right() -> None:
    promtool("check", "config", MONITORING / "prometheus.yml")
    if not shutil.which("amtool"):
        pytest.fail("no amtool here: apt-get install --no-install-recommends prometheus-alertmanager")
    words = ["amtool", "check-config", MONITORING / "alertmanager.yml"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should_and_is_quiet_otherwise(tmp_path: Path) -> None:
    alerts = rules()
    for fires in (True, False):
        assert alerts.keys() == {case.alert for case in CASES if bool(case.summary) is fires}
    tests = [as_test(case, alerts) for case in CASES]
    content = {"rule_files": [str(MONITORING / "rules" / "*.yml")], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "alerts.yml").write_text(json.dumps(content))  # JSON is YAML
    promtool("test", "rules", tmp_path / "alerts.yml")


def test_each_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    runbook = (MONITORING / "RUNBOOK.md").read_text()
    for name, rule in rules().items():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["runbook"] == f"cluster/monitoring/RUNBOOK.md#{name.lower()}"
        assert f"\n## {name}\n" in runbook
    assert set(re.findall(r"^## (\w+)$", runbook, re.MULTILINE)) == rules().keys()


def test_rules_speak_of_what_jobs_measure() -> None:
    known = {metric.exported: {*metric.labels, *JOB_LABELS} for metric in METRICS.values()}
    for path in (MONITORING / "rules").glob("*.yml"):
        for name, labels in re.findall(r"\b(celebvision_\w+)(?:\{([^}]*)\})?", path.read_text()):
            assert name in known
            assert set(re.findall(r"(\w+)=", labels)) <= known[name]
