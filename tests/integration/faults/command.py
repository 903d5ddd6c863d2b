"""The real command in a process of its own, and all of Ray's processes that it brings with it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

MARK = "CELEBVISION_TEST_MARK"  # in the environment of a command and so of every process that comes from it
# What the tests' own process may have been given, or have set: `celebvision.ray_session` keeps Ray to one node.
CLEARED = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
END_S = 400  # a machine that also does other things takes a minute for what takes 15 s on an idle one
BIN = Path(sys.executable).parent


class Marked:
    """A process with all that come from it, as children or not; leaving the block ends whatever is left of them."""

    def __init__(self, words: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self.mark, self.words = uuid.uuid4().hex, words
        self.stdout_path, self.stderr_path = (log.with_suffix(f".{self.mark}.{end}") for end in ("out", "err"))
        inherited = {name: value for name, value in os.environ.items() if name not in CLEARED}
        # Files, not pipes: who is left behind would hold a pipe open.
        with self.stdout_path.open("wb") as stdout, self.stderr_path.open("wb") as stderr:
            self.process = subprocess.Popen(
                ["env", "--default-signal=INT", *words],  # which a shell ignores in what it starts in the background
                env=inherited | {"OMP_NUM_THREADS": "1", MARK: self.mark} | dict(environment),
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,  # a process group of its own, as a shell gives it: what Ctrl-C goes to
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        wait_until(self._all_ended, "what the test started could not be ended")

    def _all_ended(self) -> bool:
        kill(self.processes())
        self.process.poll()
        return not self.processes()

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text()

    @property
    def stdout(self) -> str:
        return self.stdout_path.read_text()

    def ended(self) -> bool:
        return self.process.poll() is not None

    def status(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(END_S)

    def processes(self, title: str = "") -> list[int]:
        """Living processes of it, with `title` in their command line."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # ended meanwhile
                marked = f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes()
                if marked and title.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return sorted(found)


def kill(processes: list[int], how: signal.Signals = signal.SIGKILL) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, how)


def wait_until(happened: Callable[[], bool], what: str, timeout_s: float = 30, every_s: float = 0.02) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(every_s)


def parts(output: Path) -> int:
    return len(list(output.glob("runs/*/parts/*.parquet")))


def wait_for_a_moment_in_the_middle(command: Marked, output: Path, shards: int, draw: random.Random) -> None:
    """Wait until a number of shards, drawn between the first and two thirds, is done, and up to 0.3 s more.

    A number, not a time: so the moment lies in the middle however fast the machine is.
    """
    done = draw.randint(1, shards * 2 // 3)
    wait_until(lambda: parts(output) >= done or command.ended(), f"no {done} parts came: {command.stderr}", END_S)
    time.sleep(draw.uniform(0, 0.3))
    assert not command.ended(), f"it was over before it was disturbed: {command.status()} {command.stderr}"
