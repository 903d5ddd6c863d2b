"""Ray Data's recipe for batch inference on images: `read_images`, a row transform, an actor class, `write_parquet`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import ray
import torch
from ray.data import ActorPoolStrategy
from torchvision import transforms

from tests.benchmarks.peers.task import Task, parser, task_of

BATCH = 64
ACTOR_CPUS = 0.5  # actors that held every core of a small machine would leave none to the reading, which then waits


class Preprocess:
    def __init__(self, height: int, width: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.transform = transforms.Compose(
            [
                transforms.ToTensor(),
                transforms.Resize((height, width)),
                transforms.Normalize(mean, std),
            ]
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"name": row["path"], "input": self.transform(row["image"]).numpy()}


class Model:
    def __init__(self, task: Task) -> None:
        self.task, self.network = task, task.network()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            probabilities = torch.sigmoid(self.network(torch.from_numpy(batch["input"])))[:, 0].numpy()
        self.task.answered(len(probabilities))
        return {"name": batch["name"], "probability": probabilities}


def filesystem(uri: str) -> Any:
    """Arrow's own for S3, told of the endpoint; none, which means guessed, for a folder."""
    if not uri.startswith("s3://"):
        return None
    from pyarrow.fs import S3FileSystem

    return S3FileSystem(endpoint_override=os.environ.get("AWS_ENDPOINT_URL"), region=os.environ["AWS_DEFAULT_REGION"])


def main() -> None:
    task = task_of(parser().parse_args())
    ray.init("local", include_dashboard=False, log_to_driver=False)
    size = task.preprocessing()
    preprocess = Preprocess(size.height, size.width, size.mean, size.std)
    pictures = ray.data.read_images(task.images, filesystem=filesystem(task.images), mode="RGB", include_paths=True)
    actors = ActorPoolStrategy(size=os.cpu_count())
    # A function and not a class of its own pool, as the recipe has it: Ray merges it into the reading.
    pictures.map(lambda row: preprocess(row)).map_batches(
        Model, fn_constructor_args=(task,), batch_size=BATCH, compute=actors, num_cpus=ACTOR_CPUS
    ).write_parquet(task.rows())
    task.done(ray.data.read_parquet(task.rows()).count())


if __name__ == "__main__":
    main()
