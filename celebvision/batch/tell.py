"""What a job over a bucket tells of itself: the rows of its shards as figures, exact at the end."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from celebvision.batch.clock import STAGES, Measured
from celebvision.batch.record import Run
from celebvision.logs import FailureLog
from celebvision.metrics import Telling, names

LATELY = 20  # shards that ratios are of


class Teller:
    """Puts what a run does among the figures of its job."""

    def __init__(self, told: Telling) -> None:
        self.told, self.figures = told, told.figures
        self.last: deque[Measured] = deque(maxlen=LATELY)
        self.failures = FailureLog()

    def stands(self, run: Run) -> None:
        """How the run stands, by its record."""
        self.figures.set_one(names.STATE, run.state)
        self.figures.set(names.VERSION, 1.0, model_version=run.model["version"])
        self.figures.set(names.INVENTORY, float(run.inventory.get("keys", 0)))
        if run.state == "done":
            self._finished(run)

    def shard(self, counts: Mapping[str, int], measured: Measured, left: int) -> None:
        """A shard is done, and so many are left."""
        self.failures.tell(measured.failures, measured.examples)
        self._count(counts, measured.failures)
        for stage, seconds in measured.seconds.items():
            self.figures.observe(names.STAGE_SECONDS, seconds, stage=stage)
        self.figures.add(names.BYTES, measured.read_bytes, direction="read")
        self.figures.add(names.BYTES, measured.written_bytes, direction="written")
        self.figures.add(names.WAITED, measured.waited_s)
        for reason, times in measured.retries.items():
            self.figures.add(names.RETRIES, times, reason=reason)
        self.figures.set(names.QUEUE, left)
        self._lately(measured)

    def workers(self, count: int) -> None:
        """So many work now."""
        self.figures.set(names.WORKERS, count)

    def _finished(self, run: Run) -> None:
        """Whatever an earlier driver of the run had done is counted too: these are the figures of the whole run."""
        self._count(run.counts, run.reasons, whole=True)
        self.figures.set(names.QUEUE, 0.0)
        for distribution, psi in run.drift.get("psi", {}).items():
            self.figures.set(names.DRIFT, psi, distribution=distribution)

    def _count(self, counts: Mapping[str, int], failures: Mapping[str, int], whole: bool = False) -> None:
        """Keys that ended: each was done well by the stages before the one that it failed in, or by all of them."""
        left = counts.get("results", 0) + counts.get("failures", 0)
        for stage in STAGES:
            failed = counts.get(f"failures_{stage}", 0)
            left -= failed
            for outcome, amount in (("ok", left), ("failed", failed)):
                self._to(names.IMAGES, amount, whole, stage=stage, outcome=outcome)
        by_reason: Counter[tuple[str, str]] = Counter()
        for kind, amount in failures.items():
            stage, _, error = kind.partition(" ")
            by_reason[stage, error if error in names.REASONS else names.OTHER] += amount
        for (stage, reason), amount in by_reason.items():
            self._to(names.FAILURES, amount, whole, stage=stage, reason=reason)

    def _to(self, metric: names.Metric, amount: float, whole: bool, **labels: str) -> None:
        before = self.figures.value(metric, **labels) or 0.0 if whole else 0.0
        self.figures.add(metric, amount - before, **labels)

    def _lately(self, measured: Measured) -> None:
        self.last.append(measured)
        places, wall_s = sum(one.places for one in self.last), sum(one.wall_s for one in self.last)
        if places:
            self.figures.set(names.FILL, sum(one.pictures for one in self.last) / places)
        if wall_s:
            self.figures.set(names.BUSY, sum(sum(one.seconds.get("infer", [])) for one in self.last) / wall_s)
