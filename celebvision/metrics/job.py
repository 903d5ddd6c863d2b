"""A job's figures from its begin to its end: what every job tells, and where they go meanwhile."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from celebvision.config import WatchedSettings
from celebvision.cost import Meter, usd_per_hour
from celebvision.job import console
from celebvision.metrics import names
from celebvision.metrics.figures import Figures
from celebvision.metrics.pushgateway import push

PUSH_S = 30.0
LATELY_S = 60.0  # what a rate is of


class Telling:
    """How a job at work gets on, as figures."""

    def __init__(self, settings: WatchedSettings, figures: Figures) -> None:
        """Raises `JobFailed` if the settings' node type has no price."""
        self.figures, self.price = figures, usd_per_hour(settings)
        self.meter: Meter | None = None  # from the first images on, when there is a cluster
        self.marks: deque[tuple[float, float]] = deque()  # times, and what was done by then
        figures.set(names.STARTED, time.time())
        figures.set(names.ENDED, 0.0)
        figures.set(names.DEADLINE, settings.deadline.timestamp() if settings.deadline else 0.0)
        self.moved()

    def moved(self) -> None:
        """Something got done."""
        self.figures.set(names.MOVED, time.time())

    def done(self, done: float, total: float) -> None:
        """So many images of `total` are done: tells rate, what remains, time left, and the cost so far."""
        now = time.monotonic()
        if not self.marks or done != self.marks[-1][1]:
            self.marks.append((now, done))
            self.moved()
        while len(self.marks) > 2 and now - self.marks[1][0] >= LATELY_S:
            self.marks.popleft()
        (since, first), (_, last) = self.marks[0], self.marks[-1]
        rate = (last - first) / (now - since) if now > since else 0.0
        self.figures.set(names.RATE, rate)
        self.figures.set(names.REMAINING, total - done)
        if rate:
            self.figures.set(names.ETA, (total - done) / rate)
        if self.price is not None:
            self.meter = self.meter or Meter(self.price)
            self.figures.set(names.COST, self.meter.read())


@contextmanager
def telling(settings: WatchedSettings, figures: Figures) -> Iterator[Telling]:
    """Have the figures of a job sent on until the block ends, and once more at its end.

    Raises:
        JobFailed: the settings' node type has no price.
    """
    told = Telling(settings, figures)
    figures.set_one(names.STATE, "running")
    state = "failed"
    with _Pushing(settings.pushgateway, figures) if settings.pushgateway else nullcontext():
        try:
            yield told
            state = "done"
            for metric in (names.REMAINING, names.ETA):  # a training may end before its last epoch
                figures.set(metric, 0.0)
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        finally:
            figures.set_one(names.STATE, state)
            figures.set(names.ENDED, time.time())


class _Pushing:
    """Pushes from the beginning on, so that a job that is killed is seen to get nothing done any more."""

    def __init__(self, gateway: str, figures: Figures) -> None:
        self.gateway, self.figures, self.told = gateway, figures, ""
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._until_ended, name="push", daemon=True)

    def __enter__(self) -> None:
        self._push()
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self._push()

    def _until_ended(self) -> None:
        while not self.ended.wait(PUSH_S):
            self._push()

    def _push(self) -> None:
        refused = push(self.gateway, self.figures)
        if refused and not self.told:
            console.print(f"{refused}; nothing more is told of it", markup=False, soft_wrap=True)
        self.told = self.told or refused
