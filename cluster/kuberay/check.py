"""Rules for manifests of KubeRay: what would open a door, cost money, or stop a job before its first picture.

    kubectl kustomize cluster/kuberay/overlays/gpu-spot | python -m cluster.kuberay.check - cluster/kuberay/jobs/*.yaml

Kubernetes' own schemas know the names of settings, and would take manifests that break every one of these.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from celebvision import capacity, config
from celebvision.cli import VERBS
from cluster.check import PINNED, SECRETS, locked_ray
from cluster.kuberay.pods import GPU, Manifest, name_of, of_kind, pods
from cluster.kuberay.reach import blind_monitor, open_port


def head_works(manifests: list[Manifest]) -> Iterator[str]:
    for cluster in of_kind(manifests, "RayCluster"):
        if (cpus := cluster["spec"]["headGroupSpec"].get("rayStartParams", {}).get("num-cpus")) != "0":
            yield f'the head offers num-cpus {cpus}: say num-cpus: "0", else work starves what schedules it'


def pays_while_idle(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        for bound in ("minReplicas", "replicas"):
            if pod.group and pod.group.get(bound, 0) > 0:
                yield f"{pod.name}: {bound} {pod.group[bound]} is paid for day and night: say 0"


def no_autoscaler(manifests: list[Manifest]) -> Iterator[str]:
    for cluster in of_kind(manifests, "RayCluster"):
        spec = cluster["spec"]
        if spec.get("enableInTreeAutoscaling") is not True or spec.get("autoscalerOptions", {}).get("version") != "v2":
            yield f"{name_of(cluster)}: say enableInTreeAutoscaling: true and version: v2, else no worker ever comes"


def no_token(manifests: list[Manifest]) -> Iterator[str]:
    for cluster in of_kind(manifests, "RayCluster"):
        auth = cluster["spec"].get("authOptions", {})
        if auth.get("mode") != "token" or not auth.get("secretName"):
            yield f"{name_of(cluster)}: authOptions without mode: token and secretName: who reaches it could run code"


def secret_in_yaml(manifests: list[Manifest]) -> Iterator[str]:
    for secret in of_kind(manifests, "Secret"):
        yield f"{name_of(secret)}: its value lies in a file: make it with kubectl create secret, and name it here"
    for manifest in manifests:
        for what, pattern in SECRETS.items():
            if pattern.search(yaml.safe_dump(manifest)):
                yield f"{name_of(manifest)}: looks like {what}: pods take secrets from their role or a Secret"
    for pod in pods(manifests):
        for entry in (entry for container in pod.containers for entry in container.get("env", [])):
            if "TOKEN" in entry["name"] and "value" in entry:
                yield f"{pod.name}: the value of {entry['name']} stands in it: say valueFrom: secretKeyRef"


def as_root(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        around = pod.spec.get("securityContext", {})
        for container in pod.containers:
            has = around | container.get("securityContext", {})
            wanted = {
                "runAsNonRoot": True,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
            for setting, value in wanted.items():
                if has.get(setting) != value:
                    yield f"{pod.name}, container {container['name']}: {setting} is {has.get(setting)}: say {value}"
            if has.get("runAsUser") == 0:
                yield f"{pod.name}, container {container['name']}: runAsUser 0 is root: say 1000"


def no_limits(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        for container in pod.containers:
            where = f"{pod.name}, container {container['name']}"
            requests, limits = (container.get("resources", {}).get(kind, {}) for kind in ("requests", "limits"))
            for kind in ("memory", "ephemeral-storage"):
                if not limits.get(kind) or requests.get(kind) != limits[kind]:
                    yield f"{where}: {kind} {requests.get(kind)}, at most {limits.get(kind)}: say both, and the same"
            if not requests.get("cpu"):
                yield f"{where}: asks for no cpu: Ray would take the whole machine's for its own"


def unpinned(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        for container in pod.containers:
            if not PINNED.search(container["image"]):
                yield f"{pod.name}: image {container['image']!r} has no digest, and no tag but latest: pods may differ"
    for cluster in of_kind(manifests, "RayCluster"):
        if (has := cluster["spec"].get("rayVersion")) != (wanted := locked_ray()):
            yield f"{name_of(cluster)}: rayVersion is {has}, but requirements.lock has {wanted}: say that"


def no_tolerations(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        taints = pod.spot_labels() | ({GPU} if GPU in pod.resources.get("limits", {}) else set())
        for taint in sorted(taints):
            if not pod.tolerates(taint):
                yield f"{pod.name}: no toleration of {taint}: it would wait for ever where such machines are tainted"


def spot_alone(manifests: list[Manifest]) -> Iterator[str]:
    workers = [pod for pod in pods(manifests) if pod.group and pod.group.get("maxReplicas", 1) > 0]
    for pod in workers:
        if not pod.group or not pod.spot_labels("required"):
            continue
        others = [one for one in workers if one.resources == pod.resources and not one.spot_labels("required")]
        priorities = [one.group.get("priority", 0) for one in others if one.group]
        if not priorities:
            yield f"{pod.name}: spot without a fallback: add a group of the same resources that takes any machine"
        elif max(priorities) >= pod.group.get("priority", 0):
            yield f"{pod.name}: its priority is not above its fallback's: Ray would pay the full price first"


def wrong_capacity(manifests: list[Manifest]) -> Iterator[str]:
    """Ray's autoscaler tells nobody what it could start, and jobs ask for no more than they hear of."""
    for cluster in of_kind(manifests, "RayCluster"):
        head, *workers = (pod for pod in pods([cluster]))
        environment = {entry["name"]: entry.get("value") for entry in head.containers[0].get("env", [])}
        most: Counter[str] = Counter()
        for pod in workers:
            requests, replicas = pod.resources.get("requests", {}), (pod.group or {}).get("maxReplicas", 0)
            for kind, name in (("CPU", "cpu"), ("GPU", GPU)):
                most[kind] += int(requests.get(name, 0)) * replicas
        wanted = " ".join(f"{kind}={amount}" for kind, amount in most.items() if amount)
        if (has := environment.get(capacity.VARIABLE)) != wanted:
            yield f"{name_of(cluster)}: {capacity.VARIABLE} of the head is {has}, but its groups have: say {wanted}"


def wrong_words(manifests: list[Manifest]) -> Iterator[str]:
    """To be run where `configs/` lies: the words' files are read as the job would read them."""
    for job, words in _commands(manifests):
        program, script, *rest = words
        verb = script.removeprefix("jobs/").removesuffix(".py")
        if program != "python" or script != f"jobs/{verb}.py" or verb not in VERBS:
            yield f"{job}: {program} {script}: there is no such job: say python jobs/VERB.py, of {', '.join(VERBS)}"
            continue
        try:
            config.parse(VERBS[verb].settings, rest, verb)
        except config.WordsError as error:
            yield f"{job}: {error}"


def _commands(manifests: list[Manifest]) -> Iterator[tuple[str, list[str]]]:
    for job in of_kind(manifests, "RayJob"):
        yield name_of(job), shlex.split(job["spec"]["entrypoint"])
    for cron in of_kind(manifests, "CronJob"):
        container = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
        words = [*container.get("command", []), *container.get("args", [])]
        yield name_of(cron), words[words.index("--") + 1 :]


def refused_job(manifests: list[Manifest]) -> Iterator[str]:
    """KubeRay repeats, suspends and cleans up only where a job has a cluster of its own."""
    for job in of_kind(manifests, "RayJob"):
        spec = job["spec"]
        if not spec.get("clusterSelector", {}).get("ray.io/cluster"):
            yield f"{name_of(job)}: no clusterSelector: say which cluster it runs on, by ray.io/cluster"
        for setting in ("backoffLimit", "suspend", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"):
            if spec.get(setting):
                yield f"{name_of(job)}: {setting} is not to be had with clusterSelector: leave it out"


RULES: tuple[Callable[[list[Manifest]], Iterator[str]], ...] = (
    head_works,
    pays_while_idle,
    no_autoscaler,
    no_token,
    secret_in_yaml,
    as_root,
    no_limits,
    unpinned,
    no_tolerations,
    spot_alone,
    wrong_capacity,
    open_port,
    blind_monitor,
    wrong_words,
    refused_job,
)


def faults(manifests: list[Manifest]) -> list[str]:
    """What breaks a rule: where, with the value, and what to do. Empty: nothing does."""
    return [fault for rule in RULES for fault in rule(manifests)]


def main(files: list[str]) -> int:
    """Say what is wrong in these files together; `-` is standard input. The exit status says whether anything is."""
    if not files:
        print("say which files: kubectl kustomize FOLDER | python -m cluster.kuberay.check -", file=sys.stderr)
        return 2
    texts = [sys.stdin.read() if file == "-" else Path(file).read_text() for file in files]
    found = faults([manifest for text in texts for manifest in yaml.safe_load_all(text)])
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
