"""How time and memory grow: with keys listed, with images labelled, with workers and with nodes.

Images are tiny and the network is narrow, so that a million of them take minutes: what is looked at is the engine.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image

from celebvision.celeba.drawn import draw_attributes
from celebvision.celeba.face import draw_face
from celebvision.models import complete_arguments
from celebvision.models.cnn import CNN
from tests.benchmarks.comparison import Parts
from tests.benchmarks.contestants import BIN, REPOSITORY, environment
from tests.benchmarks.network import published
from tests.benchmarks.pictures import jpeg, many_times
from tests.benchmarks.processes import Ended, run

KEYS = (10_000, 100_000, 1_000_000, 10_000_000)
IMAGES = (1_000, 10_000, 100_000, 1_000_000)
ROUNDS = 3
TIMES = {100_000: 3}  # in each round: what the largest is compared with, and short enough for chance to show
DISTINCT = 10_000  # files; more names than that are links to them
TINY = 45, 55  # width and height in pixels
WIDTH = 8  # channels of the network, a quarter of the CNN's
WORKERS = (1, 2, 3, 4)
IMAGES_PER_S = 200.0  # of a worker whose network waits
WAITING_IMAGES, WAITING_SHARD = 10_000, 128  # two batches: one that is not full takes as long
LIMIT_S = 3000.0

Curves = dict[str, list[dict[str, Any]]]


def measured(work: Path) -> Curves:
    """How it grows with the bucket: points of each curve."""
    return {"inventory": _told("inventory", _inventory(work)), "images": _told("images", _images(work))}


def on_a_cluster(work: Path) -> Curves:
    """How it grows with the cluster."""
    return {
        "workers": _told("workers", _waiting(work, [(1, count) for count in WORKERS])),
        "nodes": _told("nodes", _waiting(work, [(count, 1) for count in WORKERS])),
    }


def _told(name: str, points: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    told = []
    for point in points:
        print(f"scale {name}: {point}", file=sys.stderr, flush=True)
        told.append(point)
    return told


def _inventory(work: Path) -> Iterator[dict[str, Any]]:
    for count in KEYS:
        output = _empty(work / "output" / "scale")
        words = ["--keys", str(count), "--output", str(output)]
        ended = _run(work, [sys.executable, "-m", "tests.benchmarks.scale_inventory", *words])
        yield {"keys": count, **json.loads(ended.stdout)}


def _images(work: Path) -> Iterator[dict[str, Any]]:
    """Medians of rounds, up and down in turns, so that a machine that slows down slows all counts."""
    seen: dict[int, list[dict[str, float]]] = {count: [] for count in IMAGES}
    turn = [count for count in IMAGES for _ in range(TIMES.get(count, 1))]
    for number in range(ROUNDS):
        for count in turn if number % 2 == 0 else reversed(turn):
            seen[count].append(_classified(work, count))
            print(f"scale images, round {number + 1}: {count} {seen[count][-1]}", file=sys.stderr, flush=True)
    for count, runs in seen.items():
        medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        yield {"images": count, "rounds": len(runs), **medians}


def _classified(work: Path, count: int) -> dict[str, float]:
    registry, folder = _registry(work), _tiny(work, count)
    output = _empty(work / "output" / "scale")
    command = [str(BIN / "celebvision"), "classify", "--input", str(folder), "--output", str(output), "--json"]
    parts = Parts(output)
    ended = _run(work, [*command, "--model", "cnn", "--registry", str(registry)], parts)
    return {"seconds": ended.seconds, "peak_bytes": ended.peak_bytes} | parts.phases(ended)


def _waiting(work: Path, counts: Sequence[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    sys.path.append(str(REPOSITORY / "tests" / "integration"))  # as pytest does
    from faults.cluster import cluster

    folder, registry = _tiny(work, WAITING_IMAGES), _registry(work)
    for nodes, cpus in counts:
        output = _empty(work / "output" / "scale")
        command = [sys.executable, "-m", "tests.benchmarks.scale_waiting", "--images", str(folder)]
        command += ["--output", str(output), "--registry", str(registry), "--shard_keys", str(WAITING_SHARD)]
        command += ["--images_per_s", str(IMAGES_PER_S)]
        parts, workers = Parts(output), nodes * cpus
        with tempfile.TemporaryDirectory() as own, cluster(Path(own)) as made:
            for _ in range(nodes):
                made.add(cpus)
            ended = _run(work, command, parts, made.environment)
        rate = parts.figures(ended, WAITING_IMAGES, workers)["steady_images_per_s"]
        share = rate / (workers * IMAGES_PER_S)
        yield {"nodes": nodes, "workers": workers, "images_per_s": rate, "of_waiting_networks": share}


def _run(
    work: Path, command: list[str], parts: Parts | None = None, others: Mapping[str, str] = MappingProxyType({})
) -> Ended:
    look = parts.look if parts else lambda: None
    ended = run(command, environment(work) | dict(others), work / "scale.log", LIMIT_S, look)
    if ended.error:
        raise RuntimeError(f"{' '.join(command)}: {ended.error}")
    return ended


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _tiny(work: Path, count: int) -> Path:
    """A folder of so many tiny faces, of which `DISTINCT` differ."""
    distinct = min(count, DISTINCT)
    folder = work / f"tiny-{distinct}"
    if not folder.exists():
        part = _empty(folder.with_suffix(".part"))
        with ProcessPoolExecutor() as pool:
            for _ in pool.map(partial(_draw, part), range(distinct), chunksize=50):
                pass
        part.rename(folder)
    return many_times(folder, math.ceil(count / distinct)) if count > distinct else folder


def _draw(folder: Path, number: int) -> None:
    rng = np.random.default_rng([1, number])
    face = draw_face(rng, draw_attributes(rng, male=bool(number % 2))).resize(TINY, Image.Resampling.BOX)
    (folder / f"{number:06}.jpg").write_bytes(jpeg(face, quality=90))


def _registry(work: Path) -> Path:
    registry = work / "narrow-registry"
    if not registry.exists():
        torch.manual_seed(0)
        published(registry, CNN(width=WIDTH), complete_arguments("cnn", width=WIDTH))
    return registry
