"""The manifests for KubeRay: what they promise, as Ray's autoscaler and KubeRay's own definitions read them.

Overlays are built and looked at in tests/integration/test_kuberay_manifests.py.
"""

from __future__ import annotations

from pathlib import Path

import crds
import pytest
import ray
import yaml
from manifests import BASE, JOBS, ROOT, Manifests, cluster_of, find, read, worker_of
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from cluster.kuberay.check import faults
from cluster.kuberay.pods import pods


@pytest.fixture(autouse=True)
def _where_configs_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def manifests() -> Manifests:
    return read(*BASE, *JOBS)


def test_the_manifests_keep_every_rule(manifests: Manifests) -> None:
    assert faults(manifests) == []


@pytest.mark.parametrize("file", [*BASE, *JOBS], ids=lambda file: file.name)
def test_kuberay_knows_every_field(file: Path, schemas: dict[str, crds.Schema]) -> None:
    for manifest in yaml.safe_load_all(file.read_text()):
        if manifest["kind"] in schemas:
            assert crds.errors(schemas[manifest["kind"]], manifest) == []


@pytest.fixture(scope="module")
def schemas(test_data: Path) -> dict[str, crds.Schema]:
    return crds.read(test_data / "data" / "kuberay")


def test_a_field_that_kuberay_does_not_know_is_refused(manifests: Manifests, schemas: dict[str, crds.Schema]) -> None:
    cluster_of(manifests)["autoscalerOptions"]["idleTimeoutSecond"] = 60
    worker_of(manifests, "gpu")["tolerations"][0]["operatr"] = "Exists"
    found = crds.errors(schemas["RayCluster"], find(manifests, "RayCluster"))
    assert [error.partition(":")[0] for error in found] == [
        "$.spec.autoscalerOptions",
        "$.spec.workerGroupSpecs[1].template.spec.tolerations[0]",
    ]


def test_ray_sees_a_head_without_work_and_workers_from_none_to_the_most(manifests: Manifests) -> None:
    cluster = find(manifests, "RayCluster")
    cluster["metadata"]["namespace"] = "celebvision"
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert "GPU" not in types["headgroup"]["resources"]
    assert (types["cpu"]["min_workers"], types["cpu"]["max_workers"], types["cpu"]["resources"]["CPU"]) == (0, 8, 14)
    assert (types["gpu"]["min_workers"], types["gpu"]["max_workers"], types["gpu"]["resources"]["GPU"]) == (0, 4, 1)


def test_the_version_of_ray_is_the_one_that_runs(manifests: Manifests) -> None:
    assert cluster_of(manifests)["rayVersion"] == ray.__version__


def test_a_drained_node_has_until_just_before_it_is_killed(manifests: Manifests) -> None:
    for pod in pods(manifests):
        env = {entry["name"]: entry.get("value") for entry in pod.containers[0]["env"]}
        if pod.group:
            drain_s = float(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert 0 < drain_s < pod.spec["terminationGracePeriodSeconds"]


def test_every_remote_verb_has_its_manifest() -> None:
    assert {file.stem for file in JOBS} == {"ingest", "train", "retrain", "evaluate", "classify", "stylize"}
