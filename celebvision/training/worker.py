"""What Ray Train runs in each worker of a training."""

from __future__ import annotations

from functools import partial
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device, prepare_model

from celebvision.training.loop import Work, train_epochs
from celebvision.training.recipe import Recipe


def run_worker(config: dict[str, Any]) -> bool:
    """Do the `Work` under `work` with the `Recipe` under `recipe`; what `train_epochs` gives."""
    work: Work = config["work"]
    context = ray.train.get_context()
    _tell_number(work, context.get_world_rank(), context.get_world_size())
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(ray.cluster_resources().get("CPU", 1)) // context.get_local_world_size()))
    recipe: Recipe = config["recipe"]
    return train_epochs(recipe.task(device, partial(prepare_model, move_to_device=False)), work, device)


def _tell_number(work: Work, rank: int, world: int) -> None:
    """Where the number of workers may change, say what it is now."""
    again = ray.train.get_checkpoint() is not None
    if rank == 0 and work.settings.min_workers is not None and (again or world < work.settings.workers):
        work.board.warn(f"{'goes on' if again else 'begins'} with {world} of {work.settings.workers} workers")
