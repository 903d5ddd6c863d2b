"""What a run leaves in storage: its `run.json`, and where its files are.

OUTPUT/runs/<run_id>/run.json
OUTPUT/runs/<run_id>/inventory/part-00000.parquet   what it works on, written while the input is listed
OUTPUT/runs/<run_id>/parts/part-00000.parquet       rows of a finished inventory shard, until the run is done
OUTPUT/runs/<run_id>/journal/part-00000.parquet     of stylize: the first rows of a shard that is worked on, until then
OUTPUT/runs/<run_id>/sheet.png                      of stylize: some pictures, each beside what became of it
OUTPUT/runs/<run_id>/losses.png                     of stylize by vgg: how the pictures' losses are spread
OUTPUT/runs/<run_id>/steps/<output_key>/step-00100.jpg   of stylize by vgg, where asked for: pictures as they form
OUTPUT/results/run=<run_id>/part-00000.parquet      rows of 200 shards each, verified, written as these are finished
OUTPUT/failures/run=<run_id>/part-00000.parquet     the same shards' failures, where there are any
OUTPUT/images/                                      of stylize: what was drawn
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa

from celebvision.batch.clock import Measured
from celebvision.job import JobFailed
from celebvision.storage import NotFound, Store

FORMAT = 1
TIMELINE = 240  # points at most
SLOWEST = 20  # keys
LEASE = "runs/lease.json"
IMAGES = "images/"
UNCERTAIN = "uncertain"  # the label of a picture whose probability is under `uncertain_below`
POSITIVE = "positive"  # columns of a part: probability of each target's second class, whatever the label says
IMAGE = "image"  # of a row in a journal: what was drawn, until it is known to be under its name
FAILURE_FIELDS = [("stage", pa.string()), ("error", pa.string()), ("message", pa.string())]


@dataclass
class Run:
    """The record of one job over one inventory, as `run.json` holds it."""

    run_id: str
    verb: str
    state: Literal["listing", "running", "done", "failed", "interrupted"]
    created: str  # ISO 8601, UTC
    config: dict[str, Any]
    model: dict[str, str]  # name, version, weights_sha256
    code_version: str
    inventory: dict[str, int] = field(default_factory=dict)  # shards, keys, bytes: of so much as is listed
    whole: bool = False  # whether all of it is listed
    counts: dict[str, int] = field(default_factory=dict)  # results, uncertain ones, failures, and those by stage
    reasons: dict[str, int] = field(default_factory=dict)  # failures by stage and error, a blank between; once done
    figures: dict[str, float] = field(default_factory=dict)  # what the job told of itself, as Prometheus names it
    losses: dict[str, dict[str, float]] = field(default_factory=dict)  # of vgg: quantiles of each
    distributions: dict[str, dict[str, int]] = field(default_factory=dict)  # of classify: rows in each bin, once done
    drift: dict[str, Any] = field(default_factory=dict)  # of classify: run_id of the baseline, and psi by distribution
    timeline: list[tuple[float, int]] = field(default_factory=list)  # seconds of work, and keys that had ended by then
    slowest: list[tuple[float, str]] = field(default_factory=list)  # seconds until a picture was decoded, and its key
    updated: str = ""
    seconds: float = 0.0  # of work, over all times it was started
    error: str = ""
    retry: str | None = None  # failures: those of the runs before are done again
    format: int = FORMAT

    @property
    def folder(self) -> str:
        """Where all lies that is the run's alone, below the output."""
        return f"runs/{self.run_id}"

    def shard(self, number: int) -> str:
        """The key of a shard of the inventory."""
        return f"{self.folder}/inventory/part-{number:05}.parquet"

    def part(self, number: int) -> str:
        """The key of a shard's rows, until the run is done."""
        return f"{self.folder}/parts/part-{number:05}.parquet"

    def journal(self, number: int) -> str:
        """The key of the first rows of a shard that is worked on."""
        return f"{self.folder}/journal/part-{number:05}.parquet"

    @property
    def sheet(self) -> str:
        """The key of some pictures beside what was drawn of them."""
        return f"{self.folder}/sheet.png"

    def step(self, output_key: str, step: int) -> str:
        """The key of a picture as it forms."""
        return f"{self.folder}/steps/{output_key}/step-{step:05}.jpg"

    @property
    def losses_plot(self) -> str:
        """The key of the losses' distribution."""
        return f"{self.folder}/losses.png"

    def results(self, number: int) -> str:
        """The key of a file of results, once the run is done."""
        return f"results/run={self.run_id}/part-{number:05}.parquet"

    def failures(self, number: int) -> str:
        """The key of a file of failures, once the run is done."""
        return f"failures/run={self.run_id}/part-{number:05}.parquet"

    def mark(self, done: int) -> None:
        """Put into the timeline how many keys have ended; where it grows long, every second point goes."""
        self.timeline.append((round(self.seconds, 1), done))
        if len(self.timeline) > TIMELINE:
            self.timeline = self.timeline[::2]

    def save(self, output: Store) -> None:
        """Put `run.json` anew."""
        self.updated = now()
        output.put(f"{self.folder}/run.json", json.dumps(asdict(self), indent=1).encode())


def load_run(output: Store, run_id: str) -> Run:
    """Read a run's record.

    Raises:
        NotFound: there is no such run.
        JobFailed: its record is not of this version.
    """
    content = json.loads(output.get(f"runs/{run_id}/run.json"))
    if content.get("format") != FORMAT:
        raise JobFailed(f"{output.uri}/runs/{run_id}: format {content.get('format')!r}; this version reads {FORMAT}")
    content.setdefault("whole", content["state"] != "listing")  # earlier versions worked on no other
    # JSON has no tuples.
    points = {name: [(seconds, what) for seconds, what in content.get(name, [])] for name in ("timeline", "slowest")}
    return Run(**content | points)


def find_runs(output: Store, words: str = "") -> list[Run]:
    """All runs, or all that the same words started, oldest first."""
    found = []
    for run_id in output.folders("runs/"):
        if run_id.endswith(f"-{words}" if words else ""):
            try:
                found.append(load_run(output, run_id))
            except NotFound:
                continue  # killed before its first line, or just being deleted: nothing was done
    return found


def delete_run(output: Store, run: Run) -> None:
    """Remove its record and its inventory, the record first: what is left of a deletion cut short is no run."""
    output.delete(f"{run.folder}/run.json")
    output.delete_all(stat.key for stat in output.list(f"{run.folder}/"))


def new_run_id(words: str) -> str:
    """When it began, and a digest of its words; sorted by name is sorted by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{words}"


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def rows_of(shards: list[int], done: list[tuple[Counter[str], Measured]]) -> pa.Table:
    """What a worker gives back: one row a shard, with the counts and what was measured, as `numbers_of` reads them."""
    counts, measured = zip(*done, strict=True)
    columns = {"counts": counts, "measured": [asdict(one) for one in measured]}
    texts = {name: [json.dumps(one) for one in column] for name, column in columns.items()}
    return pa.table({"shard": shards, **texts})


def numbers_of(row: dict[str, Any]) -> tuple[int, Counter[str], Measured]:
    """A row's shard, its counts, and what was measured."""
    return row["shard"], Counter(json.loads(row["counts"])), Measured(**json.loads(row["measured"]))
