"""What every job has: an outcome, a way to fail, progress that people can read, and the version of the code."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from celebvision import __version__

LINE_INTERVAL_S = 10.0  # between progress lines where there is no terminal

console = Console(stderr=True, highlight=False)


class JobFailed(Exception):
    """A job cannot go on; the message says what was wrong, where, and what to do."""


@dataclass(frozen=True)
class Outcome:
    """What a job leaves behind: `summary` is printed, `failures` is held against the allowed number."""

    summary: dict[str, Any] = field(default_factory=dict)
    failures: int = 0


class Progress(Protocol):
    """Says how far a job is: `done` of `total` things, with a few words."""

    def __call__(self, done: float, words: str = "", total: float | None = None) -> None: ...


@contextmanager
def progress(title: str, total: float | None, unit: str) -> Iterator[Progress]:
    """A bar with rate and ETA on a terminal; elsewhere a line at most every ten seconds. Both go to stderr."""
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        times = (TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[words]}"))
        with RichProgress(*columns, *times, console=console) as bar:
            task = bar.add_task(title, total=total, words="", rate="")
            started = time.monotonic()

            def show(done: float, words: str = "", total: float | None = None) -> None:
                rate = f"{done / max(time.monotonic() - started, 1e-9):.0f} {unit}/s"
                bar.update(task, completed=done, words=words, rate=rate, total=total)

            yield show
        return
    yield _Lines(title, total, unit)


class _Lines:
    def __init__(self, title: str, total: float | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.started = self.last = time.monotonic()
        self.shown = -1.0

    def __call__(self, done: float, words: str = "", total: float | None = None) -> None:
        self.total = total or self.total
        now = time.monotonic()
        ends = done == self.total != self.shown
        if done == self.shown or (now - self.last < LINE_INTERVAL_S and not ends):
            return
        self.last, self.shown, elapsed = now, done, now - self.started
        of, eta = "", ""
        if self.total:
            of = f" of {self.total:.0f}"
            eta = f", ETA {elapsed * (self.total - done) / done:.0f} s" if done else ""
        rate = done / max(elapsed, 1e-9)
        print(
            f"{self.title}: {done:.0f}{of} {self.unit}, {rate:.1f}/s{eta} {words}".rstrip(), file=sys.stderr, flush=True
        )


def digest(words: BaseModel | dict[str, Any]) -> str:
    """Eight hex digits that stand for these settings: the same words give the same digest."""
    content = words.model_dump(mode="json") if isinstance(words, BaseModel) else words
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


@cache
def code_version() -> str:
    """The package's version and a digest of its source, so that two runs of different code never look alike."""
    sha = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        sha.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{sha.hexdigest()[:12]}"
