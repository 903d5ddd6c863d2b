"""What every job has: an outcome, a way to fail, progress that people can read, and the version of the code."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from celebvision import __version__
from celebvision.logs import console, say, says_json

LINE_INTERVAL_S = 10.0  # between progress lines where there is no terminal


class JobFailed(Exception):
    """A job cannot go on; the message says what was wrong, where, and what to do."""


@dataclass(frozen=True)
class Outcome:
    """What a job leaves behind: `summary` is printed, `failures` is held against the allowed number.

    `status` is the exit status of a job that ran elsewhere.
    """

    summary: dict[str, Any] = field(default_factory=dict)
    failures: int = 0
    status: int = 0


class Progress(Protocol):
    """Says how far a job is: `done` of `total` things, with a few words."""

    def __call__(self, done: float, words: str = "", total: float | None = None) -> None: ...


@contextmanager
def progress(title: str, total: float | None, unit: str) -> Iterator[Progress]:
    """A bar with rate and ETA on a terminal; elsewhere a line at most every ten seconds. Both go to stderr."""
    if not console.is_terminal or says_json():
        yield _Lines(title, total, unit)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    times = (TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[words]}"))
    with RichProgress(*columns, *times, console=console) as bar:
        task, pace = bar.add_task(title, total=total, words="", rate=""), _Pace()

        def show(done: float, words: str = "", total: float | None = None) -> None:
            bar.update(task, completed=done, words=words, rate=_rate(pace(done), f" {unit}"), total=total)

        yield show


class _Pace:
    """Things done a second since the first of them, so that a slow start does not spoil the ETA."""

    def __init__(self) -> None:
        self.first = 0.0
        self.since: float | None = None

    def __call__(self, done: float) -> float:
        now = time.monotonic()
        if done and (self.since is None or done < self.first):
            self.first, self.since = done, now
        if self.since is None or done == self.first:
            return 0.0
        return (done - self.first) / max(now - self.since, 1e-9)


def _rate(per_second: float, unit: str = "") -> str:
    """By the minute where a picture takes longer than a second."""
    return f"{per_second:.1f}{unit}/s" if per_second >= 1 or not per_second else f"{60 * per_second:.1f}{unit}/min"


class _Lines:
    def __init__(self, title: str, total: float | None, unit: str) -> None:
        self.title, self.total, self.unit, self.pace = title, total, unit, _Pace()
        self.last, self.shown = time.monotonic(), 0.0

    def __call__(self, done: float, words: str = "", total: float | None = None) -> None:
        self.total = total or self.total
        rate, now = self.pace(done), time.monotonic()
        ends = done == self.total
        if done == self.shown or (now - self.last < LINE_INTERVAL_S and not ends):
            return
        self.last, self.shown = now, done
        line = f"{self.title}: {done:.0f}" + (f" of {self.total:.0f} {self.unit}" if self.total else f" {self.unit}")
        if rate:
            line += f", {_rate(rate)}"
        if rate and self.total and not ends:
            line += f", ETA {(self.total - done) / rate:.0f} s"
        say(f"{line} {words}".rstrip(), done=done, total=self.total, per_second=round(rate, 3))


def digest(words: BaseModel | dict[str, Any]) -> str:
    """Eight hex digits that stand for these settings: the same words give the same digest."""
    content = words.model_dump(mode="json") if isinstance(words, BaseModel) else words
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def age_s() -> float:
    """Seconds since this process began, interpreter and imports included."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf(os.sysconf_names["SC_CLK_TCK"])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / ticks


@cache
def code_version() -> str:
    """The package's version and a digest of its source, so that two runs of different code never look alike."""
    sha = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        sha.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{sha.hexdigest()[:12]}"
