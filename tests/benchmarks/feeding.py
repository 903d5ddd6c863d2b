"""How fast training pictures come in: Parquet shards through Ray Data beside what people use instead, and the CNN.

Each feeder as its documentation shows it, and once more with our decoder and uint8 batches; all on the same pictures
of CelebA's size, on local disk, in turns, medians of the rounds.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from celebvision.celeba.drawn import write_dataset
from tests.benchmarks.contestants import BIN, environment, python_of, version_of
from tests.benchmarks.processes import run

OURS, CONSUMER = "celebvision", "cnn"
TITLES = {
    OURS: "Parquet shards through Ray Data",
    "feed_torchvision": "torchvision's CelebA, `DataLoader`",
    "feed_webdataset": "WebDataset",
    "feed_streaming": "MosaicML Streaming",
}
POINTS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
UNUSED = {
    "list_bbox_celeba.txt": "image_id x_1 y_1 width height",
    "list_landmarks_align_celeba.txt": " ".join(f"{point}_{axis}" for point in POINTS for axis in "xy"),
}
SPLIT = 0.8  # of drawn pictures, that is trained on


def measured(work: Path, images: int, rounds: int, limit_s: float) -> dict[str, Any]:
    """Figures by contestant, medians; `x` is how many times as fast ours is, of `cnn` how many times it is fed."""
    original = original_of(work, round(images / SPLIT))
    commands = {CONSUMER: [sys.executable, "-m", "tests.benchmarks.feed_consumer"]}
    for name in TITLES:
        python = sys.executable if name == OURS else str(python_of(name, work))
        module = "tests.benchmarks.feed_ours" if name == OURS else f"tests.benchmarks.peers.{name}"
        made = work / f"{original.name}-{name}"
        if name == OURS:
            shards_of(original, made)
        command = [python, "-m", module, "--original", str(original), "--made", str(made)]
        commands[name] = command
        if name != OURS:
            commands[f"{name} tuned"] = [*command, "--tuned"]
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for number in range(rounds):
        names = list(commands)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            ended = run(commands[name], environment(work), work / f"{name.replace(' ', '-')}.log", limit_s)
            if ended.error:
                raise RuntimeError(f"{name}: {ended.error}")
            seen[name].append(json.loads(ended.stdout.splitlines()[-1]) | {"peak_bytes": ended.peak_bytes})
            print(f"feeding {name}: {seen[name][-1]}", file=sys.stderr, flush=True)
    figures: dict[str, dict[str, Any]] = {
        name: {key: statistics.median(one[key] for one in told) for key in told[0]} for name, told in seen.items()
    }
    for name, told in figures.items():
        told["x"] = figures[OURS]["images_per_s"] / told["images_per_s"]
        if name.partition(" ")[0] in TITLES and name != OURS:
            told["version"] = version_of(name.partition(" ")[0])
    return {"images": images, "rounds": rounds, "feeders": figures}


def original_of(work: Path, count: int) -> Path:
    """So many drawn faces in CelebA's own layout."""
    folder = work / f"celeba-{count}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        write_dataset(part, count, seed=0)
        for name, columns in UNUSED.items():  # torchvision reads them all
            rows = [
                f"{file.name} {' '.join('0' for word in columns.split() if word != 'image_id')}"
                for file in sorted((part / "img_align_celeba").iterdir())
            ]
            (part / name).write_text("\n".join([str(count), columns, *rows]) + "\n")
        part.rename(folder)
    return folder


def shards_of(original: Path, made: Path) -> Path:
    if not made.exists():
        words = [str(BIN / "celebvision"), "ingest", "--source", str(original), "--output", str(made)]
        subprocess.run(words, check=True, stdout=sys.stderr)
    return made
