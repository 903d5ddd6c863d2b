"""Our own feeder: Parquet shards through Ray Data, as Ray Train's one worker would get them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from celebvision import ray_session
from celebvision.celeba.shards import DataSet, ReadRowGroup
from celebvision.config import TrainSettings
from celebvision.training.feed import dataset
from celebvision.training.loop import shuffled
from tests.benchmarks.peers.feed import BATCH, SIZE, feed_of, tell


def main() -> None:
    feed = feed_of()
    settings = TrainSettings(data=str(feed.made), registry="none")
    ray_session.start()
    rows = dataset(DataSet.load(settings.data), "train", ReadRowGroup(settings.data, ("Male",), *SIZE), settings.seed)
    (split,) = rows.streaming_split(1, equal=True)

    def epoch(number: int) -> Iterable[tuple[Any, Any]]:
        for batch in shuffled(split, settings, number, BATCH, torch.device("cpu")):
            yield batch["image"], batch["label"]

    tell(epoch)


if __name__ == "__main__":
    main()
