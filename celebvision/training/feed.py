"""The rows of a training on their way from shards to workers.

Ray's processes that plan and split them import this file and nothing of PyTorch, which takes longer than their work.
"""

from __future__ import annotations

from typing import Any

import ray.data
from ray.train import DataConfig

from celebvision.celeba.shards import DataSet, ReadRowGroup, row_groups

READ_CPUS = 0.25  # of a task that decodes, so that tasks fit beside the workers on a two-core machine


def dataset(data: DataSet, split: str, read: ReadRowGroup, seed: int) -> ray.data.Dataset:
    """A split's rows as `read` decodes them, those of the training split in another order each epoch."""
    groups = [{"path": group.path, "number": group.number} for group in row_groups(data, split)]
    rows = ray.data.from_items(groups, override_num_blocks=len(groups))
    if split == "train":
        rows = rows.randomize_block_order(seed=ray.data.RandomSeedConfig(seed=seed))
    return rows.map_batches(read, batch_size=1, num_cpus=READ_CPUS)


class Split(DataConfig):
    """Training rows in equal parts, since every worker must take as many steps; validation rows to the last one."""

    def configure(self, datasets: dict[str, Any], world_size: int, *_: Any, **__: Any) -> list[dict[str, Any]]:
        """Ray Train asks it for each worker's share of each data set."""
        parts: list[dict[str, Any]] = [{} for _ in range(world_size)]
        for name, dataset in datasets.items():
            splits = dataset.streaming_split(world_size, equal=name == "train")
            for part, split in zip(parts, splits, strict=True):
                part[name] = split
        return parts
