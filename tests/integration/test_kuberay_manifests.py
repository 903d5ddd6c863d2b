"""The overlays as `kubectl` builds them: Kubernetes and KubeRay take them, Ray reads them right, our rules hold."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import crds
import pytest
import yaml
from manifests import FOLDER, JOBS, ROOT, Manifest, Manifests, cluster_of, find, group_of, read, worker_of
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

from cluster.kuberay.check import faults
from cluster.kuberay.pods import SPOT

KUBERNETES = "1.33"
OVERLAYS = ("dev", "gpu-spot")


@pytest.fixture(scope="module")
def overlays() -> dict[str, Manifests]:
    """What `kubectl kustomize` makes of each overlay."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl here, which builds the overlays")
    return {name: _built(name) for name in OVERLAYS}


def _built(overlay: str) -> Manifests:
    command = ["kubectl", "kustomize", str(FOLDER / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def schemas(test_data: Path) -> dict[str, crds.Schema]:
    return crds.read(test_data / "data" / "kuberay")


@pytest.fixture(autouse=True)
def _where_configs_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_keeps_every_rule(overlays: dict[str, Manifests], overlay: str) -> None:
    assert faults([*overlays[overlay], *read(*JOBS)]) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kuberay_knows_every_field(
    overlays: dict[str, Manifests], schemas: dict[str, crds.Schema], overlay: str
) -> None:
    known = [manifest for manifest in overlays[overlay] if manifest["kind"] in schemas]
    assert [manifest["kind"] for manifest in known] == ["RayCluster"]
    assert crds.errors(schemas["RayCluster"], known[0]) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_knows_every_field(overlays: dict[str, Manifests], overlay: str) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="no schemas of Kubernetes here")
    core = [
        one
        for one in [*overlays[overlay], *read(*JOBS)]
        if ".k8s.io" in one["apiVersion"] or "." not in one["apiVersion"]
    ]
    assert {one["kind"] for one in core} == {
        "CronJob",
        "Namespace",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ServiceAccount",
    }
    for manifest in core:
        kubernetes.validate(manifest, KUBERNETES, strict=True)
    core[-1]["spec"]["schedul"] = core[-1]["spec"].pop("schedule")
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(core[-1], KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_names_role_image_and_namespace(overlays: dict[str, Manifests], overlay: str) -> None:
    built = overlays[overlay]
    assert {one["metadata"].get("namespace", "celebvision") for one in built} == {"celebvision"}
    account = find(built, "ServiceAccount")["metadata"]
    assert account["annotations"]["eks.amazonaws.com/role-arn"].startswith(
        "arn:aws:iam::123456789012:role/celebvision-"
    )
    templates = [cluster_of(built)["headGroupSpec"], *cluster_of(built)["workerGroupSpecs"]]
    images = {template["template"]["spec"]["containers"][0]["image"] for template in templates}
    (image,) = images
    assert image.startswith("123456789012.dkr.ecr.")
    assert all(template["template"]["spec"]["serviceAccountName"] == account["name"] for template in templates)


def test_dev_has_no_gpus_and_two_workers_at_most(overlays: dict[str, Manifests]) -> None:
    (group,) = cluster_of(overlays["dev"])["workerGroupSpecs"]
    assert (group["groupName"], group["minReplicas"], group["maxReplicas"]) == ("cpu", 0, 2)
    assert "nvidia.com/gpu" not in str(overlays["dev"])


# Which group Ray asks


def _asked(built: Manifests, gpus: int, monitor: CloudResourceMonitor) -> dict[str, int]:
    """How many pods of each group Ray's autoscaler would ask for, to give so many requests a GPU each."""
    wanted = AutoscalingConfig(
        _derive_autoscaling_config_from_ray_cr(find(built, "RayCluster")), skip_content_hash=True
    )
    reply = ResourceDemandScheduler(SimpleNamespace(emit_event=print)).schedule(
        SchedulingRequest(
            node_type_configs=wanted.get_node_type_configs(),
            max_num_nodes=wanted.get_max_num_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count(
                [ResourceRequestUtil.make({"GPU": 1, "CPU": 1}) for _ in range(gpus)]
            ),
            disable_launch_config_check=wanted.disable_launch_config_check(),
            cloud_resource_availabilities=monitor.get_resource_availabilities(),
            recoverable_resource_availabilities=monitor.get_recoverable_resource_availabilities(),
        )
    )
    return {request.instance_type: request.count for request in reply.to_launch}


def test_spot_comes_first_and_on_demand_when_spot_is_at_its_maximum(overlays: dict[str, Manifests]) -> None:
    assert _asked(overlays["gpu-spot"], 3, CloudResourceMonitor()) == {"gpu-spot": 3}
    assert _asked(overlays["gpu-spot"], 18, CloudResourceMonitor()) == {"gpu-spot": 16, "gpu": 2}


def test_on_demand_comes_when_a_spot_pod_has_waited_in_vain(overlays: dict[str, Manifests]) -> None:
    monitor = CloudResourceMonitor()
    event = InstanceUpdateEvent(new_instance_status=Instance.ALLOCATION_TIMEOUT, instance_type="gpu-spot")
    monitor.notify([event])
    assert _asked(overlays["gpu-spot"], 2, monitor) == {"gpu": 2}


# What somebody may get wrong in the overlay


def _untolerated(built: Manifests) -> None:
    tolerations = worker_of(built, "gpu-spot")["tolerations"]
    tolerations[:] = [one for one in tolerations if one["key"] != "cloud.google.com/gke-spot"]


def _untolerated_cpu(built: Manifests) -> None:
    del worker_of(built, "cpu")["tolerations"]


def _no_fallback(built: Manifests) -> None:
    group_of(built, "gpu")["maxReplicas"] = 0


def _another_machine(built: Manifests) -> None:
    worker_of(built, "gpu")["containers"][0]["resources"]["requests"]["cpu"] = "7"


def _dear_first(built: Manifests) -> None:
    group_of(built, "gpu")["priority"] = 1


SEEDED: dict[Callable[[Manifests], None], list[str]] = {
    _untolerated: ["gpu-spot: no toleration of cloud.google.com/gke-spot"],
    _untolerated_cpu: [f"cpu: no toleration of {label}" for label in sorted(SPOT)],
    _no_fallback: ["gpu-spot: spot without a fallback", "say CPU=160 GPU=16"],
    _another_machine: ["gpu-spot: spot without a fallback", "say CPU=188 GPU=20"],
    _dear_first: ["gpu-spot: its priority is not above"],
}


@pytest.mark.parametrize(("seed", "words"), SEEDED.items(), ids=[seed.__name__.strip("_") for seed in SEEDED])
def test_a_seeded_error_is_named(
    overlays: dict[str, Manifests], seed: Callable[[Manifests], None], words: list[str]
) -> None:
    built: list[Manifest] = copy.deepcopy(overlays["gpu-spot"])
    seed(built)
    found = faults(built)
    assert len(found) == len(words), found
    assert all(word in fault for word, fault in zip(words, found, strict=True)), found
