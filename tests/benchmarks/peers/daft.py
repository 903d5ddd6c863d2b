"""Daft's way: a glob of paths, its own download, decoding and resizing, and a class that holds the network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import daft
import numpy as np
import pyarrow.parquet as pq
import torch
from daft import DataType, Series, col
from daft.functions import decode_image, download, resize
from daft.io import IOConfig, S3Config
from torchvision import transforms

from tests.benchmarks.peers.task import Task, parser, task_of

BATCH = 64


@daft.cls
class Model:
    def __init__(self, task: Task) -> None:
        self.task, self.network = task, task.network()
        size = task.preprocessing()
        self.normalise = transforms.Normalize(size.mean, size.std)

    @daft.method.batch(return_dtype=DataType.float32(), batch_size=BATCH)
    def probability(self, images: Series) -> Any:
        pixels = torch.from_numpy(np.stack(images.to_pylist()))  # uint8, B H W 3
        with torch.inference_mode():
            inputs = self.normalise(pixels.permute(0, 3, 1, 2).float() / 255)
            probabilities = torch.sigmoid(self.network(inputs))[:, 0].numpy()
        self.task.answered(len(probabilities))
        return probabilities


def io_config() -> IOConfig:
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    return IOConfig(s3=S3Config(endpoint_url=endpoint, region_name=os.environ.get("AWS_DEFAULT_REGION")))


def main() -> None:
    task = task_of(parser().parse_args())
    size = task.preprocessing()
    config = io_config() if task.images.startswith("s3://") else None
    frame = daft.from_glob_path(f"{task.images}/*.jpg", io_config=config)
    picture = decode_image(download(col("path"), io_config=config), mode="RGB")
    frame = frame.with_column("image", resize(picture, size.width, size.height))
    frame = frame.with_column("probability", Model(task).probability(col("image")))
    frame.select(col("path").alias("name"), col("probability")).write_parquet(task.rows())
    task.done(sum(pq.read_metadata(file).num_rows for file in Path(task.rows()).glob("*.parquet")))


if __name__ == "__main__":
    main()
