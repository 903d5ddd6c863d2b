"""Where a worker's time goes: seconds of each batch in each stage, and what went through meanwhile."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from heapq import heappush, heapreplace

import pyarrow as pa
import pyarrow.compute as pc

from celebvision import storage

STAGES = ("fetch", "decode", "infer", "write")
SLOWEST = 5  # keys of a shard that are named


@dataclass
class Measured:
    """What a shard took, and how its keys ended. It travels as JSON."""

    seconds: dict[str, list[float]] = field(default_factory=dict)  # of each batch, by stage
    wall_s: float = 0.0
    waited_s: float = 0.0  # by the network, for its next batch
    pictures: int = 0  # in batches,
    places: int = 0  # which have room for so many
    read_bytes: int = 0  # of pictures
    written_bytes: int = 0
    retries: dict[str, int] = field(default_factory=dict)  # of requests to storage, by error
    failures: dict[str, int] = field(default_factory=dict)  # by stage and error, a blank between
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)  # of each of these: a key, and the message
    slowest: list[tuple[float, str]] = field(default_factory=list)  # seconds until it was decoded, and key; a heap

    def add(self, before: Measured) -> None:
        """What another worker measured of the same shard before; the pictures in batches are this one's."""
        for stage, seconds in before.seconds.items():
            self.seconds[stage] = seconds + self.seconds.get(stage, [])
        self.read_bytes += before.read_bytes
        self.retries = dict(Counter(self.retries) + Counter(before.retries))
        self.slowest = before.slowest

    def with_failures(self, rows: pa.Table) -> Measured:
        """The same, knowing why rows of a part are no results."""
        failed = rows.filter(pc.is_valid(rows["stage"])).select(("key", "stage", "error", "message")).to_pylist()
        for row in failed:
            kind = f"{row['stage']} {row['error']}"
            self.failures[kind] = self.failures.get(kind, 0) + 1
            self.examples.setdefault(kind, (row["key"], row["message"]))
        return self


class Clock:
    """Takes the time of one shard's work."""

    def __init__(self) -> None:
        self.measured = Measured()
        # Of fetch, decode and infer one thread each adds to it; a lock would cost more than what it guards.
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._lapped = dict(self.seconds)
        self._began, self._retries = time.monotonic(), storage.retries()
        self._lock = threading.Lock()

    def picture(self, key: str, fetch_s: float, decode_s: float, size: int) -> None:
        """A picture of so many bytes was waited for and decoded."""
        self.seconds["fetch"] += fetch_s
        self.seconds["decode"] += decode_s
        self.measured.read_bytes += size
        slowest = self.measured.slowest
        if len(slowest) < SLOWEST:
            heappush(slowest, (fetch_s + decode_s, key))
        elif fetch_s + decode_s > slowest[0][0]:
            heapreplace(slowest, (fetch_s + decode_s, key))

    def wrote(self, seconds: float, size: int) -> None:
        """A picture of so many bytes was encoded and put, by any thread."""
        with self._lock:
            self.seconds["write"] += seconds
            self.measured.written_bytes += size

    def batch(self, pictures: int, places: int) -> None:
        """A batch is done with: what was added since the last one was its time."""
        for stage, seconds in list(self.seconds.items()):
            if seconds > self._lapped[stage]:
                self.measured.seconds.setdefault(stage, []).append(round(seconds - self._lapped[stage], 6))
            self._lapped[stage] = seconds
        self.measured.pictures += pictures
        self.measured.places += places

    def stop(self) -> Measured:
        """All that was measured."""
        self.batch(0, 0)  # what came behind the last one
        self.measured.wall_s = time.monotonic() - self._began
        self.measured.retries = dict(storage.retries() - self._retries)
        return self.measured
