"""The inventory as it grows: a thread of the driver lists, and workers take what it has written meanwhile."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import dropwhile, islice
from typing import Self

import pyarrow as pa

from celebvision.batch.inventory import begun, due_among, write_shard
from celebvision.batch.record import Run
from celebvision.batch.sources import pictures
from celebvision.config import BatchSettings
from celebvision.job import JobFailed
from celebvision.ray_session import Board
from celebvision.storage import Stat, Store

WRITERS = 4  # shards that are on their way to storage
STOP_S = 30.0  # for an answer that is waited for when the listing is to end
FOLLOW_S = 0.2
GIVE_WAY = 9.0  # seconds of waiting for each second of computing


class Listing:
    """Writes the inventory of a run while the block lasts, from where it was cut off; nothing if it is whole.

    Shards are told of in order: of each when it and all those before it are in storage.
    """

    def __init__(
        self,
        settings: BatchSettings,
        output: Store,
        run: Run,
        earlier: list[Run],
        check: Callable[[], None] = lambda: None,
        on_shard: Callable[[], None] = lambda: None,
    ) -> None:
        """`check` raises where no shard may be written any more; `on_shard` is called for each that is there."""
        self.settings, self.output, self.run, self.earlier = settings, output, run, earlier
        self.check, self.on_shard = check, on_shard
        self.seen = 0  # keys, wanted or not
        self.listed = 0  # pictures, answered or not
        self.counts = run.inventory if run.whole else {"shards": 0, "keys": 0, "bytes": 0}
        self.whole, self.stopped = run.whole, False
        self.error: Exception | None = None
        self.changed = threading.Condition()
        self.free = threading.Event()  # unless something else wants the driver's cores
        self.free.set()
        self.line: deque[tuple[Future[None], dict[str, int]]] = deque()  # on their way, and the counts up to each
        self.thread = threading.Thread(target=self._list, name="listing", daemon=True)

    def __enter__(self) -> Self:
        if not self.whole:
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped = True
        self.free.set()
        if self.thread.ident is not None:
            self.thread.join(STOP_S)

    def give_way(self) -> None:
        """Leave most of the driver's cores to what starts now, until `free` is set."""
        self.free.clear()

    def stands(self) -> tuple[dict[str, int], bool]:
        """Shards that are there, their keys and bytes; and whether they are all."""
        with self.changed:
            return self.counts, self.whole

    def refuse_if_it_failed(self) -> None:
        """Raises what ended the listing before its time."""
        if self.error is not None:
            raise self.error

    def wait(self, shards: float) -> None:
        """Until so many shards are there, or all. Raises as `refuse_if_it_failed`."""
        with self.changed:
            self.changed.wait_for(lambda: self.whole or self.error or self.counts["shards"] >= shards)
        self.refuse_if_it_failed()

    def _list(self) -> None:
        try:
            self._write()
            with self.changed:
                self.whole = True
                self.changed.notify_all()
        except Exception as error:  # noqa: BLE001 - the driver raises it
            with self.changed:
                self.error = error
                self.changed.notify_all()

    def _write(self) -> None:
        counts, last = begun(self.output, self.run)
        self._tell(counts)
        shard_keys = self.run.config.get("shard_keys", self.settings.shard_keys)  # as it began
        if counts["keys"] < counts["shards"] * shard_keys:
            return  # only the very last shard is a short one
        with (
            closing(pictures(self.settings, self._seen)) as found,
            ThreadPoolExecutor(WRITERS, "inventory") as pool,
        ):
            fresh = due_among(self._listed(found), self.settings, self.output, self.earlier)
            fresh = dropwhile(lambda stat: stat.key <= last, fresh)
            computed = time.thread_time()
            while shard := list(islice(fresh, shard_keys)):
                self.free.wait(GIVE_WAY * (time.thread_time() - computed))
                computed = time.thread_time()
                self.check()
                number = counts["shards"]
                size = sum(stat.size for stat in shard)
                counts = {"shards": number + 1, "keys": counts["keys"] + len(shard), "bytes": counts["bytes"] + size}
                written = pool.submit(write_shard, self.output, self.run.shard(number), shard, counts)
                self.line.append((written, counts))
                written.add_done_callback(self._arrived)
                if oldest := self._oldest(WRITERS):
                    oldest.result()
            while oldest := self._oldest(1):
                oldest.result()
                self._arrived(oldest)

    def _seen(self, stats: Iterator[Stat]) -> Iterator[Stat]:
        for stat in stats:
            self._refuse_if_stopped()
            self.seen += 1
            yield stat

    def _listed(self, stats: Iterator[Stat]) -> Iterator[Stat]:
        for stat in stats:
            self._refuse_if_stopped()
            self.listed += 1
            yield stat

    def _refuse_if_stopped(self) -> None:
        if self.stopped:
            raise JobFailed("the listing was stopped")

    def _oldest(self, of: int) -> Future[None] | None:
        """What has been on its way for the longest, if there are so many."""
        with self.changed:
            return self.line[0][0] if len(self.line) >= of else None

    def _arrived(self, _: Future[None]) -> None:
        """Tell of the first in line and of those behind it, as far as they are there."""
        with self.changed:
            while self.line and self.line[0][0].done() and self.line[0][0].exception() is None:
                self._tell(self.line.popleft()[1])
                self.on_shard()

    def _tell(self, counts: dict[str, int]) -> None:
        with self.changed:
            self.counts = counts
            self.changed.notify_all()


class FollowListing:
    """Ray Data's first operator: gives the number of each shard that is not finished yet, once it is on the board.

    It gives the same numbers in the same order if Ray begins it again.
    """

    def __init__(self, board: Board, finished: set[int]) -> None:
        self.board, self.finished = board, finished

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Ends when all are given, or with Ray's error when the board is gone."""
        begun, whole = 0, False
        while not whole:
            shards, whole = self.board.announced()
            for number in range(begun, shards):
                if number not in self.finished:
                    yield pa.table({"shard": [number]})
            begun = max(begun, shards)  # a board that begins at nothing again is soon told again
            if not whole:
                time.sleep(FOLLOW_S)
