"""Where the time of a training step goes: torch's profiler on the very tasks that workers run, in one thread.

py-spy loses sight of Ray Train's threads; what feeds them is measured by `feeding`.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import yaml
from torch.profiler import ProfilerActivity, profile

from celebvision.config import TrainSettings
from celebvision.models.vgg import VGG
from celebvision.training.classification import Classification
from celebvision.training.cyclegan import LOADED
from celebvision.training.style import Judged, StyleTask
from tests.benchmarks import cyclegan
from tests.benchmarks.contestants import REPOSITORY
from tests.benchmarks.pictures import noise

STEPS, WARM_UP = 6, 3
STYLES = 4
# The first that fits is where an operator's own time goes.
KINDS = {
    "convolutions, back": r"convolution_backward|conv.*backward",
    "convolutions": r"convolution|conv2d|addmm|bmm|matmul|linear",
    "normalisation": r"norm",
    "optimiser": r"adam|_foreach|optimizer|lerp",
    "resize, pad, warp": r"pad|upsample|interpolate|grid_sampl|affine|flip",
    "copies": r"copy|_to_copy|clone|cat|contiguous|empty|zero|fill|index|stack",
    "activations": r"relu|tanh|sigmoid|threshold|pool",
}
OTHER = "other"


def measured() -> dict[str, dict[str, Any]]:
    """By architecture: images a second of a step, and the share of its time by kind of operator."""
    figures = {}
    for name, make in {
        "cnn": lambda: classifier("cnn"),
        "inception_v3": lambda: classifier("inception_v3_small", weights=None),
        "cyclegan": lambda: cycle_gan(cyclegan.settings_of()),
        "style_net": lambda: style_net("style_net_small", 128),
    }.items():
        torch.set_num_threads(1)
        step, images = make()
        for _ in range(WARM_UP):
            step()
        started = time.perf_counter()
        for _ in range(STEPS):
            step()
        rate = STEPS * images / (time.perf_counter() - started)
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            for _ in range(STEPS):
                step()
        spent = Counter[str]()
        for event in recorded.key_averages():
            spent[_kind(event.key)] += event.self_cpu_time_total
        shares = {kind: round(took / spent.total(), 3) for kind, took in spent.most_common()}
        figures[name] = {"images_per_s": round(rate, 1), "batch": images, "shares": shares}
        print(f"step {name}: {figures[name]}", file=sys.stderr, flush=True)
    return figures


def _kind(operator: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, operator.lower())), OTHER)


Step = tuple[Callable[[], object], int]


def settings_of(config: str, **others: Any) -> TrainSettings:
    """A configuration of `configs/train`, some of its words replaced."""
    words = yaml.safe_load((REPOSITORY / "configs" / "train" / f"{config}.yaml").read_text())
    return TrainSettings(**{"data": "none", "registry": "none", **words, **others})


def classifier(config: str, device: str = "cpu", **others: Any) -> Step:
    """A step of a classifier's training, and how many images it takes."""
    settings = settings_of(config, **others)
    task = Classification(settings, ("Male",), torch.device(device), lambda network: network)
    task.start_epoch(0)
    size, count = task.preprocessing, settings.batch_size
    batch = {"image": noise(count, size.height, size.width).to(device), "label": torch.zeros(count, 1).to(device)}
    return lambda: task.step(batch, 0.0), count


def cycle_gan(settings: TrainSettings, device: str = "cpu") -> Step:
    """A step of a CycleGAN's training, and how many images it takes."""
    task, side = cyclegan.task_of(settings, device=device), settings.arguments["size"]
    batch = {"image": noise(settings.batch_size, round(LOADED * side), round(LOADED * side)).to(device)}
    return lambda: task.step(batch, 0.0), settings.batch_size


def style_net(config: str, side: int, device: str = "cpu") -> Step:
    """A step of a style network's training, and how many images it takes."""
    names = [f"style{number}" for number in range(STYLES)]
    settings = settings_of(config, styles=dict.fromkeys(names, "none"))
    torch.manual_seed(0)
    weights = VGG(settings.arch, ["conv5_3"]).state_dict()
    styles = dict(zip(names, noise(STYLES, side, side).numpy(), strict=True))
    judged = Judged(noise(4, side, side).numpy(), styles, weights)
    task = StyleTask(settings, judged, torch.device(device), 0, 1, lambda network: network)
    task.start_epoch(0)
    batch = {"image": noise(settings.batch_size, side, side).to(device)}
    return lambda: task.step(batch, 0.0), settings.batch_size
