"""Ray for one job: start or join it, show how far its workers are, and say plainly what went wrong in one of them."""

from __future__ import annotations

import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import ray_constants
from ray.data import DataContext
from ray.data.exceptions import SystemException
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from celebvision.job import JobFailed, Progress, progress
from celebvision.logs import say
from celebvision.storage import StorageError

STARTS = 3  # of a node, before it is given up
POLL_S = 0.5
PULSE_S = 1.0
Told = list[tuple[str, dict[str, str], float]]  # names, labels and values of figures, see celebvision.metrics
OnLook = Callable[[float, float | None, Told], None]
SILENT_S = 5.0  # after which nobody is counted among those who work


def start(num_cpus: int | None = None) -> None:
    """Join the cluster that `RAY_ADDRESS` names, else start one on this machine that ends with this process.

    Raises:
        JobFailed: Ray's processes are too slow to come on this machine, several times.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a thread that outlives the session must not start another
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A cluster of our own makes its own token; that it did is nothing to act on.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    if not ray.is_initialized():
        if "RAY_ADDRESS" in os.environ:
            ray.init(log_to_driver=False, logging_level=logging.WARNING)
        else:
            _keep_to_loopback()
            _start_here(num_cpus)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray's own would end the process without a word
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # else the words of a worker's error are lost on the way home
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it logs, it raises too: see `clear_errors`


def _start_here(num_cpus: int | None) -> None:
    """Start a node, again where it ended itself since its agent took more than 15 s to come (ray-project/ray#65983)."""
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(
                "local",
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                _node_ip_address="127.0.0.1",
            )
        except Exception as error:  # Ray has no type of its own for it
            if "timed out during startup" not in str(error):
                raise
            if attempt == STARTS:
                raise JobFailed(
                    f"Ray did not start in {STARTS} attempts: this machine may be too busy for it; raylet.err among "
                    "the logs of Ray's last session says more, and the same command tries again"
                ) from error
            say("Ray did not start in time on this busy machine; starting it again", logging.WARNING)
        else:
            return


def _keep_to_loopback() -> None:
    """A cluster of one machine needs no port that others can reach."""
    # Ray's own switch for it. Ray has read the variable when it was imported, the processes that it starts do so yet.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn the error of a remote task or actor into `JobFailed` with the words of what caused it.

    Raises:
        JobFailed: with the root cause's message; the whole remote trace is its `__cause__`.
    """
    try:
        yield
    except ray.exceptions.RayError as error:
        cause = root_cause(error)
        ours = isinstance(cause, StorageError | JobFailed)
        raise JobFailed(str(cause) if ours else f"{type(cause).__name__}: {cause}") from error


def root_cause(error: BaseException) -> BaseException:
    """The exception that a worker raised, beneath what Ray wrapped around it."""
    while isinstance(error, ray.exceptions.RayError):
        beneath = getattr(error, "cause", None) or error.__cause__
        # Ray Data hangs a nameless SystemException beneath an error of its own that says more.
        if not isinstance(beneath, BaseException) or isinstance(beneath, SystemException):
            break
        error = beneath
    return error


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class _Tally:
    """Begins at nothing again if its process is lost: what it says is for people to look at, or is said again."""

    def __init__(self) -> None:
        self.done, self.words = 0.0, ""
        self.total: float | None = None
        self.busy: dict[str, str] = {}
        self.heard: dict[str, float] = {}  # when, on this process's clock
        self.figures: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.warned: list[str] = []
        self.shards, self.whole = 0, False

    def announce(self, shards: int, whole: bool) -> None:
        self.shards, self.whole = shards, whole

    def announced(self) -> tuple[int, bool]:
        return self.shards, self.whole

    def warn(self, words: str) -> None:
        self.warned.append(words)

    def warnings(self) -> list[str]:
        warned, self.warned = self.warned, []
        return warned

    def add(self, count: float, who: str = "", words: str = "") -> None:
        self.done += count
        self.busy[who], self.heard[who] = words, time.monotonic()

    def workers(self) -> int:
        return sum(time.monotonic() - heard < SILENT_S for heard in self.heard.values())

    def tell(self, figures: Told) -> None:
        self.figures |= {(name, tuple(labels.items())): value for name, labels, value in figures}

    def told(self) -> Told:
        told, self.figures = self.figures, {}
        return [(name, dict(labels), value) for (name, labels), value in told.items()]

    def set(self, done: float, words: str, total: float | None) -> None:
        self.done, self.words, self.total = done, words, total

    def read(self) -> tuple[float, str, float | None]:
        return self.done, self.words, self.total

    def said(self) -> dict[str, str]:
        return self.busy


class Board:
    """Where remote workers write how far they are; nobody waits for the ink to dry. It lives where the driver does."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.tally: Any = _Tally.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]

    def add(self, count: float, who: str = "", words: str = "") -> None:
        self.tally.add.remote(count, who, words)

    def set(self, done: float, words: str, total: float | None) -> None:
        self.tally.set.remote(done, words, total)

    def announce(self, shards: int, whole: bool) -> None:
        """So many shards of an inventory may be worked on, and whether these are all."""
        ray.get(self.tally.announce.remote(shards, whole))

    def announced(self) -> tuple[int, bool]:
        """What `announce` said last; no shard, and not all, if nothing yet."""
        shards, whole = ray.get(self.tally.announced.remote())
        return int(shards), bool(whole)

    def warn(self, words: str) -> None:
        """Have the person who watches told, at once and once."""
        self.tally.warn.remote(words)

    def tell(self, figures: Told) -> None:
        """Have the driver tell these figures: names, labels and values of `celebvision.metrics`."""
        self.tally.tell.remote(figures)

    def told(self) -> Told:
        """What workers had told since the last time that somebody asked."""
        told: Told = ray.get(self.tally.told.remote())
        return told

    def workers(self) -> int:
        """How many have said lately that they are at work."""
        return int(ray.get(self.tally.workers.remote()))

    def done(self) -> float:
        return float(ray.get(self.tally.read.remote())[0])

    def said(self) -> dict[str, str]:
        """What each worker was last heard to do."""
        said: dict[str, str] = ray.get(self.tally.said.remote())
        return said

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        ray.kill(self.tally)


class Pulse:
    """In a worker: tells the board every second what it does, for how long, and how many things it has done since."""

    def __init__(self, board: Board, who: str) -> None:
        self.board, self.who = board, f"{who} {os.getpid()} on {platform.node()}"
        self.done = self.told = 0.0
        self("starts")
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __call__(self, words: str, done: float = 0) -> None:
        self.words, self.since = words, time.monotonic()
        self.done += done

    def __enter__(self) -> Pulse:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self("is idle")
        self.ended.set()
        self.thread.join()

    def _beat(self) -> None:
        last = False
        while not last:
            last = self.ended.wait(PULSE_S)
            new = self.done - self.told
            self.told += new
            self.board.add(new, self.who, f"{self.words} (for {time.monotonic() - self.since:.0f} s)")


@contextmanager
def board(title: str, total: float | None, unit: str, on_look: OnLook | None = None) -> Iterator[Board]:
    """A board that is shown as progress on this process's stderr until the block ends.

    Args:
        title: of the progress.
        total: things to be done; none: a worker tells.
        unit: of these.
        on_look: gets what is done, the total, and the figures that workers told, twice a second.
    """
    ended = threading.Event()
    with Board() as shared, progress(title, total, unit) as show:
        reader = threading.Thread(target=_show_until, args=(ended, shared, show, total, on_look), daemon=True)
        reader.start()
        try:
            yield shared
        finally:
            ended.set()
            reader.join()


def _show_until(
    ended: threading.Event, shared: Board, show: Progress, total: float | None, on_look: OnLook | None
) -> None:
    last = False
    while not last:
        last = ended.wait(POLL_S)
        try:
            done, words, told = ray.get(shared.tally.read.remote(), timeout=10)
            for warning in ray.get(shared.tally.warnings.remote(), timeout=10):
                say(warning, logging.WARNING)
            figures = shared.told() if on_look else []
        except ray.exceptions.RayError as error:
            logging.getLogger(__name__).warning("progress is not shown any more: %s", error)
            return
        show(done, words, told or total)
        if on_look:
            on_look(done, told or total, figures)
