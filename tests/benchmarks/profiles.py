"""Where the time of each job over pictures goes: the command under py-spy, its samples sorted by stage.

A sample is a Python thread that runs. What must be done (decoding and encoding, the network) as a share of
all that the cores could do is how near to its bound the command is, its start among it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from celebvision.models.vgg import VGG
from tests.benchmarks import feeding
from tests.benchmarks.contestants import BIN, environment
from tests.benchmarks.network import model_of
from tests.benchmarks.pictures import folder_of
from tests.benchmarks.processes import MARK, family

RATE = 20  # samples a second
LOOK_S = 0.3
WITH_STATUS = "tests.benchmarks.with_status"
PROCESS = re.compile(r"process (\d+):")
IDLE = re.compile(r"main_loop|concurrent/futures/thread|threading\.py|selectors\.py|get_output_blocking|^process ")
SETS = ("faces", 10_000), ("photos", 2_000)
FEW, ORIGINALS, STYLES = 400, 12_500, 4
# The first that fits, from the innermost frame outwards, is the stage of a sample.
STAGES = {
    "imports": r"importlib\._bootstrap",
    "decode": r"celebvision/images\.py|PIL/|simplejpeg",
    "network": r"torch/nn/modules|torch/autograd/|celebvision/models/|_engine_run_backward|torch/nn/functional",
    "figures": r"sklearn|celebvision/(evaluation|training/calibration)|torch_?metrics|matplotlib|pandas",
    "storage": r"celebvision/storage/|boto|urllib3|pyarrow|parquet",
    "digest": r"hashlib|sha256",
    "Ray": r"\(ray/|grpc|asyncio|aiohttp",
}
NEEDED = ("decode", "network")
OTHER = "other"


def measured(work: Path, names: Iterable[str]) -> dict[str, Any]:
    """By path: seconds of the command, seconds of CPU by stage, and how much of the cores' time was needed work."""
    jobs, figures = _jobs(work), {}
    for name in names or jobs:
        samples = work / f"profile-{name.replace(' ', '-')}.raw"
        output = work / "output" / "profile"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        seconds, cpu_s = _recorded(jobs[name], samples, work)
        figures[name] = _summary(samples.read_text().splitlines(), seconds, cpu_s)
        print(f"profile {name}: {figures[name]}", file=sys.stderr, flush=True)
    return figures


def _recorded(words: list[str], samples: Path, work: Path) -> tuple[float, dict[int, float]]:
    """Seconds of the command, and of CPU that each of its processes took."""
    status = samples.with_suffix(".status")
    status.unlink(missing_ok=True)
    recorder = [str(BIN / "py-spy"), "record", "--subprocesses", "--format", "raw"]
    recorder += ["--rate", str(RATE), "--output", str(samples), "--", sys.executable, "-m", WITH_STATUS, str(status)]
    mark, cpu_s = uuid.uuid4().hex, dict[int, float]()
    own = environment(work) | {"OMP_NUM_THREADS": "1", MARK: mark}  # py-spy sees Python's threads alone
    with samples.with_suffix(".log").open("w") as log:
        started = time.monotonic()
        with subprocess.Popen(
            [*recorder, str(BIN / "celebvision"), *words], env=own, stdout=log, stderr=log
        ) as process:
            while process.poll() is None and not status.exists():
                for pid in family(process.pid, mark) - {process.pid}:
                    cpu_s[pid] = max(cpu_s.get(pid, 0.0), _cpu_s(pid))
                time.sleep(LOOK_S)
            seconds = time.monotonic() - started
    if status.read_text().strip() != "0":
        raise RuntimeError(f"{' '.join(words)}: {samples.with_suffix('.log').read_text()[-1000:]}")
    return seconds, cpu_s


def _cpu_s(pid: int) -> float:
    with suppress(OSError):  # it ended meanwhile
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _summary(lines: list[str], seconds: float, cpu_of: dict[int, float]) -> dict[str, Any]:
    """A process' CPU time goes to stages as its samples do; threads that wait for Python's lock look as if they ran."""
    samples: dict[int, Counter[str]] = defaultdict(Counter)
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if not IDLE.search(stack.rpartition(";")[2]):
            samples[int(PROCESS.findall(stack)[-1])][stage_of(stack)] += int(count)
    cpu_s = Counter[str]()
    for pid, took_s in cpu_of.items():
        seen = samples.get(pid) or Counter({"Ray": 1})  # its own processes are no Python
        for stage, count in seen.items():
            cpu_s[stage] += took_s * count / seen.total()
    cores = os.cpu_count() or 1
    needed_s = sum(cpu_s[stage] for stage in NEEDED)
    return {
        "seconds": seconds,
        "cpu_s": {stage: round(took_s, 2) for stage, took_s in cpu_s.most_common()},
        "idle_s": max(0.0, cores * seconds - cpu_s.total()),
        "needed_share": needed_s / (cores * seconds),
    }


def stage_of(stack: str) -> str:
    """Of frames from the outermost to the innermost, `;` between them."""
    frames = [frame for frame in stack.split(";") if not frame.startswith("process ")]
    if any(re.search(STAGES["imports"], frame) for frame in frames):
        return "imports"
    for frame in reversed(frames):
        for stage, pattern in STAGES.items():
            if re.search(pattern, frame):
                return stage
    return OTHER


def _jobs(work: Path) -> dict[str, list[str]]:
    """The words of each path's command."""
    original, shards, styles, vgg = _data(work)
    out = ["--output", str(work / "output" / "profile")]
    labels, drawn = ["--registry", str(model_of(work).registry)], ["--registry", str(work / "profile-registry")]
    faces, photos = (["--input", str(folder_of(work, kind, count))] for kind, count in SETS)
    _trained(work, shards, styles, vgg)
    few = ["--input", str(folder_of(work, "faces", FEW))]
    pictures = sorted(str(path) for path in styles.glob("*.png"))
    measure = ["--weights", str(vgg), "--arch", "vgg16"]
    return {
        "ingest": ["ingest", "--source", str(original), *out],
        "classify faces": ["classify", *faces, *out, *labels, "--model", "cnn"],
        "classify photos": ["classify", *photos, *out, *labels, "--model", "cnn"],
        "stylize cyclegan": ["stylize", *few, *out, *drawn, "--model", "cyclegan-sketch", "--size", "128"],
        "stylize style_net": [
            "stylize", *few, *out, *drawn, "--model", "style_net", "--style", "style0", "--size", "128",
        ],
        "stylize vgg": [
            "stylize", *few, *out, *measure, "--model", "vgg", "--style", pictures[0], "--size", "96", "--steps", "10",
            "--glob", "*0.jpg",
        ],
        "evaluate": ["evaluate", *labels, *out, "--model", "cnn", "--data", str(shards)],
    }  # fmt: skip


def _trained(work: Path, shards: Path, styles: Path, vgg: Path) -> None:
    """Models that draw, trained for one epoch: what they draw is nothing to look at, and takes as long."""
    registry = work / "profile-registry"
    if registry.exists():
        return
    train = ["train", "--data", str(shards), "--registry", str(registry), "--output", str(work / "output" / "training")]
    learning = ["--phases", '[{"epochs": 1, "learning_rate": 0.0003}]', "--epoch_images", "64", "--batch_size", "8"]
    pictures = {f"style{path.stem}": str(path) for path in sorted(styles.glob("*.png"))}
    drawn = {
        "cyclegan": [
            "--name", "cyclegan-sketch", "--arguments", '{"size": 64, "width": 32, "blocks": 4}',
            "--style_data", str(work / "profile-styles"), "--cyclegan.features", "vgg16:relu4_3",
            "--cyclegan.features_weights", str(vgg), "--cyclegan.valid_images", "8",
        ],
        "style_net": [
            "--arguments", '{"size": 128, "width": 32, "blocks": 5}', "--styles", json.dumps(pictures),
            "--weights", str(vgg), "--arch", "vgg16", "--valid_images", "4",
        ],
    }  # fmt: skip
    for architecture, words in drawn.items():
        command = [str(BIN / "celebvision"), *train, *learning, "--architecture", architecture, *words]
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment(work))


def _data(work: Path) -> tuple[Path, Path, Path, Path]:
    """Originals, shards, pictures of styles and VGG's weights, all of them made up, and style shards of the third."""
    original = feeding.original_of(work, ORIGINALS)
    shards = feeding.shards_of(original, work / f"{original.name}-{feeding.OURS}")
    styles, vgg = work / "styles", work / "vgg16.safetensors"
    if not vgg.exists():
        torch.manual_seed(0)
        save_file(VGG("vgg16", ["conv5_3"]).state_dict(), vgg)
    if not styles.exists():
        styles.mkdir()
        rng = np.random.default_rng(0)
        for number in range(STYLES):
            blots = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            blots.resize((256, 256), Image.Resampling.NEAREST).save(styles / f"{number}.png")
        words = ["ingest", "--style_folder", str(styles), "--output", str(work / "profile-styles")]
        subprocess.run([str(BIN / "celebvision"), *words], check=True, stdout=sys.stderr)
    return original, shards, styles, vgg
