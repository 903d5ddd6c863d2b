"""The one training loop: what each Ray Train worker runs, whatever the task.

A task owns its networks, losses and optimisers; the loop owns epochs, checkpoints, history and progress. Everything
random in an epoch follows from (seed, epoch, rank), so a training that goes on after a kill draws what it would have.
"""

from __future__ import annotations

import io
import math
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import ray.train
import safetensors.torch
import torch
from numpy.typing import NDArray
from ray.train import Checkpoint
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from celebvision import images
from celebvision.config import TrainSettings
from celebvision.job import JobFailed
from celebvision.ray_session import Board
from celebvision.storage import NotFound, open_store
from celebvision.training.files import HISTORY, PICTURES
from celebvision.training.tell import after_checkpoint, after_epoch, in_epoch

STATE, WEIGHTS = "state.pt", "weights.safetensors"
SCORE = "score"
BOARD_INTERVAL_S = 0.5
PREFETCHED = 2  # batches

Batch = dict[str, Tensor]


class Task(Protocol):
    """What is learnt: networks, losses and optimisers. The same on every worker."""

    epochs: int

    def start_epoch(self, epoch: int) -> None:
        """Make ready for an epoch (0-based): what is trainable, which rate."""

    def step(self, batch: Batch, share: float) -> dict[str, Tensor]:
        """Learn from one batch; `share` is how much of the epoch is behind it. Gives losses of this rank, detached."""

    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Figures over all workers' batches; `score` among them decides which epoch is best, higher is better."""

    def state(self) -> dict[str, Any]:
        """All that a later `load_state` needs: tensors, numbers, strings, and dicts and lists of them."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""

    def weights(self) -> dict[str, Tensor]:
        """What is published."""

    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        """What people look at after an epoch, by name, uint8 H W 3. Only rank 0 is asked."""

    def warnings(self) -> list[str]:
        """What went wrong in the epoch without ending it, and what to do."""


@dataclass(frozen=True)
class Work:
    """What a worker is told."""

    settings: TrainSettings
    run: str  # URI of the run's folder
    epoch_rows: int
    board: Board


@dataclass
class _Standing:
    """How far the training is; the same on every rank, and part of every checkpoint."""

    epoch: int = 0  # the next one
    best: float = float("-inf")
    stale: int = 0  # epochs since the best

    def judge(self, score: float) -> None:
        self.stale = 0 if score > self.best else self.stale + 1
        self.best = max(self.best, score)
        self.epoch += 1


def train_epochs(task: Task, work: Work, device: torch.device) -> bool:
    """Run the epochs that are left, from the last checkpoint if there is one. Every rank calls it; rank 0 writes.

    Returns:
        False: a node of one of the ranks drains, and what is left is to be done without it.
    """
    context = ray.train.get_context()
    settings, rank, world = work.settings, context.get_world_rank(), context.get_world_size()
    feed = _Feed(settings, max(1, settings.batch_size // world), device)
    steps = (work.epoch_rows // world) // feed.batch_size
    standing = _restore(task)
    with _Record(work.run, standing.epoch) if rank == 0 else nullcontext() as record:
        while standing.epoch < task.epochs and not (settings.patience and standing.stale >= settings.patience):
            if ray.train.get_preemption_info() is not None:  # the same on every rank
                return False
            epoch, started = standing.epoch, time.monotonic()
            torch.manual_seed((settings.seed * 100_003 + epoch) * 1009 + rank)
            task.start_epoch(epoch)
            losses = _train_epoch(
                task, feed.training(epoch, steps), steps, _Teller(work.board, epoch, task, steps, world, feed)
            )
            train_s = time.monotonic() - started
            figures = task.validate(feed.validation())
            standing.judge(figures[SCORE])
            metrics = {"epoch": epoch, **losses, **figures, "train_s": train_s, "epoch_s": time.monotonic() - started}
            metrics |= {"images_per_s": steps * feed.batch_size * world / train_s, "wait_share": feed.wait_s / train_s}
            metrics["workers"] = world
            if record:
                record.add(metrics, task.pictures())
                warnings = task.warnings()
                for words in warnings:
                    work.board.warn(f"epoch {epoch + 1}: {words}")
                work.board.tell(after_epoch(metrics, figures, len(warnings)))
            started = time.monotonic()
            _save(task, standing, metrics, rank)
            if rank == 0:
                work.board.tell(after_checkpoint(time.monotonic() - started))
    return True


def _train_epoch(task: Task, batches: Iterable[Batch], steps: int, tell: _Teller) -> dict[str, float]:
    """Mean losses of this rank's share of an epoch; it ends early if they are not numbers any more."""
    sums: dict[str, Tensor] = {}
    count = 0
    for count, batch in enumerate(batches, start=1):
        losses = task.step(batch, (count - 1) / steps)
        for name, loss in losses.items():
            sums[name] = sums.get(name, torch.zeros((), device=loss.device)) + loss.float()
        tell(count, sums)
    means = {name: float(total) / max(count, 1) for name, total in sums.items()}
    broken = [name for name, mean in means.items() if not math.isfinite(mean)]
    if broken:
        raise JobFailed(f"{', '.join(broken)} is not a number any more: take a smaller learning_rate")
    return means


def shuffled(
    shard: ray.data.DataIterator, settings: TrainSettings, epoch: int, batch_size: int, device: torch.device
) -> Iterable[Batch]:
    """A rank's whole batches of an epoch, each row drawn from `shuffle_buffer` rows."""
    batches: Iterable[Batch] = shard.iter_torch_batches(
        batch_size=batch_size,
        drop_last=True,
        device=device,
        prefetch_batches=PREFETCHED,
        local_shuffle_buffer_size=max(settings.shuffle_buffer, batch_size),
        local_shuffle_seed=settings.seed * 100_003 + epoch,
    )
    return batches


class _Feed:
    """This rank's batches on its device, and how long it waited for them."""

    def __init__(self, settings: TrainSettings, batch_size: int, device: torch.device) -> None:
        self.settings, self.batch_size, self.device, self.wait_s = settings, batch_size, device, 0.0

    def training(self, epoch: int, steps: int) -> Iterator[Batch]:
        self.wait_s = 0.0
        shard = ray.train.get_dataset_shard("train")
        iterator = iter(shuffled(shard, self.settings, epoch, self.batch_size, self.device))
        for _ in range(steps):
            asked = time.monotonic()
            batch = next(iterator, None)
            self.wait_s += time.monotonic() - asked
            if batch is None:
                return
            yield batch

    def validation(self) -> Iterator[Batch]:
        shard = ray.train.get_dataset_shard("valid")
        yield from shard.iter_torch_batches(
            batch_size=self.settings.batch_size, device=self.device, prefetch_batches=PREFETCHED
        )


class _Teller:
    """Rank 0 tells the board now and then how far it is."""

    def __init__(self, board: Board, epoch: int, task: Task, steps: int, world: int, feed: _Feed) -> None:
        self.board, self.epoch, self.epochs, self.steps = board, epoch, task.epochs, steps
        self.images_a_step, self.world = feed.batch_size * world, world
        self.told = 0.0
        self.tells = ray.train.get_context().get_world_rank() == 0

    def __call__(self, step: int, sums: dict[str, Tensor]) -> None:
        if not self.tells or (time.monotonic() - self.told < BOARD_INTERVAL_S and step < self.steps):
            return
        self.told = time.monotonic()
        means = {name: float(total) / step for name, total in sums.items()}
        losses = " ".join(f"{name} {mean:.4f}" for name, mean in means.items())
        done = (self.epoch * self.steps + step) * self.images_a_step
        words = f"epoch {self.epoch + 1}/{self.epochs} {losses}"
        self.board.set(done, words, self.epochs * self.steps * self.images_a_step)
        self.board.tell(in_epoch(self.epoch, self.epochs, step, self.world, means))


def _restore(task: Task) -> _Standing:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return _Standing()
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / STATE, map_location="cpu", weights_only=True)
    task.load_state(state["task"])
    return _Standing(**state["standing"])


def _save(task: Task, standing: _Standing, metrics: dict[str, float], rank: int) -> None:
    """Checkpoint and report; a barrier. The name is the epoch's, so that an epoch done again replaces its own."""
    if rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"task": task.state(), "standing": asdict(standing)}, Path(folder) / STATE)
        safetensors.torch.save_file(task.weights(), Path(folder) / WEIGHTS)
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


class _Record:
    """Figures and pictures of each epoch, as `history.parquet`, PNG and TensorBoard files in the run's folder."""

    def __init__(self, run: str, first_epoch: int) -> None:
        self.store = open_store(run)
        try:
            rows = pd.read_parquet(io.BytesIO(self.store.get(HISTORY))).to_dict("records")
        except NotFound:
            rows = []
        self.rows: list[dict[str, Any]] = [row for row in rows if row["epoch"] < first_epoch]
        self.folder = tempfile.TemporaryDirectory()
        self.board = SummaryWriter(self.folder.name)

    def __enter__(self) -> _Record:
        return self

    def __exit__(self, *_: object) -> None:
        self.board.close()
        self.folder.cleanup()

    def add(self, metrics: dict[str, float], pictures: dict[str, NDArray[np.uint8]]) -> None:
        epoch = int(metrics["epoch"])
        self.rows.append(metrics)
        content = io.BytesIO()
        pd.DataFrame(self.rows).to_parquet(content, index=False)
        self.store.put(HISTORY, content.getvalue())
        for name, value in metrics.items():
            self.board.add_scalar(name, value, epoch)
        for name, pixels in pictures.items():
            self.board.add_image(name, pixels, epoch, dataformats="HWC")
            self.store.put(f"{PICTURES}/epoch-{epoch + 1:04}-{name}.png", images.encode(pixels, "png"))
        self.board.flush()
        for path in Path(self.folder.name).iterdir():
            self.store.put(f"tensorboard/{path.name}", path.read_bytes())
