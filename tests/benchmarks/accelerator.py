"""What the networks, their training and the optimisation of pictures reach on a GPU, held against the card.

The ceilings are measured first: a large product of bfloat16 matrices, and a copy within the card's memory. Operations
are counted by torch on the same work (a multiplication and an addition are two), so a share is of what the card does in
bfloat16 at best. Weights and pictures are made up; what costs time is the same.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from celebvision.config import PerceptualSettings
from celebvision.models import create
from celebvision.models.adain import AdaIN
from celebvision.models.classifier import Classifier
from celebvision.models.cyclegan import CycleGAN
from celebvision.models.gatys import Gatys, styles_of
from celebvision.models.perceptual import Perceptual
from celebvision.models.style_net import StyleNet
from celebvision.models.stylizer import Stylizer
from celebvision.models.vgg import VGG
from celebvision.styling import perceptual
from tests.benchmarks import cyclegan, steps
from tests.benchmarks.paper_cyclegan import Paper
from tests.benchmarks.pictures import noise

ROUNDS, ROUND_S = 5, 0.2  # of a rate
MATRIX, COPY_BYTES = 8192, 2**32
FEW_STEPS, MORE_STEPS = 10, 40  # of a painting, which are timed
STEPS = 300  # of a painting that somebody wants
IDLE_STEPS = 3


def measured() -> dict[str, Any]:
    """Ceilings, networks, steps and paintings."""
    torch.manual_seed(0)
    ceilings = _ceilings()
    peak = 1e12 * ceilings["bfloat16_tflops"]
    figures: dict[str, Any] = {"card": torch.cuda.get_device_name(), "ceilings": ceilings}
    for part, work in (("networks", _networks), ("steps", _steps), ("paintings", _paintings)):
        figures[part] = work(peak)
    return figures


def _rate(work: Callable[[], object]) -> float:
    """Median of calls a second, of rounds of `ROUND_S`, once it is warm."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    calls = max(1, round(ROUND_S / (time.perf_counter() - started)))
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(calls):
            work()
        torch.cuda.synchronize()
        rates.append(calls / (time.perf_counter() - started))
    return statistics.median(rates)


def _operations(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def _ceilings() -> dict[str, float]:
    left, right = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source = torch.randint(0, 255, (COPY_BYTES,), device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return {
        "bfloat16_tflops": round(2 * MATRIX**3 * _rate(lambda: left @ right) / 1e12, 1),
        "copy_tb_per_s": round(2 * COPY_BYTES * _rate(lambda: target.copy_(source)) / 1e12, 2),
    }


def _row(name: str, images: int, rate: float, operations: int, peak: float, **others: Any) -> dict[str, Any]:
    row = {
        "name": name,
        "images_per_s": round(images * rate, 1),
        "of_peak": round(operations * rate / peak, 3),
        **others,
    }
    print(f"gpu: {row}", file=sys.stderr, flush=True)
    return row


def _networks(peak: float) -> list[dict[str, Any]]:
    """Inference: pixels from the CPU's memory to answers in it, kernel by kernel, and the network alone."""
    rows = []
    for name, network, batch, compiles in (
        ("cnn", create("cnn"), 64, True),
        ("cnn", create("cnn"), 1024, False),
        ("inception_v3", create("inception_v3", height=299, width=299), 64, False),
        ("inception_v3", create("inception_v3", height=299, width=299), 256, False),
    ):
        classifier = Classifier(network, ("Male",), "cuda")
        size = classifier.preprocessing
        pixels = noise(batch, size.height, size.width)
        inputs = size.normalise(pixels.cuda(), torch.bfloat16)

        def alone(network: nn.Module = classifier.network, inputs: Tensor = inputs) -> None:
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
                network(inputs)

        operations = _operations(alone)
        rate = _rate(lambda: classifier.probabilities(pixels))  # noqa: B023
        others = {"alone_images_per_s": round(batch * _rate(alone), 1)}
        others |= _compiled(classifier.network, inputs, batch) if compiles else {}
        rows.append(_row(name, batch, rate, operations, peak, batch=batch, **others))
    for title, make, side, batch, compiles in (
        ("cyclegan, 6 blocks", lambda: CycleGAN(size=128, width=64, blocks=6), 128, 8, True),
        ("cyclegan, 6 blocks", lambda: CycleGAN(size=128, width=64, blocks=6), 128, 64, False),
        ("cyclegan, 9 blocks", lambda: CycleGAN(size=256, width=64, blocks=9), 256, 8, False),
        ("style_net", lambda: StyleNet(["one"]), 256, 8, False),
        ("adain", _adain, 256, 8, False),
    ):
        stylizer, pixels = Stylizer(make(), "cuda"), noise(batch, side, side)
        inputs = stylizer._normalised(pixels)

        def once(stylizer: Stylizer = stylizer, inputs: Tensor = inputs) -> None:
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
                stylizer.network(inputs)

        rate = _rate(lambda: stylizer.draw(pixels))  # noqa: B023
        others = {"alone_images_per_s": round(batch * _rate(once), 1)}
        others |= _compiled(stylizer.network, inputs, batch) if compiles else {}
        rows.append(_row(title, batch, rate, _operations(once), peak, batch=batch, size=side, **others))
    return rows


def _adain() -> AdaIN:
    network = AdaIN("vgg19")
    statistics = network.statistics([noise(1, 256, 256)], [1.0])
    network.choose(statistics)
    return network


def _compiled(network: nn.Module, inputs: Tensor, batch: int) -> dict[str, float]:
    """The same network by `torch.compile`, and the seconds that took."""
    started = time.perf_counter()
    compiled = torch.compile(network)

    def work() -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            compiled(inputs)

    work()
    torch.cuda.synchronize()
    took = time.perf_counter() - started
    return {"compiled_images_per_s": round(batch * _rate(work), 1), "compile_s": round(took, 1)}


def _steps(peak: float) -> list[dict[str, Any]]:
    """Training, as `configs/train` has it for GPUs, on one; the pictures are there already."""
    rows = []
    for name, make in {
        "cnn": lambda: steps.classifier("cnn", "cuda"),
        "cnn, batch 512": lambda: steps.classifier("cnn", "cuda", batch_size=512),
        "inception_v3, 299 pixels": lambda: steps.classifier("inception_v3", "cuda", weights=None),
        "cyclegan, 128 pixels, 6 blocks": lambda: steps.cycle_gan(cyclegan.settings_of(128, 64, 6, 16), "cuda"),
        "the same, float32, as the paper has it": lambda: _paper(128, 64, 6, 16),
        "cyclegan, 256 pixels, 9 blocks": lambda: steps.cycle_gan(cyclegan.settings_of(256, 64, 9, 16), "cuda"),
        "style_net, 256 pixels": lambda: steps.style_net("style_net", 256, "cuda"),
    }.items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        step, images = make()
        rate, operations = _rate(step), _operations(step)
        gib = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        rows.append(_row(name, images, rate, operations, peak, batch=images, gib=gib, idle=_idle(step)))
    return rows


def _paper(size: int, width: int, blocks: int, batch: int) -> steps.Step:
    paper = Paper(width, blocks, 64, 5.0, "cuda")
    images = torch.rand(batch, 3, size, size, device="cuda") * 2 - 1
    return lambda: paper.step(images, images), batch


def _idle(step: Callable[[], object]) -> float:
    """Share of a step's time in which the GPU waits to be asked for something."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        started = time.perf_counter()
        for _ in range(IDLE_STEPS):
            step()
        torch.cuda.synchronize()
        took_us = 1e6 * (time.perf_counter() - started)
    kernels = [event for event in recorded.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]
    return round(max(0.0, 1 - sum(event.self_device_time_total for event in kernels) / took_us), 3)


def _paintings(peak: float) -> list[dict[str, Any]]:
    """Pictures optimised by VGG-19 and L-BFGS, in batches of several sizes."""
    rows = []
    torch.manual_seed(0)
    losses = perceptual(PerceptualSettings(), "vgg19", VGG("vgg19", ["conv5_3"]).state_dict(), torch.device("cuda"))
    for side, batches in ((256, (8, 16, 32, 64)), (512, (4, 8, 16, 32))):
        styles = styles_of(losses, [noise(1, side, side)], [1.0], side, 1)
        operations = _operations(lambda: _losses_and_back(losses, side))  # noqa: B023
        for batch in batches:
            pictures = noise(batch, side, side)
            torch.cuda.reset_peak_memory_stats()
            seconds = []
            for steps_taken in (FEW_STEPS, FEW_STEPS, MORE_STEPS):  # the first of them warms up
                started = time.perf_counter()
                Gatys(losses, styles, steps=steps_taken).draw(pictures)
                seconds.append(time.perf_counter() - started)
            rate = (MORE_STEPS - FEW_STEPS) / (seconds[2] - seconds[1])  # steps a second
            gib = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            each_minute = round(60 * batch * rate / STEPS, 1)
            more = {"batch": batch, "size": side, "gib": gib, "pictures_per_min": each_minute}
            rows.append(_row("vgg", batch, rate, batch * operations, peak, **more))
    return rows


def _losses_and_back(losses: Perceptual, side: int) -> None:
    images = noise(1, side, side).cuda().permute(0, 3, 1, 2).float() / 255
    content, style = losses.content(images), losses.style(images)
    losses.losses(images.requires_grad_(), content, style).total.sum().backward()
