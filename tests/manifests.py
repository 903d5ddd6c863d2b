"""The manifests of `cluster/kuberay`, read as they lie there, before an overlay changes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "cluster" / "kuberay"
BASE = sorted(file for file in (FOLDER / "base").glob("*.yaml") if file.name != "kustomization.yaml")
JOBS = sorted((FOLDER / "jobs").glob("*.yaml"))

Manifest = dict[str, Any]
Manifests = list[Manifest]


def read(*files: Path) -> Manifests:
    """All that these files hold, for a test to change."""
    return [_apart(one) for file in files for one in yaml.safe_load_all(file.read_text())]


def _apart(value: Any) -> Any:
    """The same, but what anchors share is there as often as it is named."""
    if isinstance(value, dict):
        return {key: _apart(inner) for key, inner in value.items()}
    return [_apart(inner) for inner in value] if isinstance(value, list) else value


def find(manifests: Manifests, kind: str, name: str = "") -> Manifest:
    """The first of a kind whose name, or what its name is made of, begins with `name`."""
    for manifest in manifests:
        metadata = manifest["metadata"]
        if manifest["kind"] == kind and str(metadata.get("name") or metadata["generateName"]).startswith(name):
            return manifest
    raise LookupError(f"no {kind} {name} in the manifests")


def cluster_of(manifests: Manifests) -> Manifest:
    spec: Manifest = find(manifests, "RayCluster")["spec"]
    return spec


def group_of(manifests: Manifests, name: str) -> Manifest:
    return next(group for group in cluster_of(manifests)["workerGroupSpecs"] if group["groupName"] == name)


def worker_of(manifests: Manifests, name: str) -> Manifest:
    """The pod spec of a worker group."""
    pod: Manifest = group_of(manifests, name)["template"]["spec"]
    return pod
