"""What the driver knows of a kind of training: what its workers learn, and what becomes of the weights they bring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from celebvision.celeba.shards import ReadRowGroup
from celebvision.training.loop import Task

Parallel = Callable[[nn.Module], nn.Module]  # makes a network compute one gradient with those of the other workers


class Recipe(Protocol):
    """One kind of training, made from settings and data that it refuses (`JobFailed`) where they do not fit it."""

    read: ReadRowGroup  # how rows become batches
    data_digest: str  # stands for all data that are learnt from
    figures: tuple[str, ...]  # of the best epoch, that are published

    def prepare(self) -> None:
        """Get ready in the driver what all workers need; from then on it travels to them."""

    def task(self, device: torch.device, parallel: Parallel) -> Task:
        """In a worker: what it learns."""

    def publish(self, weights: dict[str, Tensor], metrics: dict[str, float]) -> dict[str, str]:
        """Publish the best epoch's weights, and give the version of each model by its name."""
