"""The bound that no job can pass: CPU seconds of decoding and the network alone, shared among all cores.

One process of one thread, its pictures already in memory. `alone` leaves the other cores idle; `together` measures as
many processes at once as there are cores, which is what a job on all of them can have where cores share caches.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from celebvision import images
from celebvision.memory import keep_freed_memory
from celebvision.models import create
from celebvision.models.classifier import Classifier
from tests.benchmarks.pictures import batches

BATCH = 64
WARM_UP = 3  # batches, in which kernels are chosen


def cpu_seconds(folder: str, weights: str, arguments: str) -> float:
    """CPU seconds an image."""
    torch.set_num_threads(1)
    keep_freed_memory()
    network = create("cnn", **json.loads(Path(arguments).read_text()))
    network.load_state_dict(load_file(weights))
    classifier = Classifier(network, ("Male",))
    size = classifier.preprocessing

    def label(batch: list[bytes]) -> None:
        pixels = np.stack([images.decode(data, size.height, size.width) for data in batch])
        classifier.probabilities(torch.from_numpy(pixels))

    warm_up = next(batches(Path(folder), BATCH))
    for _ in range(WARM_UP):
        label(warm_up)
    spent, count = 0.0, 0
    for batch in batches(Path(folder), BATCH):
        started = time.process_time()
        label(batch)
        spent += time.process_time() - started
        count += len(batch)
    return spent / count


def main() -> None:
    words = argparse.ArgumentParser()
    for name in ("images", "weights", "arguments"):
        words.add_argument(f"--{name}", required=True)
    given = words.parse_args()
    arguments = (given.images, given.weights, given.arguments)
    cores = os.cpu_count() or 1
    spawn = get_context("spawn")  # torch's threads do not survive a fork
    with spawn.Pool(1) as pool:
        alone = pool.apply(cpu_seconds, arguments)
    with spawn.Pool(cores) as pool:
        together = max(pool.starmap(cpu_seconds, [arguments] * cores, chunksize=1))
    rates = {"alone": cores / alone, "together": cores / together}
    print(json.dumps({f"{name}_images_per_s": rate for name, rate in rates.items()}))


if __name__ == "__main__":
    main()
