"""A look from inside the cluster before a job works there: `python -m celebvision.submit.probe probe.json`.

What a person may read, their cluster may not. It prints one line, `ANSWER` and a JSON list of what is in the way.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from celebvision import capacity
from celebvision.storage import NotFound, StorageError, open_store
from celebvision.submit.places import Place

ANSWER = "celebvision-probe: "


def look(places: list[Place]) -> list[str]:
    """What is in the way of reading and writing there from this machine."""
    problems = []
    for place in places:
        try:
            (_write if place.writes else _read)(place.uri)
        except (StorageError, ValueError) as error:
            problems.append(f"{place.setting}: {error}")
    return problems


def _read(uri: str) -> None:
    """List one key, or find the file of that name. A bucket's folder may be empty, as others may have to fill it."""
    if uri.startswith("s3://"):
        if next(iter(open_store(uri).list()), None) is None and "/" in uri.removeprefix("s3://"):
            folder, _, name = uri.rpartition("/")
            open_store(folder).has(name)
    elif not Path(uri).exists():
        raise NotFound(f"{uri}: is not on this machine; give a place that the cluster can read, s3://bucket/prefix")
    elif not os.access(uri, os.R_OK):
        raise StorageError(f"{uri}: cannot be read on this machine: check who owns it")


def _write(uri: str) -> None:
    store, key = open_store(uri), f".celebvision-probe-{uuid.uuid4().hex}"
    store.create(key, key.encode())
    store.delete(key)


def refused_gpus(gpus: int | None) -> list[str]:
    """Whether the cluster can never have so many."""
    most = int(capacity.most().get("GPU", 0))
    if gpus is None or gpus <= most:
        return []
    return [f"gpus: {gpus} are asked for, and no more than {most} can be had: {capacity.told()}"]


def _look_on_a_worker(places: list[Place]) -> list[str]:
    """Its credentials may be others than the head's. Nothing where no worker is up yet."""
    here = ray.get_runtime_context().get_node_id()
    workers = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if not workers:
        return []
    there = NodeAffinitySchedulingStrategy(workers[0], soft=False)
    try:
        problems: list[str] = ray.get(ray.remote(look).options(num_cpus=0, scheduling_strategy=there).remote(places))
    except ray.exceptions.RayError as error:  # it may go at any time, being idle
        print(f"no look from worker {workers[0]}: {error}", file=sys.stderr)
        return []
    return [f"{problem} (on a worker)" for problem in problems]


def _main(path: Path) -> None:
    asked = json.loads(path.read_text())
    places = [Place(*place) for place in asked["places"]]
    problems = look(places)
    ray.init(log_to_driver=False, logging_level="ERROR")
    problems += refused_gpus(asked["gpus"])
    if not problems:
        problems = _look_on_a_worker(places)
    print(ANSWER + json.dumps(problems), flush=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
