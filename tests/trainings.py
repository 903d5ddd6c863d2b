"""What the tests of `train` share: looks at what a run left, and at who works on it."""

import io
import os
import re
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

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


def training_workers(of: int) -> list[int]:
    """Process ids of Ray Train's workers among all that process `of` started."""
    parents, workers = {}, []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            command = (entry / "cmdline").read_bytes()
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if command.startswith(b"ray::") and b"TrainWorker" in command:
                workers.append(int(entry.name))

    def descends(process: int) -> bool:
        return process == of or (process in parents and descends(parents[process]))

    return sorted(filter(descends, workers))


class KilledWorker:
    """Within it, a worker of the only training at `home`, begun by process `of`, is killed after two epochs of its."""

    def __init__(self, home: str, of: int | None = None) -> None:
        self.runs, self.of = f"{home}/_training", of or os.getpid()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._guarded)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join()
        if self.error is not None:
            raise self.error

    def _guarded(self) -> None:
        try:
            self._kill()
        except BaseException as error:  # noqa: BLE001 - it is raised in the test's own thread
            self.error = error

    def _kill(self) -> None:
        until = time.monotonic() + WAIT_S
        while not training_workers(self.of):
            assert time.monotonic() < until, f"no worker came in {WAIT_S} s"
            time.sleep(0.05)
        # What a killed driver began may have gone on for a moment.
        before = [
            epoch for name in open_store(self.runs).folders("") for epoch in checkpointed_epochs(f"{self.runs}/{name}")
        ]
        after = max(before, default=-1) + 2
        run = wait_for_checkpoint(self.runs, after)
        self.kept = history(run).head(after + 1)
        os.kill(max(training_workers(self.of)), signal.SIGKILL)
        self.epochs = len(history(run))

    def check(self, run: str, epochs: int) -> None:
        """Every epoch is there once, and the first are as they were."""
        rows = history(run)
        assert rows["epoch"].tolist() == list(range(epochs))
        assert self.epochs < epochs, "the kill came too late to show anything"
        pd.testing.assert_frame_equal(rows.head(len(self.kept)), self.kept)
