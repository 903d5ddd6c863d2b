"""Processes that carry a mark in their environment, which who comes from them inherits: found and ended by it alone."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

MARK = "CELEBVISION_CLUSTER"


def processes(mark: str) -> list[int]:
    """Numbers of the living processes that carry the mark."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _carries(int(path.name), mark)]


def _carries(process: int, mark: str) -> bool:
    try:
        environment = Path(f"/proc/{process}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # ended meanwhile, or another user's
        return False
    return f"{MARK}={mark}".encode() in environment.split(b"\0")


def named(name: str, mark: str) -> list[int]:
    """Those of the mark that are called `name`, without what they have forked and is not yet called otherwise."""
    parents = {}
    for process in processes(mark):
        with suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            called, fields = Path(f"/proc/{process}/stat").read_text().partition("(")[2].rsplit(")", 1)
            if called == name:
                parents[process] = int(fields.split()[1])
    return [process for process, parent in parents.items() if parent not in parents]


def kill(process: int, mark: str) -> bool:
    """Kill it if it is still the one that carries the mark: its number may be another process's by now."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return False
    try:
        if _carries(process, mark):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return False
