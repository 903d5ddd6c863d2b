"""The contest: every contestant on the same pictures, one after the other, round after round."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.benchmarks.contestants import BOUND, OURS, Contestant, bound_command, environment
from tests.benchmarks.network import CLASSES, Model
from tests.benchmarks.processes import SAMPLE_REST, Ended, run

ALIKE = 0.95  # share of the labels that a peer must have in common with us


@dataclass
class Contest:
    """One set of pictures and who runs on it."""

    folder: Path  # the pictures on this machine
    images: str  # where the contestants read them
    count: int
    work: Path
    model: Model
    limit_s: float
    contestants: list[Contestant]
    rounds: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def run(self, rounds: int) -> dict[str, Any]:
        """Interleaved, each round begun by another, so that a machine that slows down slows all of them."""
        names = [BOUND, *[contestant.name for contestant in self.contestants]]
        by_name = {contestant.name: contestant for contestant in self.contestants}
        self.rounds = {name: [] for name in names}
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                if name not in self.errors:  # what failed once would fail again
                    self._one(name, by_name.get(name))
        return self._summary(by_name)

    def _one(self, name: str, contestant: Contestant | None) -> None:
        output = self.work / "output" / self.folder.name / name
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        log = output.with_name(f"{name}.log")
        watcher = Parts(output)
        command = contestant.command(self.images, self.count, output) if contestant else self._bound()
        ended = run(command, environment(self.work), log, self.limit_s, watcher.look)
        try:
            if ended.error:
                raise Failed(ended.error)
            self.rounds[name].append(self._figures(name, ended, output, watcher))
        except (Failed, OSError, KeyError, ValueError, IndexError) as error:
            self.errors[name] = f"{type(error).__name__}: {error}\n{ended.stdout[-1000:]}"
        told = self.errors.get(name) or json.dumps(self.rounds[name][-1])
        print(f"{self.folder.name} {name}: {told}", file=sys.stderr, flush=True)

    def _bound(self) -> list[str]:
        return bound_command(self.folder, self.model)

    def _figures(self, name: str, ended: Ended, output: Path, watcher: Parts) -> dict[str, float]:
        if name == BOUND:
            figures: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
            return figures
        told = watcher.figures(ended, self.count) if name == OURS else json.loads(ended.stdout.splitlines()[-1])
        rows = len(answers(name, output))
        if rows != self.count:
            raise Failed(f"{rows} rows for {self.count} images")
        steady = told["steady_images_per_s"]
        return {
            "seconds": ended.seconds,
            "first_s": told["first_s"],
            "steady_images_per_s": steady,
            "peak_bytes": ended.peak_bytes,
        }

    def _summary(self, by_name: dict[str, Contestant]) -> dict[str, Any]:
        medians = {name: _medians(rounds) for name, rounds in self.rounds.items()}
        summary: dict[str, Any] = {}
        for name, contestant in by_name.items():
            summary[name] = {"version": contestant.version, **medians[name], "rounds": self.rounds[name]}
            if name in self.errors:
                summary[name]["error"] = self.errors[name]
            elif medians[name] and medians.get(OURS) and name != OURS:
                summary[name] |= _ratios(medians[OURS], medians[name]) | self._agreement(name)
        if medians[BOUND] and medians.get(OURS):
            steady = medians[OURS]["steady_images_per_s"]
            medians[BOUND]["ours_of_alone"] = steady / medians[BOUND]["alone_images_per_s"]
            medians[BOUND]["ours_of_together"] = steady / medians[BOUND]["together_images_per_s"]
        return {"bound": medians[BOUND] | ({"error": self.errors[BOUND]} if BOUND in self.errors else {}), **summary}

    def _agreement(self, name: str) -> dict[str, Any]:
        folder = self.work / "output" / self.folder.name
        mine, theirs = answers(OURS, folder / OURS), answers(name, folder / name)
        same = sum((mine[key] > 0.5) == (theirs[key] > 0.5) for key in mine) / len(mine)
        apart = sum(abs(mine[key] - theirs[key]) for key in mine) / len(mine)
        return {"same_labels": same, "mean_difference": apart, "agrees": same >= ALIKE}


class Failed(Exception):
    """A contestant that did not do the work; the message says what it left undone."""


class Parts:
    """Sees our command's parts appear, which it does not tell the time of."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.seen: dict[Path, tuple[float, int]] = {}  # when it was there, and its rows
        self.next_look = 0.0

    def look(self) -> None:
        """Less often where there are many parts: looking at a thousand costs what it disturbs."""
        if (started := time.monotonic()) < self.next_look:
            return
        for part in self.output.glob("runs/*/parts/*.parquet"):
            if part not in self.seen:
                self.seen[part] = part.stat().st_mtime, pq.read_metadata(part).num_rows
        ended = time.monotonic()
        self.next_look = ended + SAMPLE_REST * (ended - started)

    def phases(self, ended: Ended) -> dict[str, float]:
        """Seconds until the first part, from there to the last, an image's share of that, and to the command's end."""
        times = sorted(time for time, _ in self.seen.values())
        times = times or [max(file.stat().st_mtime for file in self.output.glob("results/*/*.parquet"))]  # gone at once
        first_s, last_s = times[0] - ended.started, times[-1] - ended.started
        later = sum(rows for _, rows in sorted(self.seen.values())[1:])
        image_s = (last_s - first_s) / later if later else 0.0
        return {"first_s": first_s, "work_s": last_s - first_s, "image_s": image_s, "finish_s": ended.seconds - last_s}

    def figures(self, ended: Ended, count: int, workers: int = os.cpu_count() or 1) -> dict[str, float]:
        """The rate counts from the first part of every worker on: theirs are ready at nearly the same time."""
        parts = sorted(self.seen.values())[:workers]
        if not parts:
            raise Failed("no part was seen")
        last = max(file.stat().st_mtime for file in self.output.glob("results/*/*.parquet"))
        steady = (count - sum(rows for _, rows in parts)) / (last - parts[-1][0])
        return {"first_s": parts[0][0] - ended.started, "steady_images_per_s": steady}


def answers(name: str, output: Path) -> dict[str, float]:
    """The probability of the second class, by the file's name."""
    if name == OURS:
        rows = [row for file in output.glob("results/*/*.parquet") for row in pq.read_table(file).to_pylist()]
        return {
            row["key"].rpartition("/")[2]: row["probability"] if row["label"] == CLASSES[1] else 1 - row["probability"]
            for row in rows
        }
    rows = [row for file in (output / "rows").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    return {row["name"].rpartition("/")[2]: row["probability"] for row in rows}


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]} if rounds else {}


def _ratios(mine: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    return {
        "speedup_total": theirs["seconds"] / mine["seconds"],
        "speedup_steady": mine["steady_images_per_s"] / theirs["steady_images_per_s"],
    }
