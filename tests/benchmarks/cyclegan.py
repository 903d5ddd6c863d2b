"""CycleGAN's training step and inference against the paper's, typed straightforwardly; and what two workers cost.

All in one run and in turns, so that a machine that slows down slows both; medians, and their ratio.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from celebvision.config import TrainSettings
from celebvision.models.cyclegan import CycleGAN
from celebvision.models.features import VGGStatistics
from celebvision.models.stylizer import Stylizer
from celebvision.training.cyclegan import CycleGANTask, Judged
from tests.benchmarks.paper_cyclegan import Paper, generator
from tests.benchmarks.pictures import noise

SIZE, WIDTH, BLOCKS, BATCH = 64, 32, 4, 8  # as configs/train/cyclegan_sketch_small.yaml
ROUNDS = 9
STEPS = 3  # a round
WORKER_STEPS = 25


class _Noise:
    """Stands for a style set."""

    def __init__(self, size: int, count: int) -> None:
        self.size, self.count = size, count

    def load(self, seed: int) -> None:
        self.pixels = noise(self.count, self.size, self.size).numpy()

    def draw(self, count: int, generator: torch.Generator) -> NDArray[np.uint8]:
        return self.pixels[:count]


def settings_of(size: int = SIZE, width: int = WIDTH, blocks: int = BLOCKS, batch: int = BATCH) -> TrainSettings:
    return TrainSettings(
        data="none",
        registry="none",
        style_data="none",
        architecture="cyclegan",
        arguments={"size": size, "width": width, "blocks": blocks},
        batch_size=batch,
        cyclegan={"diff_augment": ["colour", "translation", "cutout"]},
    )


def task_of(
    settings: TrainSettings,
    parallel: Callable[[nn.Module], nn.Module] = lambda network: network,
    device: str = "cpu",
) -> CycleGANTask:
    size = settings.arguments["size"]
    pixels = noise(BATCH, size, size).numpy()
    judged = Judged(pixels, pixels, VGGStatistics("relu1_1"))
    task = CycleGANTask(settings, judged, torch.device(device), 0, 1, parallel)
    task.styles = _Noise(size, settings.batch_size)  # type: ignore[assignment]
    task.start_epoch(0)
    return task


def measured() -> dict[str, float]:
    """Rates and ratios, by name; on stderr as well, in words."""
    figures = step() | inference() | workers()
    for name, figure in figures.items():
        print(f"{name:<52} {figure:>10.2f}", file=sys.stderr)
    return {name: round(figure, 3) for name, figure in figures.items()}


def step() -> dict[str, float]:
    ours, paper = task_of(settings_of()), Paper(WIDTH, BLOCKS, 64, 5.0)
    batch = {"image": noise(BATCH, 72, 72)}
    images = torch.rand(BATCH, 3, SIZE, SIZE) * 2 - 1

    def theirs() -> None:
        paper.step(images, images)

    return _in_turns("cyclegan_step", lambda: ours.step(batch, 0), theirs, BATCH, STEPS)


def inference() -> dict[str, float]:
    stylizer, network = Stylizer(CycleGAN(size=SIZE, width=WIDTH, blocks=BLOCKS)), generator(WIDTH, BLOCKS).eval()
    pixels = noise(BATCH, 128, 128)

    def theirs() -> None:
        with torch.no_grad():
            images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
            ((network(images) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    return _in_turns("cyclegan_inference_128", lambda: stylizer.draw(pixels), theirs, BATCH, STEPS)


def _in_turns(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], images: int, steps: int
) -> dict[str, float]:
    seconds: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
    for number in range(ROUNDS + 1):
        for work in seconds:
            started = time.perf_counter()
            for _ in range(steps):
                work()
            if number:  # the first does not count
                seconds[work].append(time.perf_counter() - started)
    rates = [images * steps / statistics.median(times) for times in seconds.values()]
    return {f"{name}_images_per_s": rates[0], f"{name}_paper_images_per_s": rates[1], f"{name}_x": rates[0] / rates[1]}


def workers() -> dict[str, float]:
    """Two data-parallel workers of one thread each, against two plain processes that never talk."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(3):
        for joined in rates:
            queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
            torch.multiprocessing.spawn(_worker, (joined, queue), nprocs=2)
            rates[joined].append(queue.get() + queue.get())
    together, apart = (statistics.median(rates[joined]) for joined in (True, False))
    return {
        "cyclegan_two_workers_images_per_s": together,
        "cyclegan_two_plain_processes_images_per_s": apart,
        "cyclegan_two_workers_overhead": 1 - together / apart,
    }


def _worker(rank: int, joined: bool, queue: torch.multiprocessing.SimpleQueue) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29571", "GLOO_SOCKET_IFNAME": "lo"}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    task = task_of(settings_of(), DistributedDataParallel) if joined else task_of(settings_of())
    batch = {"image": noise(BATCH // 2, 72, 72)}
    for _ in range(3):
        task.step(batch, 0)
    torch.distributed.barrier()
    started = time.perf_counter()
    for _ in range(WORKER_STEPS):  # a fixed number: a worker that stopped by the clock would leave the other waiting
        task.step(batch, 0)
    queue.put(WORKER_STEPS * BATCH / 2 / (time.perf_counter() - started))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
