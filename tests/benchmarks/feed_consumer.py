"""How fast the CNN learns from pictures that are there already: one process, a thread for each core."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from celebvision.config import TrainSettings
from celebvision.training.classification import Classification
from tests.benchmarks.contestants import REPOSITORY
from tests.benchmarks.peers.feed import BATCH, SIZE

ROUNDS, STEPS = 7, 8
CONFIG = Path("configs/train/cnn.yaml")


def main() -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    words = yaml.safe_load((REPOSITORY / CONFIG).read_text())
    settings = TrainSettings(data="none", registry="none", **words)
    task = Classification(settings, ("Male",), torch.device("cpu"), lambda network: network)
    task.start_epoch(0)
    pixels = np.random.default_rng(0).integers(0, 255, (BATCH, *SIZE, 3), dtype=np.uint8)
    batch = {"image": torch.from_numpy(pixels), "label": torch.zeros(BATCH, 1)}
    rates = []
    for number in range(ROUNDS + 1):
        started = time.perf_counter()
        for _ in range(STEPS):
            task.step(batch, 0.0)
        if number:  # the first does not count
            rates.append(STEPS * BATCH / (time.perf_counter() - started))
    print(json.dumps({"images_per_s": statistics.median(rates)}))


if __name__ == "__main__":
    main()
