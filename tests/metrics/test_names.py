"""The one list of names, and the figures of a job that are told under them."""

import re
from typing import Any

import pytest
from ray.util import metrics as ray_metrics

from celebvision.config import WatchedSettings
from celebvision.metrics import METRICS, Figures, Histogram, Telling, job, names

FEW = 60  # series a metric may have for one job, besides those that its model decides


def figures() -> Figures:
    return Figures("classify", "cnn", "s3://bucket/labels")


def test_no_label_grows_with_pictures_keys_or_runs() -> None:
    for metric in METRICS.values():
        series = 1
        for label, values in metric.labels.items():
            assert not set(metric.labels) & set(names.JOB_LABELS)
            assert label in ("model_version", "distribution") if values == names.OF_THE_MODEL else values
            series *= len(values) or 1
        assert series <= FEW, f"{metric.name} has {series} series a job"


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_a_name_says_what_it_counts_as_prometheus_wants_it(metric: names.Metric) -> None:
    assert re.fullmatch(r"celebvision_[a-z][a-z_]*[a-z]", metric.name)
    assert not metric.name.endswith(("_total", "_bucket", "_sum", "_count"))
    assert metric.help.endswith(".")
    if metric.unit in ("s", "s since 1970"):
        assert metric.name.endswith("seconds")
    assert bool(metric.buckets) == (metric.kind == "histogram")


@pytest.mark.parametrize(
    ("metric", "labels"),
    [
        (names.IMAGES, {"stage": "fetch"}),
        (names.IMAGES, {"stage": "photos/1.jpg", "outcome": "ok"}),
        (names.FAILURES, {"stage": "decode", "reason": "image file is truncated (3 bytes not processed)"}),
        (names.RATE, {"run_id": "20261125T000000Z-00000000"}),
    ],
)
def test_a_label_that_could_say_anything_is_refused(metric: names.Metric, labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=metric.name):
        figures().add(metric, 1, **labels)
    assert figures().samples() == []


def test_what_is_told_is_kept_and_shown_through_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, str, Any]] = []

    class Recorded:
        def __init__(self, name: str, description: str, *rest: Any) -> None:
            self.name = name

        def set_default_tags(self, tags: dict[str, str]) -> "Recorded":
            assert tags == {"verb": "classify", "model": "cnn", "output": "s3://bucket/labels"}
            return self

        def __getattr__(self, does: str) -> Any:
            return lambda value, tags: shown.append((self.name, does, value))

    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(ray_metrics, kind, Recorded)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    told = figures()
    told.add(names.BYTES, 2, direction="read")
    told.add(names.BYTES, 0, direction="written")
    told.add(names.BYTES, 3, direction="read")
    told.set(names.RATE, 7.0)
    told.set(names.RATE, 8.0)
    told.observe(names.STAGE_SECONDS, [0.01, 1e6], stage="infer")
    told.set_one(names.STATE, "done")
    assert shown[:6] == [
        ("celebvision_bytes", "inc", 2),
        ("celebvision_bytes", "inc", 3),
        ("celebvision_images_per_second", "set", 7.0),
        ("celebvision_images_per_second", "set", 8.0),
        ("celebvision_stage_seconds", "observe", 0.01),
        ("celebvision_stage_seconds", "observe", 1e6),
    ]
    numbers = told.numbers()
    assert numbers['celebvision_bytes_total{direction="read"}'] == 5
    assert numbers['celebvision_bytes_total{direction="written"}'] == 0
    assert numbers["celebvision_images_per_second"] == 8
    assert [state for state in names.STATES if numbers[f'celebvision_job_state{{state="{state}"}}']] == ["done"]
    (histogram,) = [one.value for one in told.samples() if one.metric is names.STAGE_SECONDS]
    assert isinstance(histogram, Histogram)
    assert (histogram.counts[0], histogram.counts[-1], sum(histogram.counts), histogram.sum) == (1, 1, 2, 1e6 + 0.01)


def test_rate_and_time_left_are_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(job.time, "monotonic", lambda: clock[0])
    told = Telling(WatchedSettings(), figures())
    for clock[0], done in ((0.0, 0), (10.0, 1000), (60.0, 1000), (70.0, 1100), (130.0, 1700)):
        told.done(done, 2000)
    assert told.figures.value(names.RATE) == pytest.approx(10.0)
    assert told.figures.value(names.REMAINING) == 300
    assert told.figures.value(names.ETA) == pytest.approx(30.0)
    moved = told.figures.value(names.MOVED)
    clock[0] = 190.0
    told.done(1700, 2000)
    assert told.figures.value(names.RATE) == pytest.approx(5.0)
    assert told.figures.value(names.MOVED) == moved


@pytest.mark.usefixtures("ray_cluster")
def test_any_output_and_any_target_can_be_a_label_where_ray_runs() -> None:
    told = Figures("classify", "cnn", "s3://bücket/日本")
    told.set(names.RATE, 2.0)
    told.set(names.DRIFT, 0.3, distribution="probability_größe")
    assert told.job["output"] == r"s3://b\xfccket/\u65e5\u672c"
    assert told.numbers() == {
        "celebvision_images_per_second": 2.0,
        'celebvision_drift_psi{distribution="probability_größe"}': 0.3,
    }
