"""One driver at a time in a place of storage: a lease there that its holder renews.

Whoever finds a lease watches it by its own clock, so that no two machines' clocks are ever compared: a lease that
changes has a living holder, one that stays the same for `EXPIRES_S` has none.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from celebvision.job import JobFailed
from celebvision.storage import Conflict, NotFound, StorageError, Store

RENEW_S = 3.0
EXPIRES_S = 30.0
LOOK_S = 0.5  # between two looks at another's lease

log = logging.getLogger(__name__)


@contextmanager
def lease(store: Store, key: str) -> Iterator[Callable[[], None]]:
    """Hold the lease `key`; gives a function that raises `JobFailed` once somebody else has taken it over.

    Raises:
        JobFailed: another driver holds it.
    """
    holder = _Holder(store, key)
    holder.take()
    renewing = threading.Thread(target=holder.renew, name="lease", daemon=True)
    renewing.start()
    try:
        yield holder.check
    finally:
        holder.ended.set()
        renewing.join()
        holder.release()


def holder_of(store: Store, key: str) -> str | None:
    """Who holds the lease, in words; None: nobody. A holder on another machine may have died since."""
    try:
        held = json.loads(store.get(key))
    except NotFound:
        return None
    return None if _is_dead_neighbour(held) else _words(held)


class _Holder:
    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key, self.etag, self.ended = store, key, "", threading.Event()
        self.lost: str | None = None
        self.me = {"holder": uuid4().hex, **_this_process(), "renewals": 0}

    def _content(self) -> bytes:
        return json.dumps(self.me).encode()

    def take(self) -> None:
        while not self.etag:
            try:
                self.etag = self.store.create(self.key, self._content())
            except Conflict:
                self._take_over()

    def _take_over(self) -> None:
        """Wait until the lease that is there has changed hands, or is known to be nobody's."""
        try:
            seen = self.store.stat(self.key).etag
            held = json.loads(self.store.get(self.key))
            since = time.monotonic()
            while not _is_dead_neighbour(held) and time.monotonic() - since < EXPIRES_S:
                time.sleep(LOOK_S)
                if self.store.stat(self.key).etag != seen:
                    raise JobFailed(f"{self.store.uri}: {_words(held)} works here; wait for it, or stop it")
            self.etag = self.store.replace(self.key, self._content(), seen)
        except (NotFound, Conflict):
            return  # released, or taken by a third

    def renew(self) -> None:
        while not self.ended.wait(RENEW_S):
            self.me["renewals"] += 1
            try:
                self.etag = self.store.replace(self.key, self._content(), self.etag)
            except Conflict as error:
                self.lost = f"another driver took this place over, since this one was not heard of: {error}"
                return
            except StorageError as error:  # while storage is away nobody else can take it either
                log.warning("the lease could not be renewed: %s", error)

    def check(self) -> None:
        if self.lost:
            raise JobFailed(self.lost)

    def release(self) -> None:
        if not self.lost:
            self.store.delete(self.key)


def _this_process() -> dict[str, Any]:
    return {"host": platform.node(), "boot": _boot(), "pid": os.getpid(), "started": _started(os.getpid())}


def _boot() -> str:
    """What tells this start of this machine from others; containers on one machine share it, hence also the host."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process of this machine began, which tells it from a later one of the same number; None: it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]


def _is_dead_neighbour(held: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    here = (platform.node(), _boot())
    return bool(here[1]) and (held["host"], held["boot"]) == here and _started(held["pid"]) != held["started"]


def _words(held: dict[str, Any]) -> str:
    return f"process {held['pid']} on {held['host']}"
