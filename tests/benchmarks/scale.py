"""How time and memory grow: with keys listed, with images labelled, with workers and with nodes.

Images are tiny and the network is narrow, so that a million of them take minutes: what is looked at is the engine.
"""

from __future__ import annotations

import json
import math
import shutil
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
DISTINCT = 10_000  # files; more names than that are links to them
TINY = 45, 55  # width and height in pixels
WIDTH = 8  # channels of the network, a quarter of the CNN's
WORKERS = (1, 2, 3, 4)
IMAGES_PER_S = 200.0  # of a worker whose network waits
WAITING_IMAGES, WAITING_SHARD = 10_000, 128  # two batches: one that is not full takes as long
LIMIT_S = 3000.0


def measured(work: Path, most_keys: int = KEYS[-1], most_images: int = IMAGES[-1]) -> dict[str, list[dict[str, Any]]]:
    """Points of each curve."""
    points = {
        "inventory": _inventory(work, [keys for keys in KEYS if keys <= most_keys]),
        "images": _images(work, [images for images in IMAGES if images <= most_images]),
        "workers": _waiting(work, [(1, count) for count in WORKERS]),
        "nodes": _waiting(work, [(count, 1) for count in WORKERS]),
    }
    return {name: list(_told(name, curve)) for name, curve in points.items()}


def _told(name: str, points: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for point in points:
        print(f"scale {name}: {point}", file=sys.stderr, flush=True)
        yield point


def _inventory(work: Path, keys: Sequence[int]) -> Iterator[dict[str, Any]]:
    for count in keys:
        output = _empty(work / "output" / "scale")
        words = ["--keys", str(count), "--output", str(output)]
        ended = _run(work, [sys.executable, "-m", "tests.benchmarks.scale_inventory", *words])
        yield {"keys": count, **json.loads(ended.stdout)}


def _images(work: Path, images: Sequence[int]) -> Iterator[dict[str, Any]]:
    registry = _registry(work)
    for count in images:
        folder = _tiny(work, count)
        output = _empty(work / "output" / "scale")
        command = [str(BIN / "celebvision"), "classify", "--input", str(folder), "--output", str(output), "--json"]
        parts = Parts(output)
        ended = _run(work, [*command, "--model", "cnn", "--registry", str(registry)], parts)
        yield {"images": count, "seconds": ended.seconds, "peak_bytes": ended.peak_bytes} | parts.phases(ended)


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
