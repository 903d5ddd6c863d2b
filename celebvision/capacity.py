"""What a cluster can grow to, which is more than what there is: at first it may have no worker at all.

Ray's own libraries ask the head for it, but its autoscaler tells the head only what it has started. So
`python -m celebvision.capacity FILE` runs on the head behind `ray start`, with the file that the autoscaler was given.
Where there is no such file, as on Kubernetes, the head has CELEBVISION_CAPACITY="CPU=124 GPU=4" in its environment, and
so has every job's driver.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import ray
import yaml
from ray._private.state import state
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import ClusterConfig, NodeGroupConfig

from celebvision.job import JobFailed

VARIABLE = "CELEBVISION_CAPACITY"


def most() -> dict[str, float]:
    """By kind (CPU, GPU, …) the most that the cluster could have at a time, or has, as far as it is known.

    Raises:
        JobFailed: the environment says it in words that are none.
    """
    could, has = state.get_max_resources_from_cluster_config() or _named(), ray.cluster_resources()
    return {kind: max(could.get(kind, 0.0), has.get(kind, 0.0)) for kind in could.keys() | has.keys()}


def _named() -> dict[str, float]:
    """What the environment says. Raises `JobFailed` if it says it in other words."""
    words = os.environ.get(VARIABLE, "")
    if not re.fullmatch(r"\s*(\w+=\d+(\s+|$))*", words):
        raise JobFailed(f"{VARIABLE}: {words!r} is refused: say how much of what, such as CPU=124 GPU=4")
    return {kind: float(amount) for kind, amount in (word.split("=") for word in words.split())}


def told() -> str:
    """Where `most` comes from, in words."""
    if state.get_max_resources_from_cluster_config():
        return "so says the cluster of its types of nodes"
    if _named():
        return f"so says {VARIABLE} of the head"
    return "that is what is there now; `python -m celebvision.capacity FILE` on the head tells what it can grow to"


def report(config: dict[str, Any], address: str) -> None:
    """Tell the head at `address` (HOST:PORT) what `config`, as of Ray's cluster launcher, lets it grow to."""
    GcsClient(address=address).report_cluster_config(cluster_config(config).SerializeToString())


def cluster_config(config: dict[str, Any]) -> ClusterConfig:
    """What Ray's autoscaler keeps to, of a cluster launcher's configuration: node types, and how many of each."""
    together = config["max_workers"]
    groups, each = [], dict[str, list[float]]()
    for name, node_type in config["available_node_types"].items():
        at_most = node_type.get("max_workers", together)
        if name == config["head_node_type"] or not at_most:
            continue
        # Whole numbers, as the message wants them.
        resources = {kind: int(amount) for kind, amount in node_type["resources"].items()}
        least = node_type.get("min_workers", 0)
        groups.append(NodeGroupConfig(name=name, resources=resources, min_count=least, max_count=at_most))
        for kind, amount in resources.items():
            each.setdefault(kind, []).extend([amount] * at_most)
    # All types together have fewer nodes than the sum of what each may have.
    largest = {kind: int(sum(sorted(amounts, reverse=True)[:together])) for kind, amounts in each.items()}
    return ClusterConfig(node_group_configs=groups, max_resources=largest)


if __name__ == "__main__":
    report(yaml.safe_load(Path(sys.argv[1]).expanduser().read_text()), os.environ.get("RAY_ADDRESS", "127.0.0.1:6379"))
