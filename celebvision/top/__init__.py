"""`top`: how jobs stand, in a terminal."""

from __future__ import annotations

import time
from dataclasses import asdict

from rich.console import Console
from rich.live import Live

from celebvision.config import TopSettings
from celebvision.job import JobFailed, Outcome
from celebvision.logs import printable
from celebvision.storage import StorageError, Store, open_store
from celebvision.top.jobs import Job, merged, of_metrics, of_output
from celebvision.top.show import page


def top(settings: TopSettings) -> Outcome:
    """Show jobs until Ctrl-C, or once: as a table, or as `jobs` of the summary.

    Raises:
        JobFailed: shown once, and there is none, or nowhere to look could be reached.
    """
    console, output = Console(emoji=False), open_store(settings.output) if settings.output else None
    if not console.is_terminal:
        console.width = 120  # whoever reads it has room
    if settings.once or settings.summary_as_json or not console.is_terminal:
        jobs, missed = _look(settings, output)
        if not jobs:
            raise JobFailed("; ".join(missed) or "no job was found there: one is seen from its first seconds on")
        if settings.summary_as_json:
            return Outcome({"jobs": [asdict(job) for job in jobs], "missed": missed})
        console.print(page(jobs, missed, time.time()))
        return Outcome()
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(page(*_look(settings, output), time.time()), refresh=True)
                time.sleep(settings.every_s)
    except KeyboardInterrupt:
        return Outcome()


def _look(settings: TopSettings, output: Store | None) -> tuple[list[Job], list[str]]:
    """Jobs, those that run first and then the latest; and a sentence about each place that could not be looked at."""
    jobs, missed = list[Job](), list[str]()
    if output is not None:
        try:
            jobs += of_output(output)
        except StorageError as error:
            missed.append(str(error))
    if settings.metrics:
        try:
            jobs += of_metrics(settings.metrics)
        except (OSError, ValueError) as error:
            missed.append(f"{settings.metrics}: {printable(str(error))}")
    return merged(jobs), missed
