"""`report`: a run as one page that needs nothing but a browser."""

from __future__ import annotations

import time

from celebvision.batch.runs import REPORT
from celebvision.config import ReportSettings
from celebvision.job import JobFailed, Outcome
from celebvision.report.batch import page_of_run
from celebvision.report.training import page_of_training
from celebvision.storage import NotFound, join, open_store
from celebvision.training.files import HISTORY


def report(settings: ReportSettings) -> Outcome:
    """Write the page of a run: whole, or not at all.

    Raises:
        JobFailed: there is no run.
        StorageError: it cannot be read or written.
    """
    began = time.monotonic()
    content = _page(settings.run).encode()
    place = settings.output or settings.run
    open_store(place).put(REPORT, content)
    return Outcome({"page": join(place, REPORT), "bytes": len(content), "seconds": round(time.monotonic() - began, 1)})


def _page(run: str) -> str:
    folder = open_store(run)
    output, _, run_id = run.rpartition("/runs/")
    for name, made in (("run.json", lambda: page_of_run(output, run_id)), (HISTORY, lambda: page_of_training(run))):
        try:
            folder.stat(name)
        except NotFound:
            continue
        return made()
    raise JobFailed(
        f"run: {run} is no run; give OUTPUT/runs/RUN as `celebvision runs` lists it, or a training's folder"
    )
