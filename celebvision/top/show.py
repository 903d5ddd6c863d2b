"""What `top` puts on the screen: a row a job, and of each that runs a few lines of where it stands."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from celebvision.logs import duration, printable
from celebvision.metrics import names
from celebvision.top.jobs import Job

STILL_S = 60.0  # without progress, after which it is said
COLOURS = {"running": "green", "listing": "green", "done": "cyan", "failed": "red"}


def page(jobs: list[Job], missed: list[str], now: float) -> RenderableType:
    """All of it; `now` in seconds since 1970."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("job", "state", "", "done", "images/s", "left", "failed", "cost"):
        table.add_column(title, no_wrap=True, justify="left" if title in ("job", "state", "") else "right")
    for job in jobs:
        table.add_row(*_row(job, now))
    lines = [Text(line) for job in jobs if job.state in ("running", "listing") for line in _lines(job, now)]
    lines += [Text(printable(words), style="red") for words in missed]
    if not (jobs or missed):
        lines = [Text("no job yet")]
    return Group(table, Text(), *lines) if jobs else Group(*lines)


def _row(job: Job, now: float) -> Iterator[RenderableType]:
    done, total = _done(job)
    failed = sum(job.values(names.FAILURES, "reason").values())
    rate, cost = job.value(names.RATE), job.value(names.COST)
    running = job.state in ("running", "listing")
    yield Text(f"{job.verb} {printable(job.model)}")
    yield Text(job.state, style=COLOURS.get(job.state, "yellow"))
    yield ProgressBar(total or 1.0, done, width=12)
    yield Text(f"{done:,.0f} of {total:,.0f}" if total else "")
    yield Text(f"{rate:,.1f}" if rate is not None and running else "")
    yield _left(job, now) if running else Text("")
    yield Text(f"{failed:,.0f}" if failed else "", style="yellow")
    yield Text(f"{cost:,.2f} USD" if cost is not None else "")


def _done(job: Job) -> tuple[float, float]:
    """Images of a bucket, or epochs."""
    if epochs := job.value(names.EPOCHS):
        return job.value(names.EPOCH) or 0.0, epochs
    ended = job.value(names.IMAGES, stage="write", outcome="ok") or 0.0
    return ended + sum(job.values(names.FAILURES, "reason").values()), job.value(names.INVENTORY) or 0.0


def _left(job: Job, now: float) -> Text:
    eta, deadline = job.value(names.ETA), job.value(names.DEADLINE)
    if eta is None:
        return Text("")
    late = now + eta - deadline if deadline else 0.0
    return Text(duration(eta) + (f", {duration(late)} late" if late > 0 else ""), style="red" if late > 0 else "")


def _lines(job: Job, now: float) -> Iterator[str]:
    yield f"{job.verb} {printable(job.model)} to {printable(job.output)}"
    moved = job.value(names.MOVED)
    if moved and now - moved > STILL_S:
        yield f"  nothing has moved for {duration(now - moved)}"
    stages = job.values(names.STAGE_SECONDS, "stage", "_sum")
    if spent := sum(stages.values()):
        busy = job.value(names.BUSY)
        shares = ", ".join(f"{stage} {seconds / spent:.0%}" for stage, seconds in stages.items())
        yield f"  time of workers: {shares}" + (f"; the network computes {busy:.0%} of it" if busy is not None else "")
    parts = []
    for words, metric in (("shards wait", names.QUEUE), ("workers", names.WORKERS)):
        if (value := job.value(metric)) is not None:
            parts.append(f"{value:,.0f} {words}")
    if retries := sum(job.values(names.RETRIES, "reason").values()):
        parts.append(f"{retries:,.0f} requests sent again")
    if parts:
        yield f"  {', '.join(parts)}"
    if reasons := job.values(names.FAILURES, "reason"):
        yield "  failed: " + ", ".join(f"{reason} {count:,.0f}" for reason, count in _largest(reasons) if count)
    if losses := job.values(names.LOSS, "loss"):
        yield "  losses: " + ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    if figures := job.values(names.VALIDATION, "figure"):
        yield "  validation: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
    if warnings := job.value(names.WARNINGS):
        yield f"  {warnings:.0f} warnings in the last epoch: its log says what looked wrong"


def _largest(counts: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(counts.items(), key=lambda item: -item[1])
