"""Pictures optimised in batches beside the paper's loop, one at a time in float32 by Adam, to the same losses.

    python -m tests.benchmarks.gatys --photos FOLDER --style FILE --weights FILE --arch vgg16 [--size 192]
        [--count 16] [--paper_count 6] [--steps 300] [--our_steps 150] [--sheet FILE.png]

One JSON object on stdout. Both have the whole machine: the loop as threads of one process, ours as `stylize` has it, a
process of one thread for each core. The loop draws the first `paper_count` of the pictures, half of them before ours
and half after, so that a machine that slows down slows both; losses are of these pictures, in 8 bits, by the loop's own
network.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from celebvision import images, styling
from celebvision.config import StyleWords
from celebvision.pretrained import pretrained
from celebvision.training.cyclegan import grid
from tests.benchmarks.paper_gatys import Paper

LEARNING_RATE = 0.02  # of the loop
WARM_STEPS = 3

ready: Any = None  # in a worker: what redraws


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m tests.benchmarks.gatys", description=__doc__)
    for name in ("photos", "style", "weights"):
        words.add_argument(f"--{name}", required=True)
    words.add_argument("--arch", default="vgg19")
    words.add_argument("--size", type=int, default=192)
    words.add_argument("--count", type=int, default=16)
    words.add_argument("--steps", type=int, default=300)
    words.add_argument("--paper_count", type=int, default=6)
    words.add_argument("--our_steps", type=int, default=150)
    words.add_argument("--sheet", type=Path)
    given = words.parse_args()
    files = sorted(path for path in Path(given.photos).iterdir() if path.is_file())[: given.count]
    photos = np.stack([images.decode(path.read_bytes(), given.size, given.size) for path in files])
    settings = StyleWords(style=[given.style], weights=given.weights, arch=given.arch, steps=given.our_steps)
    model = styling.resolve(settings, None, "vgg", given.size)
    tensors = styling.load(settings, None, model, given.size)
    style = tensors[max(name for name in tensors if name.endswith(".picture"))]  # on the finest scale
    paper = Paper(given.arch, pretrained(given.weights), style, settings.perceptual.style_weight)
    compared = photos[: given.paper_count]
    half = len(compared) // 2
    theirs, seconds = by_the_paper(paper, compared[:half], given.steps)
    ours, our_s, our_bytes = in_batches(settings, model, tensors, photos)
    after, more = by_the_paper(paper, compared[half:], given.steps)
    theirs = np.concatenate([theirs, after])
    rates = {"paper": 60 / statistics.median(seconds + more), "ours": 60 * len(photos) / our_s}
    result: dict[str, Any] = {
        "pictures": {"ours": len(photos), "paper": len(compared)},
        "size": given.size,
        "pictures_per_min": {name: round(rate, 2) for name, rate in rates.items()},
        "ratio": round(rates["ours"] / rates["paper"], 2),
        "our_process_peak_mib": our_bytes >> 20,
    }
    for name, drawn in (("photos", photos), ("paper", theirs), ("ours", ours)):
        both = zip(_floats(drawn[: len(compared)]), _floats(compared), strict=True)
        pairs = [paper.judged(one, photo) for one, photo in both]
        losses = zip(("content_loss", "style_loss"), zip(*pairs, strict=True), strict=True)
        result[name] = {loss: round(statistics.fmean(values), 4) for loss, values in losses}
    if given.sheet:
        rows = [torch.from_numpy(pictures) for pictures in (compared, theirs, ours[: len(compared)])]
        given.sheet.write_bytes(images.encode(grid(rows), "png"))
    print(json.dumps(result))


def by_the_paper(paper: Paper, photos: NDArray[np.uint8], steps: int) -> tuple[NDArray[np.uint8], list[float]]:
    drawn, seconds = [], []
    for photo in _floats(photos):
        started = time.perf_counter()
        image = paper.draw(photo, steps, LEARNING_RATE)
        seconds.append(time.perf_counter() - started)
        drawn.append((image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())
        print(f"paper: {seconds[-1]:.1f} s", file=sys.stderr, flush=True)
    return np.stack(drawn), seconds


def in_batches(
    settings: StyleWords, model: Any, tensors: dict[str, torch.Tensor], photos: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], float, int]:
    """Pictures, seconds of them all, and the peak bytes of a process."""
    parts = np.array_split(photos, os.cpu_count() or 1)
    with multiprocessing.get_context("spawn").Pool(len(parts), _begin, (settings, model, tensors)) as pool:
        pool.map(_warm, parts, chunksize=1)
        started = time.perf_counter()
        drawn = pool.map(_draw, parts, chunksize=1)
        seconds = time.perf_counter() - started
    print(f"ours: {seconds:.1f} s in all", file=sys.stderr, flush=True)
    return np.concatenate([pictures for pictures, _ in drawn]), seconds, max(peak for _, peak in drawn)


def _begin(settings: StyleWords, model: Any, tensors: dict[str, torch.Tensor]) -> None:
    global ready
    torch.set_num_threads(1)
    ready = styling.redraws(settings, model, tensors, "cpu")


def _warm(photos: NDArray[np.uint8]) -> None:
    ready.of_steps(WARM_STEPS).draw(torch.from_numpy(photos), _in_silence)


def _draw(photos: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    drawn, _ = ready.draw(torch.from_numpy(photos), _in_silence)
    return drawn.numpy(), 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _in_silence(share: float, pictures: torch.Tensor | None) -> None: ...


def _floats(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """N 1 3 H W, 0..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float()[:, None] / 255


if __name__ == "__main__":
    main()
