"""What the page measures of itself, for Prometheus; there is no Ray here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from celebvision.metrics import names


class Told:
    """The page's metrics."""

    def __init__(self, waiting: Callable[[], int], held_bytes: Callable[[], int]) -> None:
        """`waiting` gives how many requests queue, `held_bytes` what of weights is loaded."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            names.PAGE_REQUESTS.name, names.PAGE_REQUESTS.help, list(names.PAGE_REQUESTS.labels), registry=self.registry
        )
        metric = names.PAGE_SECONDS
        self.seconds = Histogram(
            metric.name, metric.help, list(metric.labels), buckets=metric.buckets, registry=self.registry
        )
        for gauge, value in ((names.PAGE_QUEUE, waiting), (names.PAGE_WEIGHTS, held_bytes)):
            Gauge(gauge.name, gauge.help, registry=self.registry).set_function(value)

    def serve(self, address: str, port: int) -> threading.Thread:
        """Show them at http://ADDRESS:PORT/metrics from now on."""
        _, thread = start_http_server(port, address, self.registry)
        return thread

    def ended(self, does: str, how: str) -> None:
        """A request ended so."""
        labels = {"does": does, "ended": how}
        names.PAGE_REQUESTS.check(labels)
        self.requests.labels(**labels).inc()

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """The seconds until the block ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds.labels(phase=phase).observe(time.monotonic() - began)
