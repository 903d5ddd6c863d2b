"""Who runs: our command and its peers, each with its command and its own environment."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.network import Model

REPOSITORY = Path(__file__).resolve().parents[2]
PEERS = Path(__file__).parent / "peers"
BIN = Path(sys.executable).parent
SHARDS = 10  # wanted, so that a small set too has a first answer and a rate after it
SHARD_KEYS = 100, 1000  # the least that is worth a shard, and the command's default

TITLES = {
    "celebvision": "`celebvision classify`",
    "dataloader": "`DataLoader`, as documented",
    "dataloader_tuned": "`DataLoader`, tuned by hand",
    "ray_data": "Ray Data, as documented",
    "daft": "Daft, as documented",
    "pyspark": "PySpark pandas UDF, as documented",
}
MAIN_PACKAGES = {
    "ray_data": "ray",
    "daft": "daft",
    "pyspark": "pyspark",
    "feed_torchvision": "torchvision",
    "feed_webdataset": "webdataset",
    "feed_streaming": "mosaicml-streaming",
}
OURS, BOUND = "celebvision", "bound"


@dataclass(frozen=True)
class Contestant:
    name: str
    version: str
    command: Callable[[str, int, Path], list[str]]  # of pictures' URI, their number, and the output


def ours(model: Model) -> Contestant:
    def command(images: str, count: int, output: Path) -> list[str]:
        words = [str(BIN / "celebvision"), "classify", "--input", images, "--output", str(output), "--json"]
        words += ["--model", "cnn", "--registry", str(model.registry)]
        least, most = SHARD_KEYS
        return [*words, "--shard_keys", str(min(most, max(least, math.ceil(count / SHARDS))))]

    return Contestant(OURS, "this", command)


def peer(name: str, work: Path, model: Model, extra: tuple[str, ...] = ()) -> Contestant:
    """A peer, its environment made if it is not there yet; `extra` words go to its script."""
    python = python_of(name, work)

    def command(images: str, count: int, output: Path) -> list[str]:
        words = [str(python), "-m", f"tests.benchmarks.peers.{name}", "--images", images, "--output", str(output)]
        return [*words, "--weights", str(model.weights), "--arguments", str(model.arguments), *extra]

    return Contestant(name, version_of(name), command)


def bound_command(folder: Path, model: Model) -> list[str]:
    words = [sys.executable, "-m", "tests.benchmarks.bound", "--images", str(folder)]
    return [*words, "--weights", str(model.weights), "--arguments", str(model.arguments)]


def environment(work: Path) -> dict[str, str]:
    """This environment, with the repository importable, and without what would make runs unlike each other."""
    kept = {name: value for name, value in os.environ.items() if name not in {"RAY_ADDRESS", "PYTHONDONTWRITEBYTECODE"}}
    silent = {"RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "true", "DAFT_ANALYTICS_ENABLED": "0"}
    compiled = {"TORCHINDUCTOR_CACHE_DIR": str(work / "inductor")}  # kept between rounds: its first run is slower
    return kept | silent | compiled | {"PYTHONPATH": str(REPOSITORY)}


def version_of(name: str) -> str:
    package = MAIN_PACKAGES.get(name, "torch")
    (line,) = [line for line in _requirements(name) if line.partition("==")[0].partition("[")[0] == package]
    return f"{package} {line.partition('==')[2]}"


def _requirements(name: str) -> list[str]:
    return (PEERS / f"{name}.txt").read_text().split()


def python_of(name: str, work: Path) -> Path:
    folder = work / "environments" / name
    installed, wanted = folder / "installed.txt", "\n".join(_requirements(name))
    python = folder / "bin" / "python"
    if not installed.exists() or installed.read_text() != wanted:
        _uv("venv", "--clear", "--python", sys.executable, str(folder))
        install = ("pip", "install", "--compile-bytecode", "--python", str(python))
        _uv(*install, "--requirements", str(PEERS / f"{name}.txt"))
        _uv(*install, "--no-deps", "--editable", str(REPOSITORY))  # for the network
        installed.write_text(wanted)
    return python


def _uv(*words: str) -> None:
    subprocess.run([str(BIN / "uv"), "--quiet", *words], check=True, stdout=sys.stderr)
