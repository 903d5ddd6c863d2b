"""`make bench`: the parts, each path, its limits, and `classify` beside its peers, on this machine.

    python -m tests.benchmarks [all | parts | choices | cyclegan | feeding | profile | steps | scale |
                                cluster | gpu | peers | memory | tune]
    python -m tests.benchmarks compare RESULTS.json …   ratios to the figures that docs/figures.json holds
    python -m tests.benchmarks keep RESULTS.json …      put them there, and write the tables of docs/ anew

Each of the first prints one JSON object on stdout, with versions and machine. What takes long is kept in the work
folder and made but once: pictures, environments of the peers, the network.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import ray
import torch

from tests.benchmarks import accelerator, choices, cyclegan, feeding, kept, parts, pictures, profiles, scale, steps
from tests.benchmarks.comparison import Contest, Failed
from tests.benchmarks.contestants import OURS, TITLES, Contestant, bound_command, environment, ours, peer
from tests.benchmarks.network import model_of
from tests.benchmarks.processes import run

PEERS = [name for name in TITLES if name != OURS]
MEASURES = ["parts", "choices", "cyclegan", "feeding", "profile", "steps", "scale", "cluster", "gpu", "peers"]
MEASURES += ["memory", "tune"]
WORDS = ["all", *MEASURES, "compare", "keep"]
MEMORY_TIMES = 10


def main() -> None:
    words = settings()
    if words.word in ("compare", "keep"):
        results = [json.loads(Path(name).read_text()) for name in words.results]
        if words.word == "keep":
            kept.keep(results)
        else:
            print(kept.compared(results))
        return
    measures = {
        "parts": lambda: {"parts": parts.measured()},
        "choices": lambda: {"choices": choices.measured()},
        "cyclegan": lambda: {"cyclegan": cyclegan.measured()},
        "feeding": lambda: {"feeding": feeding.measured(words.work, words.images, words.rounds, words.limit_s)},
        "profile": lambda: {"profile": profiles.measured(words.work, words.paths)},
        "steps": lambda: {"steps": steps.measured()},
        "scale": lambda: {"scale": scale.measured(words.work)},
        "cluster": lambda: {"cluster": scale.on_a_cluster(words.work)},
        "gpu": lambda: {"gpu": accelerator.measured()},
        "peers": lambda: {"sets": peers(words)},
        "memory": lambda: {"memory": memory(words)},
        "tune": lambda: {"sets": tune(words)},
    }
    figures: dict[str, Any] = {"command": command(words), "machine": machine()}
    left_out = {"tune"} if torch.cuda.is_available() else {"tune", "gpu"}
    for name in [name for name in measures if name not in left_out] if words.word == "all" else [words.word]:
        figures |= measures[name]()
    print(json.dumps(figures))


def settings() -> argparse.Namespace:
    words = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("word", nargs="?", choices=WORDS, default="all")
    words.add_argument("results", nargs="*", help="what earlier runs printed")
    words.add_argument("--images", type=int, default=10_000, help="faces of 178×218; 0: none")
    words.add_argument("--photos", type=int, default=2_000, help="photos of 1 to 2 megapixels; 0: none")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--peers", type=lambda names: names.split(","), default=PEERS, help=",".join(PEERS))
    words.add_argument("--source", default="local", help="local, or s3://bucket/prefix at the environment's endpoint")
    words.add_argument("--work", type=Path, default=Path("build/benchmarks"), help="folder for all that is made")
    words.add_argument("--limit_s", type=float, default=1200, help="seconds that one command may take")
    words.add_argument("--paths", type=lambda names: names.split(","), default=[], help="of profile; none: all")
    given = words.parse_args()
    if given.word == "compare" and not given.results:
        words.error("compare: name what a run printed")
    if given.word == "gpu" and not torch.cuda.is_available():
        words.error("gpu: there is none here")
    if unknown := set(given.peers) - set(PEERS):
        words.error(f"no such peers: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    given.work = given.work.resolve()
    given.work.mkdir(parents=True, exist_ok=True)
    return given


def peers(words: argparse.Namespace) -> list[dict[str, Any]]:
    model = model_of(words.work)
    rivals = [peer(name, words.work, model) for name in words.peers]
    return contests(words, [ours(model), *rivals])


def tune(words: argparse.Namespace) -> list[dict[str, Any]]:
    """The tuned loader's settings, each as a contestant of its own, named by them."""
    model = model_of(words.work)
    grid = itertools.product((1, 2), (1, 2), (0, 1), (64, 256))
    rivals = []
    for workers, threads, compiled, batch in grid:
        extra = {"workers": workers, "threads": threads, "compiled": compiled, "batch": batch}
        rival = peer("dataloader_tuned", words.work, model, tuple(f"--{key}={value}" for key, value in extra.items()))
        name = "-".join(f"{key}{value}" for key, value in extra.items())
        rivals.append(Contestant(name, rival.version, rival.command))
    return contests(words, rivals)


def contests(words: argparse.Namespace, contestants: list[Contestant]) -> list[dict[str, Any]]:
    model = model_of(words.work)
    sets = []
    for kind, count in (("faces", words.images), ("photos", words.photos)):
        if not count:
            continue
        folder = pictures.folder_of(words.work, kind, count)
        images = str(folder) if words.source == "local" else pictures.uploaded(folder, words.source)
        contest = Contest(folder, images, count, words.work, model, words.limit_s, contestants)
        facts = {"kind": kind, "images": count, "mean_bytes": pictures.mean_bytes(folder), "rounds": words.rounds}
        source = "local disk" if words.source == "local" else "S3"
        sets.append({**facts, "source": source, "contestants": contest.run(words.rounds)})
    return sets


def memory(words: argparse.Namespace) -> dict[str, Any]:
    """Our peak over the pictures, and over ten times as many names of the same files; the rate of those nine tenths."""
    model = model_of(words.work)
    contestant = ours(model)
    few = pictures.folder_of(words.work, "faces", words.images)
    runs = []
    for folder, count in (few, words.images), (pictures.many_times(few, MEMORY_TIMES), MEMORY_TIMES * words.images):
        output = words.work / "output" / "memory"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        log = output.with_name("memory.log")
        command = contestant.command(str(folder), count, output)
        ended = run(command, environment(words.work), log, words.limit_s)
        if ended.error:
            raise Failed(ended.error)
        runs.append({"images": count, "peak_bytes": ended.peak_bytes, "seconds": ended.seconds})
        print(f"memory: {runs[-1]}", file=sys.stderr, flush=True)
    bound = run(bound_command(few, model), environment(words.work), words.work / "output" / "bound.log", words.limit_s)
    if bound.error:
        raise Failed(bound.error)
    rate = (runs[1]["images"] - runs[0]["images"]) / (runs[1]["seconds"] - runs[0]["seconds"])
    ratio = runs[1]["peak_bytes"] / runs[0]["peak_bytes"]
    return {"runs": runs, "ratio": ratio, "sustained_images_per_s": rate, "bound": json.loads(bound.stdout)}


def command(words: argparse.Namespace) -> str:
    """The command in words that mean the same elsewhere: no folder of this machine."""
    source = words.source if words.source == "local" else "s3://…"
    sizes = f"--images {words.images} --photos {words.photos} --rounds {words.rounds}"
    if words.word not in ("all", "peers", "memory", "tune"):
        return f"python -m tests.benchmarks {words.word}" + (f" {sizes}" if words.word == "feeding" else "")
    return f"python -m tests.benchmarks {words.word} {sizes} --peers {','.join(words.peers)} --source {source}"


def machine() -> dict[str, Any]:
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return gpu | {
        "cpu": model[0].partition(":")[2].strip() if model else platform.machine(),
        "kernels": torch.backends.cpu.get_cpu_capability(),  # AVX2 or AVX512: without the latter no bfloat16
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": ray.__version__,
        "system": f"{platform.system()} {platform.release()}",
    }


if __name__ == "__main__":
    main()
