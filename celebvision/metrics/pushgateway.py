"""Where a finished job leaves its figures for Prometheus: at a Pushgateway."""

from __future__ import annotations

import urllib.error
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from itertools import accumulate, groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

from celebvision.metrics.figures import Figures, Histogram, Sample
from celebvision.metrics.names import Metric

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

JOB = "celebvision"
TIMEOUT_S = 10.0


def push(gateway: str, figures: Figures) -> str:
    """Leave the figures of a job, for Prometheus to scrape when the job is gone too.

    Their group is `job` and the job's own labels: the next job of the verb and model on that output replaces them.

    Args:
        gateway: its URL.
        figures: all that the job has told.

    Returns:
        Why they were not taken, as figures are no reason for a job to fail; nothing if they were.
    """
    # Its servers take long to import, which only those who push should wait for.
    from prometheus_client import CollectorRegistry, push_to_gateway

    registry = CollectorRegistry()
    registry.register(_Collected(figures))  # type: ignore[arg-type]
    try:
        push_to_gateway(gateway, JOB, registry, figures.job, TIMEOUT_S)
    except (OSError, HTTPException) as error:
        # The gateway's own words say more than the status.
        words = error.read().decode(errors="replace").strip() if isinstance(error, urllib.error.HTTPError) else ""
        return f"pushgateway: {gateway} did not take the job's figures: {words or error}"
    return ""


class _Collected:
    """Figures as prometheus_client reads them."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures

    def collect(self) -> Iterator[Family]:
        samples = sorted(self.figures.samples(), key=lambda sample: sample.metric.name)
        for metric, of_metric in groupby(samples, key=attrgetter("metric")):
            yield _family(metric, of_metric)


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    labels = list(metric.labels)  # the job's are the group's
    kinds: dict[str, Any] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    family: Any = kinds[metric.kind](metric.name, metric.help, labels=labels)
    for sample in samples:
        values = [sample.labels[label] for label in labels]
        if isinstance(sample.value, Histogram):
            bounds = [*map(str, metric.buckets), "+Inf"]
            family.add_metric(values, list(zip(bounds, accumulate(sample.value.counts), strict=True)), sample.value.sum)
        else:
            family.add_metric(values, sample.value)
    return cast("Family", family)
