"""What the tests of `train` share: looks at what a run left, and at who works on it."""

import io
import os
import re
import signal
import time
from pathlib import Path

import pandas as pd
import ray

from celebvision import ray_session
from celebvision.celeba.drawn import write_dataset
from celebvision.celeba.ingest import ingest
from celebvision.celeba.shards import DataSet
from celebvision.config import IngestSettings, TrainSettings
from celebvision.storage import NotFound, open_store
from celebvision.training.classifier_recipe import ClassifierRecipe

WAIT_S = 300  # a start alone takes a minute and more where others work on the same cores


def drawn_shards(folder: Path, count: int) -> str:
    """Shards of drawn faces with all attributes, made below `folder`."""
    write_dataset(folder / "original", count, seed=1)
    if own := not ray.is_initialized():
        ray_session.start(num_cpus=1)  # else Ray would join whatever cluster was last begun on this machine
    ingest(IngestSettings(source=str(folder / "original"), output=str(folder / "shards")))
    if own:
        ray.shutdown()
    return str(folder / "shards")


def recipe_of(shards: str, home: Path) -> ClassifierRecipe:
    """A small CNN of two targets, to be trained on `shards` and published at `home`."""
    settings = TrainSettings(data=shards, registry=str(home), arguments={"width": 8}, targets=["Male", "Young"])
    return ClassifierRecipe(settings, DataSet.load(shards))


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


class KillInTheThirdEpoch:
    """Kills one worker of the only training at `home`, once two epochs are in its checkpoints."""

    def __init__(self, home: str) -> None:
        self.home = home

    def __call__(self) -> None:
        run = wait_for_checkpoint(f"{self.home}/_training", 1)
        self.kept = history(run).head(2)
        os.kill(max(training_workers()), signal.SIGKILL)
        self.epochs = len(history(run))

    def check(self, run: str, epochs: int) -> None:
        """Every epoch is there once, and the first two are as they were."""
        rows = history(run)
        assert rows["epoch"].tolist() == list(range(epochs))
        assert self.epochs < epochs, "the kill came too late to show anything"
        pd.testing.assert_frame_equal(rows.head(2), self.kept)
