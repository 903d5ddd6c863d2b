"""A job's key figures in AWS CloudWatch, and what its alarms are made on."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from celebvision.logs import printable
from celebvision.metrics import names
from celebvision.metrics.figures import Figures
from celebvision.metrics.names import PREFIX, Metric

# Each of these, and each value of its labels, is a metric that is paid for.
KEY = (
    names.IMAGES,
    names.RATE,
    names.REMAINING,
    names.ETA,
    names.COST,
    names.WORKERS,
    names.BUSY,
    names.QUEUE,
    names.EPOCH,
    names.LOSS,
    names.VALIDATION,
    names.DATA_WAIT,
)
UNITS = {"s": "Seconds", "images/s": "Count/Second", "images": "Count", "processes": "Count", "shards": "Count"}
# What alarms are on, since CloudWatch knows neither the time nor what is live: by name, its unit. These are sent
# without labels too: an alarm watches one series, and the worst of all jobs is its maximum.
JUDGED = {
    f"{PREFIX}job_idle_seconds": "Seconds",  # since it got anything done
    f"{PREFIX}job_late_seconds": "Seconds",  # by which it will miss its deadline
    f"{PREFIX}job_failed": "Count",  # 1 at its end, if it failed
    f"{PREFIX}failure_ratio": "None",  # of all images so far, from a hundred on
    f"{PREFIX}throttled_ratio": "None",  # requests that S3 turned away for each image, since the last time
    f"{PREFIX}accelerator_idle_ratio": "None",  # while there is work for it
    f"{PREFIX}losses_not_finite": "Count",
    f"{PREFIX}training_warnings": "Count",
}
JUDGED_FROM = 100  # images
A_CALL = 500  # metrics, of the 1,000 and the megabyte that are allowed
LARGEST = 2.0**360
LONGEST = 1024  # characters of a dimension's value, all of them ASCII
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, TRIES = 3.0, 5.0, 2


class Datum(NamedTuple):
    """A number of now, with the labels that are not the job's."""

    name: str
    unit: str
    value: float
    labels: Mapping[str, str] = {}
    of_job: bool = True


class CloudWatch:
    """Sends a job's figures to a namespace; counters as what came since the last time, so that sums are right."""

    def __init__(self, namespace: str, figures: Figures) -> None:
        self.namespace, self.figures = namespace, figures
        self.client: Any = None
        self.taken: dict[tuple[str, ...], float] = {}  # how far counters were when they were last taken

    def send(self) -> str:
        """Send the figures as they stand now.

        Returns:
            Why they were not taken, as figures are no reason for a job to fail; nothing if they were.
        """
        counted = self._counted()
        data = [self._sent(datum) for datum in (*self._key(counted), *self._judged(counted)) if _can_be(datum.value)]
        try:
            if self.client is None:
                retries = {"total_max_attempts": TRIES}
                timeouts = Config(connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S, retries=retries)
                self.client = boto3.client("cloudwatch", config=timeouts)
            for first in range(0, len(data), A_CALL):
                self.client.put_metric_data(Namespace=self.namespace, MetricData=data[first : first + A_CALL])
        except (BotoCoreError, ClientError) as error:
            return f"cloudwatch: {self.namespace} did not take the job's figures: {error}"
        self.taken = counted
        return ""

    def _counted(self) -> dict[tuple[str, ...], float]:
        """How far each counter is, by its name and its own labels' values."""
        return {
            (sample.metric.name, *(sample.labels[label] for label in sample.metric.labels)): float(sample.value)
            for sample in self.figures.samples()
            if sample.metric.kind == "counter" and isinstance(sample.value, float | int)
        }

    def _since(self, counted: dict[tuple[str, ...], float], metric: Metric, *values: str) -> float:
        key = (metric.name, *values)
        return counted.get(key, 0.0) - self.taken.get(key, 0.0)

    def _key(self, counted: dict[tuple[str, ...], float]) -> Iterator[Datum]:
        for sample in self.figures.samples():
            metric = sample.metric
            if metric not in KEY or not isinstance(sample.value, float | int):
                continue
            labels = {label: sample.labels[label] for label in metric.labels}
            value = float(sample.value) if metric.kind == "gauge" else self._since(counted, metric, *labels.values())
            yield Datum(metric.exported, UNITS.get(metric.unit, "None"), value, labels)

    def _judged(self, counted: dict[tuple[str, ...], float]) -> Iterator[Datum]:
        for name, value in self._judgements(counted).items():
            for of_job in (True, False):
                yield Datum(f"{PREFIX}{name}", JUDGED[f"{PREFIX}{name}"], value, of_job=of_job)

    def _judgements(self, counted: dict[tuple[str, ...], float]) -> dict[str, float]:
        """Of a job that has ended only whether it failed: it is neither idle nor late."""
        now, value = time.time(), self.figures.value
        judged = {"job_failed": value(names.STATE, state="failed") or 0.0}
        if value(names.ENDED):
            return judged
        judged["job_idle_seconds"] = now - (value(names.MOVED) or now)
        if deadline := value(names.DEADLINE):
            judged["job_late_seconds"] = max(0.0, now + (value(names.ETA) or 0.0) - deadline)
        fetched = sum(counted.get((names.IMAGES.name, "fetch", outcome), 0.0) for outcome in names.OUTCOMES)
        failed = sum(amount for (name, *_), amount in counted.items() if name == names.FAILURES.name)
        if fetched >= JUDGED_FROM:
            judged["failure_ratio"] = failed / fetched
        lately = sum(self._since(counted, names.IMAGES, "fetch", outcome) for outcome in names.OUTCOMES)
        throttled = self._since(counted, names.RETRIES, "Throttled")
        if lately or throttled:  # where S3 turns all away, no image is done
            judged["throttled_ratio"] = throttled / max(lately, 1.0)
        busy, waits = value(names.BUSY), value(names.DATA_WAIT)
        if busy is not None and (value(names.QUEUE) or 0.0) > (value(names.WORKERS) or 0.0):
            judged["accelerator_idle_ratio"] = 1 - busy
        elif waits is not None:
            judged["accelerator_idle_ratio"] = waits
        losses = [value(names.LOSS, loss=loss) for loss in names.LOSSES]
        judged["losses_not_finite"] = sum(1.0 for loss in losses if loss is not None and not math.isfinite(loss))
        judged["training_warnings"] = value(names.WARNINGS) or 0.0
        return judged

    def _sent(self, datum: Datum) -> dict[str, Any]:
        labels = {**(self.figures.job if datum.of_job else {}), **datum.labels}
        dimensions = [{"Name": name, "Value": dimension(value)} for name, value in labels.items()]
        sent = {"MetricName": datum.name, "Timestamp": datetime.now(UTC), "Unit": datum.unit, "Value": datum.value}
        return sent | {"Dimensions": dimensions}


def dimension(value: str) -> str:
    """What CloudWatch takes of a label's value: printable ASCII, of which not all is blank."""
    return printable(value).encode("ascii", "replace").decode()[:LONGEST].strip() or "-"


def _can_be(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= LARGEST
