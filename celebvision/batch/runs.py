"""`runs`: what ran on an output, and how it stands."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from celebvision.batch.drift import between, reading
from celebvision.batch.record import LEASE, Run, find_runs, now
from celebvision.config import RunsSettings
from celebvision.job import JobFailed, Outcome
from celebvision.lease import holder_of
from celebvision.logs import say
from celebvision.page import page
from celebvision.storage import Store, join, open_store

PAGE, REPORT = "runs.html", "report.html"
COUNTS = ("keys", "results", "uncertain", "failures")
COLUMNS = ("run_id", "verb", "model", "state", *COUNTS, "images_per_s", "eta_s", "updated")


def runs(settings: RunsSettings) -> Outcome:
    """Show every run of an output, oldest first, and give the same as `runs` of the summary; or compare two of them.

    Raises:
        JobFailed: nothing ever ran there, or the two cannot be compared.
    """
    if settings.compare:
        return _compare(settings, settings.compare)
    output = open_store(settings.output)
    held = holder_of(output, LEASE)
    found = [_row(run, held) for run in find_runs(output)]
    if not found:
        raise JobFailed(f"{settings.output}: no run; give the --output of classify or stylize")
    if settings.html:
        output.put(PAGE, _page(output, found).encode())
        return Outcome({"page": join(settings.output, PAGE), "runs": len(found)})
    if settings.summary_as_json:
        return Outcome({"runs": found})
    _show([COLUMNS, *(tuple("" if row[name] is None else str(row[name]) for name in COLUMNS) for row in found)])
    return Outcome({"holder": held} if held else {})


def _page(output: Store, found: list[dict[str, Any]]) -> str:
    """The runs as a page, the latest first."""
    reports = {stat.key for stat in output.list("runs/") if stat.key.endswith(f"/{REPORT}")}
    rows = [{**row, "report": name if (name := f"runs/{row['run_id']}/{REPORT}") in reports else ""} for row in found]
    return page("runs.html", f"Runs of {output.uri}", [], runs=rows[::-1], uri=output.uri)


def _compare(settings: RunsSettings, run_ids: tuple[str, str]) -> Outcome:
    """Show the index of each distribution and what it is taken for, the most shifted first."""
    indices = between(find_runs(open_store(settings.output)), run_ids)
    ordered = sorted(indices.items(), key=lambda item: -item[1])
    distribution, index = ordered[0]
    told = {"baseline": run_ids[0], "run_id": run_ids[1], "largest": f"{distribution} {index:.3f}, {reading(index)}"}
    if settings.summary_as_json:
        return Outcome({**told, "psi": dict(ordered)})
    _show([("distribution", "psi", "reading"), *((name, f"{one:.3f}", reading(one)) for name, one in ordered)])
    return Outcome(told)


def _show(lines: list[tuple[str, ...]]) -> None:
    """A table, its heads in the first line."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        words = "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True))
        say(words.rstrip())


def _row(run: Run, held: str | None) -> dict[str, Any]:
    keys = run.inventory.get("keys", 0)
    results, failures = run.counts.get("results", 0), run.counts.get("failures", 0)
    rate = (results + failures) / run.seconds if run.seconds else 0.0
    state = state_of(run, held)
    left = keys - results - failures
    return {
        "run_id": run.run_id,
        "verb": f"{run.verb} --retry {run.retry}" if run.retry else run.verb,
        "model": f"{run.model['name']}@{run.model['version']}",
        "state": state,
        "keys": keys,
        "results": results,
        "uncertain": run.counts.get("results_uncertain"),
        "failures": failures,
        "images_per_s": round(rate, 1),
        "eta_s": round(left / rate) if state == "running" and rate and run.whole else None,
        "updated": f"{_age_s(run.updated):.0f} s ago",
        "cost_usd": run.figures.get("celebvision_cost_usd"),
        "error": run.error,
    }


def state_of(run: Run, held: str | None) -> str:
    """`stopped` where nobody works on it (`held`: who has the lease), so that the same command is to continue it."""
    return "stopped" if run.state in ("listing", "running") and not held else run.state


def _age_s(moment: str) -> float:
    return (datetime.fromisoformat(now()) - datetime.fromisoformat(moment)).total_seconds()
