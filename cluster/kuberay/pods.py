"""What Kubernetes would run of our manifests: the pods that KubeRay makes of a RayCluster, and those of CronJobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]

GPU = "nvidia.com/gpu"
SPOT = {  # of Karpenter, EKS, Google and Azure: the label that their spot machines have
    "karpenter.sh/capacity-type": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "cloud.google.com/gke-spot": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
}


@dataclass(frozen=True)
class Pod:
    """A pod with the labels that KubeRay gives it, by which policies and monitors select it."""

    name: str  # head, a worker group's, or a CronJob's
    labels: dict[str, str]
    spec: Manifest
    containers: list[Manifest]
    group: Manifest | None = None  # of a worker: its workerGroupSpec

    @property
    def resources(self) -> Manifest:
        """Of its first container, which is Ray's."""
        found: Manifest = self.containers[0].get("resources", {})
        return found

    def spot_labels(self, how: str = "") -> set[str]:
        """By which of `SPOT` it chooses machines; `how`: `required` or `preferred` alone."""
        affinity = self.spec.get("affinity", {}).get("nodeAffinity", {})
        terms = [term for name, terms in affinity.items() if name.startswith(how) for term in _terms(terms)]
        wanted = [one for term in terms for one in term.get("matchExpressions", [])]
        return {one["key"] for one in wanted if one["operator"] == "In" and SPOT.get(one["key"]) in one["values"]}

    def tolerates(self, taint: str) -> bool:
        """Whether it may run on machines with this taint, whatever the taint's value."""
        given = [one for one in self.spec.get("tolerations", []) if one.get("operator") == "Exists"]
        return any(one.get("key", taint) == taint for one in given)


def _terms(affinity: Any) -> list[Manifest]:
    if isinstance(affinity, dict):
        terms: list[Manifest] = affinity["nodeSelectorTerms"]
        return terms
    return [weighed["preference"] for weighed in affinity]


def of_kind(manifests: list[Manifest], *kinds: str) -> Iterator[Manifest]:
    return (manifest for manifest in manifests if manifest["kind"] in kinds)


def name_of(manifest: Manifest) -> str:
    """Kind and name, as they stand in a message."""
    metadata = manifest["metadata"]
    return f"{manifest['kind']} {metadata.get('name') or metadata['generateName']}"


def pods(manifests: list[Manifest]) -> Iterator[Pod]:
    """Every pod of these manifests; the head's has the autoscaler's container beside Ray's, where KubeRay puts it."""
    for cluster in of_kind(manifests, "RayCluster"):
        spec, name = cluster["spec"], cluster["metadata"]["name"]
        head = _pod("head", spec["headGroupSpec"]["template"], name, "head", "headgroup")
        if spec.get("enableInTreeAutoscaling"):
            options = spec.get("autoscalerOptions", {})
            head.containers.append({"name": "autoscaler", "image": head.containers[0]["image"], **options})
        yield head
        for group in spec.get("workerGroupSpecs", []):
            yield _pod(group["groupName"], group["template"], name, "worker", group["groupName"], group)
    for cron in of_kind(manifests, "CronJob"):
        template = cron["spec"]["jobTemplate"]["spec"]["template"]
        labels, spec = template.get("metadata", {}).get("labels", {}), template["spec"]
        yield Pod(cron["metadata"]["name"], labels, spec, _containers(spec))


def _pod(name: str, template: Manifest, cluster: str, kind: str, group: str, spec: Manifest | None = None) -> Pod:
    own = template.get("metadata", {}).get("labels", {})
    labels = own | {"ray.io/cluster": cluster, "ray.io/node-type": kind, "ray.io/group": group}
    return Pod(name, labels, template["spec"], _containers(template["spec"]), spec)


def _containers(spec: Manifest) -> list[Manifest]:
    return [*spec["containers"], *spec.get("initContainers", [])]


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector takes a pod with these labels; an empty one takes all.

    Raises:
        ValueError: it has matchExpressions, which are not read here.
    """
    if "matchExpressions" in selector:
        raise ValueError(f"{selector}: matchExpressions are not read here: say it by matchLabels")
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()
