"""The rows of a Ray Data job as they come, and an end to it where nothing comes any more."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import ray
from ray.data import Dataset

from celebvision.job import JobFailed
from celebvision.ray_session import Board

LOOK_S = 0.5


def watch(
    dataset: Dataset,
    board: Board,
    stall_timeout_s: float,
    on_row: Callable[[dict[str, Any]], None],
    on_tick: Callable[[float], float],
) -> None:
    """Run the dataset: `on_row` gets every row, and `on_tick` twice a second what the board says is done.

    `on_tick` gives a number that changes as long as something else moves.

    To be called in the main thread, since only that can be woken from its wait for a row: by a signal, as Ctrl-C is.

    Raises:
        JobFailed: for `stall_timeout_s` no row came and nothing else moved; says what waits for what.
        Exception: what `on_row` or `on_tick` raised.
    """
    watchdog = _Watchdog(board, stall_timeout_s, on_tick)
    try:
        with watchdog:
            for row in dataset.iter_rows():
                watchdog.moved = time.monotonic()
                on_row(row)
    except KeyboardInterrupt:
        if watchdog.reason is None:
            raise
    if watchdog.reason is not None:
        raise watchdog.reason


class _Watchdog:
    """A thread that looks after the main one, and interrupts it for a reason."""

    def __init__(self, board: Board, stall_timeout_s: float, on_tick: Callable[[float], float]) -> None:
        self.board, self.stall_timeout_s, self.on_tick = board, stall_timeout_s, on_tick
        self.moved, self.reason = time.monotonic(), None
        self.ended, self.thread = threading.Event(), threading.Thread(target=self._look, name="watchdog", daemon=True)

    reason: Exception | None

    def __enter__(self) -> None:
        self.before = signal.signal(signal.SIGINT, self._interrupted)
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        try:
            self.ended.set()
            self.thread.join()
        finally:
            signal.signal(signal.SIGINT, self.before)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        """Where Ctrl-C is ignored, as by what a script begins with `&`, a reason of ours still counts."""
        if self.reason is not None or self.before is not signal.SIG_IGN:
            signal.default_int_handler(number, frame)

    def _look(self) -> None:
        before = (0.0, 0.0)
        while not self.ended.wait(LOOK_S):
            try:
                done = self.board.done()
                stands = (done, self.on_tick(done))
                self.moved = time.monotonic() if stands != before else self.moved
                before = stands
                if time.monotonic() - self.moved > self.stall_timeout_s:
                    raise JobFailed(_standstill(self.board, self.stall_timeout_s))
            except Exception as error:  # noqa: BLE001 - the main thread raises it
                self.reason = error
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return


def _standstill(board: Board, stall_timeout_s: float) -> str:
    """What was waiting for what."""
    said = [f"  {who}: {words}" for who, words in sorted(board.said().items()) if who]
    free, has = ray.available_resources(), ray.cluster_resources()
    room = ", ".join(f"{free.get(kind, 0):g} of {has[kind]:g} {kind}" for kind in ("CPU", "GPU") if kind in has)
    workers = "\n".join(said) or "  none has started: there may be no room for one, or its start fails or hangs"
    return (
        f"nothing has moved for {stall_timeout_s:g} s (stall_timeout_s); the same command continues.\n"
        f"free in the cluster: {room}\nworkers:\n{workers}"
    )
