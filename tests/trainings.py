"""What the tests of `train` share: looks at what a run left, and at who works on it."""

import io
import re
import time
from pathlib import Path

import pandas as pd

from celebvision.storage import NotFound, open_store

WAIT_S = 120


def history(run: str) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(open_store(run).get("history.parquet")))


def wait_for_checkpoint(runs: str, epoch: int) -> str:
    """The folder of the only run, once Ray Train has taken down a checkpoint of `epoch` or a later one."""
    store, until = open_store(runs), time.monotonic() + WAIT_S
    while time.monotonic() < until:
        for name in store.folders(""):
            if any(taken >= epoch for taken in checkpointed_epochs(f"{runs}/{name}")):
                return f"{runs}/{name}"
        time.sleep(0.05)
    raise AssertionError(f"{runs} has no checkpoint of epoch {epoch} after {WAIT_S} s")


def checkpointed_epochs(run: str) -> list[int]:
    try:
        snapshot = open_store(run).get("checkpoint_manager_snapshot.json").decode()
    except NotFound:
        return []
    return [int(number) for number in re.findall(r'"epoch": ?(\d+)', snapshot)]


def training_workers() -> list[int]:
    """Process ids of Ray Train's workers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if command.startswith(b"ray::") and b"TrainWorker" in command:
                found.append(int(entry.name))
    return found
