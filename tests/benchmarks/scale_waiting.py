"""`classify` on the cluster that `RAY_ADDRESS` names; its networks wait, as a CPU does for its accelerator.

So what grows with workers and nodes can be seen where there are few cores: all of the engine, and no arithmetic.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import ray
import torch
from torch import Tensor

from celebvision import ray_session
from celebvision.batch.run import classify
from celebvision.config import ClassifySettings


def waits(images_per_s: float) -> Callable[[], None]:
    """To be called in each worker before it works."""

    def patch() -> None:
        from celebvision.models.classifier import Classifier

        def probabilities(self: Classifier, pixels: Tensor) -> Tensor:
            time.sleep(len(pixels) / images_per_s)
            return torch.full((len(pixels), 1), 0.75)

        Classifier.probabilities = probabilities  # type: ignore[method-assign]

    return patch


def main() -> None:
    words = argparse.ArgumentParser()
    for name in ("images", "output", "registry"):
        words.add_argument(f"--{name}", required=True)
    words.add_argument("--shard_keys", type=int, required=True)
    words.add_argument("--images_per_s", type=float, required=True)
    given = words.parse_args()
    settings = ClassifySettings(
        input=given.images, output=given.output, model="cnn", registry=given.registry, shard_keys=given.shard_keys
    )
    hook = {"worker_process_setup_hook": waits(given.images_per_s)}
    ray.init(log_to_driver=False, logging_level="ERROR", runtime_env=hook)
    ray_session.start()
    classify(settings)


if __name__ == "__main__":
    main()
