"""One command, measured from outside: its time, what it printed, and the memory of every process it started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "CELEBVISION_BENCHMARK"
TICK_S = 0.1
SAMPLE_S = 0.5
SAMPLE_REST = 50  # times as long as a sample took: looking at many large processes costs what it disturbs
LAST_LINES = 15


@dataclass(frozen=True)
class Ended:
    """How a command ended. error: empty if it went well, else its last words."""

    started: float  # seconds since the epoch
    seconds: float
    peak_bytes: int  # summed proportional set size of all its processes at one moment
    stdout: str
    error: str


def run(
    command: list[str],
    environment: dict[str, str],
    log: Path,
    limit_s: float,
    look: Callable[[], None] = lambda: None,
) -> Ended:
    """Run a command to its end or to the limit; `look` is called all the while. Nothing that it started is left."""
    mark = uuid.uuid4().hex
    with log.with_suffix(".out").open("w+") as out, log.with_suffix(".err").open("w+") as err:
        started, clock = time.time(), time.monotonic()
        process = subprocess.Popen(command, env=environment | {MARK: mark}, stdout=out, stderr=err)
        try:
            peak = _watch(process, mark, clock + limit_s, look)
            seconds = time.monotonic() - clock
            late = process.poll() is None
        finally:
            _end(process, mark)
        out.seek(0)
        err.seek(0)
        last = "\n".join(err.read().strip().splitlines()[-LAST_LINES:])
        error = f"took longer than {limit_s:.0f} s\n{last}" if late else last if process.returncode else ""
        if process.returncode and not error:
            error = f"exit status {process.returncode}"
        return Ended(started, seconds, peak, out.read(), error)


def _watch(process: subprocess.Popen[bytes], mark: str, deadline: float, look: Callable[[], None]) -> int:
    peak, next_sample = 0, time.monotonic()
    while time.monotonic() < deadline:
        with suppress(subprocess.TimeoutExpired):
            process.wait(TICK_S)
            return peak
        look()
        if (started := time.monotonic()) >= next_sample:
            peak = max(peak, sum(_proportional_bytes(pid) for pid in family(process.pid, mark)))
            ended = time.monotonic()
            next_sample = ended + max(SAMPLE_S, SAMPLE_REST * (ended - started))
    return peak


def family(root: int, mark: str) -> set[int]:
    """The process, all that carry the mark in their environment, and their children: daemons leave the tree."""
    parents: dict[int, int] = {}
    found = {root}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        grown = bool(children)
    return found


def _proportional_bytes(pid: int) -> int:
    """Pages shared by several processes count in parts, so that the sum over a family is what it holds."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """End what is left: all of it carries the mark, or is the child of what does."""
    deadline = time.monotonic() + 5
    while (left := _living(process, mark)) and process.poll() is not None and time.monotonic() < deadline:
        time.sleep(TICK_S)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _living(process: subprocess.Popen[bytes], mark: str) -> set[int]:
    return family(process.pid, mark) - ({process.pid} if process.poll() is not None else set())
