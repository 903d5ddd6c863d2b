"""A job's figures from its begin to its end: what every job tells, and where they go meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import cast

from celebvision import logs, notices
from celebvision.config import WatchedSettings
from celebvision.cost import Meter, usd_per_hour
from celebvision.metrics import names
from celebvision.metrics.cloudwatch import CloudWatch
from celebvision.metrics.figures import Figures
from celebvision.metrics.pushgateway import push
from celebvision.ray_session import root_cause

SEND_S = 30.0
LATELY_S = 60.0  # what a rate is of

_around: ContextVar[Telling | None] = ContextVar("_around", default=None)  # the job that a job is a part of


class Telling:
    """How a job at work gets on, as figures."""

    def __init__(self, settings: WatchedSettings, figures: Figures) -> None:
        """Raises `JobFailed` if the settings' node type has no price."""
        self.figures, self.price = figures, usd_per_hour(settings)
        self.meter: Meter | None = None  # from the first images on, when there is a cluster
        self.marks: deque[tuple[float, float]] = deque()  # times, and what was done by then
        self.around = _around.get()
        self.notice: str | None = ""  # a line for those who are told at the end; None: it is not worth a notice
        figures.set(names.STARTED, time.time())
        figures.set(names.ENDED, 0.0)
        figures.set(names.DEADLINE, settings.deadline.timestamp() if settings.deadline else 0.0)
        self.moved()

    def moved(self) -> None:
        """Something got done, by the job that this is a part of too."""
        self.figures.set(names.MOVED, time.time())
        if self.around is not None:
            self.around.moved()

    def done(self, done: float, total: float | None) -> None:
        """So many images of `total` are done: tells rate, what remains, time left, and the cost so far.

        None: nobody knows yet of how many, so neither what remains nor time left is told.
        """
        now = time.monotonic()
        if not self.marks or done != self.marks[-1][1]:
            self.marks.append((now, done))
            self.moved()
        while len(self.marks) > 2 and now - self.marks[1][0] >= LATELY_S:
            self.marks.popleft()
        (since, first), (_, last) = self.marks[0], self.marks[-1]
        rate = (last - first) / (now - since) if now > since else 0.0
        self.figures.set(names.RATE, rate)
        if total is not None:
            self.figures.set(names.REMAINING, total - done)
        if total is not None and rate:
            self.figures.set(names.ETA, (total - done) / rate)
        if self.price is not None:
            self.meter = self.meter or Meter(self.price)
            self.figures.set(names.COST, self.meter.read())


@contextmanager
def telling(settings: WatchedSettings, figures: Figures, record: str) -> Iterator[Telling]:
    """Have the figures of a job sent on until the block ends, and once more at its end; then those who wait are told.

    Args:
        settings: of the job.
        figures: that it will tell.
        record: URI of what is kept of it.

    Raises:
        JobFailed: the node type has no price.
    """
    told = Telling(settings, figures)
    outside = _around.set(told)
    figures.set_one(names.STATE, "running")
    state, error, began = "failed", "", time.monotonic()
    sinks: list[Callable[[], str]] = []
    if settings.pushgateway:
        sinks.append(partial(push, settings.pushgateway, figures))
    if settings.cloudwatch:
        sinks.append(CloudWatch(settings.cloudwatch, figures).send)
    with logs.about(**figures.job, run_id=record.rpartition("/")[2]):
        try:
            with _Sending(sinks):
                try:
                    yield told
                    state = "done"
                    for metric in (names.REMAINING, names.ETA):  # a training may end before its last epoch
                        figures.set(metric, 0.0)
                except KeyboardInterrupt:
                    state = "interrupted"
                    raise
                except Exception as raised:
                    error = str(root_cause(raised))
                    raise
                finally:
                    figures.set_one(names.STATE, state)
                    figures.set(names.ENDED, time.time())
        finally:
            _around.reset(outside)
            if told.notice is not None and told.around is None:
                notice = _notice(told, state, time.monotonic() - began, record, error)
                for refused in notices.send(notice, settings.sns_topic):
                    logs.say(refused, logging.WARNING)


def _notice(told: Telling, state: str, seconds: float, record: str, error: str) -> notices.Notice:
    figures, results, failures = told.figures, 0, dict[str, int]()
    for sample in figures.samples():
        if sample.metric is names.FAILURES and sample.value:
            failures[f"{sample.labels['stage']} {sample.labels['reason']}"] = int(cast("float", sample.value))
        if sample.metric is names.IMAGES and (sample.labels["stage"], sample.labels["outcome"]) == ("write", "ok"):
            results = int(cast("float", sample.value))
    return notices.Notice(
        **figures.job,
        state=state,
        seconds=seconds,
        record=record,
        results=results,
        failures=failures,
        cost_usd=figures.value(names.COST),
        result=told.notice or "",
        error=error,
    )


class _Sending:
    """Sends figures from the beginning on: what stays at a Pushgateway shows that a killed job does nothing any more.

    Each sink gives why it was not taken, which is told once.
    """

    def __init__(self, sinks: Sequence[Callable[[], str]]) -> None:
        self.sinks, self.told = sinks, set[int]()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._until_ended, name="figures", daemon=True)

    def __enter__(self) -> None:
        if self.sinks:
            self._send()
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        if self.sinks:
            self.ended.set()
            self.thread.join()
            self._send()

    def _until_ended(self) -> None:
        while not self.ended.wait(SEND_S):
            self._send()

    def _send(self) -> None:
        for number, sink in enumerate(self.sinks):
            refused = sink()
            if refused and number not in self.told:
                self.told.add(number)
                logs.say(f"{refused}; nothing more is told of it", logging.WARNING)
