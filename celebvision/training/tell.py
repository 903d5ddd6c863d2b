"""What a training tells of itself: rank 0 says it to the board, and the driver to those who watch."""

from __future__ import annotations

import time
from collections.abc import Mapping

from celebvision.metrics import METRICS, Metric, Telling, names
from celebvision.ray_session import Told


def in_epoch(epoch: int, epochs: int, step: int, workers: int, losses: Mapping[str, float]) -> Told:
    """Where the training is: in this epoch, 0-based, behind so many of its steps, with these mean losses so far."""
    told = [_figure(names.EPOCH, epoch), _figure(names.EPOCHS, epochs), _figure(names.STEP, step)]
    told += [_figure(names.WORKERS, workers)]
    return told + [_figure(names.LOSS, loss, loss=name) for name, loss in losses.items() if name in names.LOSSES]


def after_epoch(metrics: Mapping[str, float], validated: Mapping[str, float], warnings: int) -> Told:
    """What an epoch was worth: its row of the history, the figures on the validation split, and what looked wrong."""
    told = [_figure(names.EPOCH, metrics["epoch"] + 1), _figure(names.DATA_WAIT, metrics["wait_share"])]
    told += [_figure(names.WARNINGS, warnings)]
    return told + [
        _figure(names.VALIDATION, validated[name], figure=name) for name in names.VALIDATED if name in validated
    ]


def after_checkpoint(seconds: float) -> Told:
    """A checkpoint was written, and took so long."""
    return [_figure(names.CHECKPOINT_SECONDS, seconds), _figure(names.CHECKPOINTED, time.time())]


def _figure(metric: Metric, value: float, **labels: str) -> tuple[str, dict[str, str], float]:
    return metric.name, labels, float(value)


class Teller:
    """In the driver: puts what rank 0 told among the figures of the job."""

    def __init__(self, told: Telling) -> None:
        self.told = told

    def __call__(self, done: float, total: float | None, figures: Told) -> None:
        for name, labels, value in figures:
            self.told.figures.set(METRICS[name], value, **labels)
        if total:
            self.told.done(done, total)
