"""How fast the CNN learns from pictures that are there already: one process, a thread for each core."""

from __future__ import annotations

import json
import os
import statistics
import time

import torch

from tests.benchmarks import steps

ROUNDS, STEPS = 7, 8


def main() -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    step, images = steps.classifier("cnn")
    rates = []
    for number in range(ROUNDS + 1):
        started = time.perf_counter()
        for _ in range(STEPS):
            step()
        if number:  # the first does not count
            rates.append(STEPS * images / (time.perf_counter() - started))
    print(json.dumps({"images_per_s": statistics.median(rates)}))


if __name__ == "__main__":
    main()
