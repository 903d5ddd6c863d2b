"""What one job measures, held by its driver: shown through Ray while it lives, and read by whoever sends it on."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util import metrics as ray_metrics

from celebvision.metrics.names import JOB_LABELS, METRICS, VERBS, Metric

Labels = tuple[tuple[str, str], ...]  # name and value, sorted by name


@dataclass
class Histogram:
    """Observations in each bucket, the last one for what is above every bound, and their sum."""

    counts: list[int]
    sum: float = 0.0


@dataclass(frozen=True)
class Sample:
    """A figure as it stands: `labels` are the metric's own and the job's."""

    metric: Metric
    labels: Mapping[str, str]
    value: float | Histogram


@dataclass
class Figures:
    """The figures of a job. One process tells them all, so that nobody adds up what two have counted.

    Any thread may call it. A label or a value of one that `names` does not declare is a `ValueError`.
    """

    verb: str
    model: str
    output: str
    _values: dict[tuple[str, Labels], float | Histogram] = field(default_factory=dict)
    _shown: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.verb not in VERBS:
            raise ValueError(f"verb {self.verb!r} is not declared; there are {VERBS}")

    @property
    def job(self) -> dict[str, str]:
        return {name: _ascii(getattr(self, name)) for name in JOB_LABELS}

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """A gauge's value."""
        with self._lock:
            self._values[self._place(metric, "gauge", labels)] = value
            self._show(metric, "set", [value], labels)

    def set_one(self, metric: Metric, chosen: str) -> None:
        """1 for this value of the gauge's only label, and 0 for each other."""
        ((label, values),) = metric.labels.items()
        for value in values:
            self.set(metric, float(value == chosen), **{label: value})

    def add(self, metric: Metric, amount: float, **labels: str) -> None:
        """To a counter."""
        with self._lock:
            place = self._place(metric, "counter", labels)
            before = self._values.get(place, 0.0)
            assert isinstance(before, float)
            self._values[place] = before + amount
            self._show(metric, "inc", [amount] if amount else [], labels)

    def observe(self, metric: Metric, values: Iterable[float], **labels: str) -> None:
        """Into a histogram."""
        values = list(values)
        with self._lock:
            place = self._place(metric, "histogram", labels)
            held = self._values.setdefault(place, Histogram([0] * (len(metric.buckets) + 1)))
            assert isinstance(held, Histogram)
            for value in values:
                held.counts[bisect_left(metric.buckets, value)] += 1
            held.sum += sum(values)
            self._show(metric, "observe", values, labels)

    def value(self, metric: Metric, **labels: str) -> float | None:
        """Of a gauge or a counter; nothing if it was never told."""
        with self._lock:
            value = self._values.get((metric.name, tuple(sorted(labels.items()))))
        assert not isinstance(value, Histogram)
        return value

    def samples(self) -> list[Sample]:
        """All figures as they stand now."""
        with self._lock:
            values = list(self._values.items())
        return [Sample(METRICS[name], dict(labels) | self.job, _copy(value)) for (name, labels), value in values]

    def numbers(self) -> dict[str, float]:
        """All figures as they stand now, named as in Prometheus, without the job's labels; of a histogram the sum."""
        named = {}
        for sample in self.samples():
            own = ",".join(f'{label}="{sample.labels[label]}"' for label in sorted(sample.metric.labels))
            suffix = "_sum" if isinstance(sample.value, Histogram) else ""
            value = sample.value.sum if isinstance(sample.value, Histogram) else sample.value
            named[f"{sample.metric.exported}{suffix}{{{own}}}" if own else f"{sample.metric.exported}{suffix}"] = value
        return named

    def _place(self, metric: Metric, kind: str, labels: Mapping[str, str]) -> tuple[str, Labels]:
        if metric.kind != kind:
            raise ValueError(f"{metric.name}: is a {metric.kind}, not a {kind}")
        metric.check(labels)
        return metric.name, tuple(sorted(labels.items()))

    def _show(self, metric: Metric, does: str, values: Iterable[float], labels: Mapping[str, str]) -> None:
        """To Ray, where it runs: its nodes export it."""
        if not ray.is_initialized():
            return
        if metric.name not in self._shown:
            keys = (*metric.labels, *JOB_LABELS)
            if metric.kind == "histogram":
                shown: Any = ray_metrics.Histogram(metric.name, metric.help, list(metric.buckets), keys)
            else:
                kind = ray_metrics.Counter if metric.kind == "counter" else ray_metrics.Gauge
                shown = kind(metric.name, metric.help, keys)
            self._shown[metric.name] = shown.set_default_tags(self.job)
        for value in values:
            getattr(self._shown[metric.name], does)(value, {name: _ascii(said) for name, said in labels.items()})


def _ascii(value: str) -> str:
    """What Ray takes as a label's value: it refuses other letters."""
    return value.encode("ascii", "backslashreplace").decode()


def _copy(value: float | Histogram) -> float | Histogram:
    return Histogram(list(value.counts), value.sum) if isinstance(value, Histogram) else value
