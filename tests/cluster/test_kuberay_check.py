"""The rules for KubeRay's manifests: each error that somebody may make in them is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from manifests import BASE, JOBS, ROOT, Manifest, Manifests, cluster_of, find, group_of, read, worker_of

from cluster.kuberay import check
from cluster.kuberay.check import RULES, faults, main

Rule = Callable[[Manifests], Iterator[str]]


@pytest.fixture(autouse=True)
def _where_configs_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def manifests() -> Manifests:
    return read(*BASE, *JOBS)


def _head(manifests: Manifests) -> Manifest:
    pod: Manifest = cluster_of(manifests)["headGroupSpec"]["template"]["spec"]
    return pod


def _works(manifests: Manifests) -> None:
    cluster_of(manifests)["headGroupSpec"]["rayStartParams"] = {}


def _always_there(manifests: Manifests) -> None:
    group_of(manifests, "gpu")["minReplicas"] = 1


def _by_hand(manifests: Manifests) -> None:
    cluster_of(manifests)["enableInTreeAutoscaling"] = False


def _no_auth(manifests: Manifests) -> None:
    del cluster_of(manifests)["authOptions"]


def _secret(manifests: Manifests) -> None:
    manifests.append({"kind": "Secret", "metadata": {"name": "celebvision-token"}, "stringData": {"auth_token": "0"}})


def _aws_key(manifests: Manifests) -> None:
    _head(manifests)["containers"][0]["env"].append({"name": "ID", "value": "AKIA" + "X" * 16})


def _token_in_env(manifests: Manifests) -> None:
    _head(manifests)["containers"][0]["env"].append({"name": "RAY_AUTH_TOKEN", "value": "0123456789"})


def _root(manifests: Manifests) -> None:
    worker_of(manifests, "cpu")["securityContext"]["runAsUser"] = 0


def _may_be_root(manifests: Manifests) -> None:
    del worker_of(manifests, "cpu")["containers"][0]["securityContext"]["runAsNonRoot"]
    del worker_of(manifests, "cpu")["securityContext"]["runAsNonRoot"]


def _autoscaler_writes(manifests: Manifests) -> None:
    del cluster_of(manifests)["autoscalerOptions"]["securityContext"]["readOnlyRootFilesystem"]


def _no_limit(manifests: Manifests) -> None:
    del worker_of(manifests, "cpu")["containers"][0]["resources"]["limits"]["memory"]


def _more_than_asked(manifests: Manifests) -> None:
    worker_of(manifests, "cpu")["containers"][0]["resources"]["limits"]["memory"] = "64Gi"


def _no_cpu(manifests: Manifests) -> None:
    del worker_of(manifests, "gpu")["containers"][0]["resources"]["requests"]["cpu"]
    _head(manifests)["containers"][0]["env"][0]["value"] = "CPU=112 GPU=4"


def _more_workers(manifests: Manifests) -> None:
    group_of(manifests, "gpu")["maxReplicas"] = 5


def _no_capacity(manifests: Manifests) -> None:
    del _head(manifests)["containers"][0]["env"][0]


def _latest(manifests: Manifests) -> None:
    worker_of(manifests, "gpu")["containers"][0]["image"] = "celebvision:latest"


def _other_ray(manifests: Manifests) -> None:
    cluster_of(manifests)["rayVersion"] = "2.59.0"


def _not_on_gpus(manifests: Manifests) -> None:
    del worker_of(manifests, "gpu")["tolerations"]


def _spot_alone(manifests: Manifests) -> None:
    terms = [{"matchExpressions": [{"key": "cloud.google.com/gke-spot", "operator": "In", "values": ["true"]}]}]
    chosen = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    worker_of(manifests, "gpu")["affinity"] = {"nodeAffinity": chosen}
    worker_of(manifests, "gpu")["tolerations"] = [{"operator": "Exists"}]


def _world_in(manifests: Manifests) -> None:
    del find(manifests, "NetworkPolicy", "jobs")["spec"]["ingress"][0]["from"]


def _block_in(manifests: Manifests) -> None:
    find(manifests, "NetworkPolicy", "jobs")["spec"]["ingress"][0]["from"] = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]


def _all_namespaces_in(manifests: Manifests) -> None:
    find(manifests, "NetworkPolicy", "metrics")["spec"]["ingress"][0]["from"] = [{"namespaceSelector": {}}]


def _any_port_out(manifests: Manifests) -> None:
    del find(manifests, "NetworkPolicy", "ray")["spec"]["egress"][1]["ports"]


def _metadata_service(manifests: Manifests) -> None:
    del find(manifests, "NetworkPolicy", "ray")["spec"]["egress"][1]["to"][0]["ipBlock"]["except"]


def _not_closed(manifests: Manifests) -> None:
    for policy in ("nobody", "names"):
        find(manifests, "NetworkPolicy", policy)["spec"]["podSelector"] = {
            "matchLabels": {"ray.io/cluster": "celebvision"}
        }
    find(manifests, "NetworkPolicy", "clients")["spec"]["podSelector"] = {
        "matchLabels": {"ray.io/cluster": "celebvision"}
    }


def _load_balancer(manifests: Manifests) -> None:
    cluster_of(manifests)["headGroupSpec"]["serviceType"] = "LoadBalancer"


def _monitors_nobody(manifests: Manifests) -> None:
    find(manifests, "PodMonitor")["spec"]["selector"]["matchLabels"] = {"ray.io/cluster": "celebvison"}


def _no_such_port(manifests: Manifests) -> None:
    worker_of(manifests, "cpu")["containers"][0]["ports"] = []


def _say(verb: str, old: str, new: str) -> Callable[[Manifests], None]:
    def seed(manifests: Manifests) -> None:
        spec = find(manifests, "RayJob", verb)["spec"]
        assert old in spec["entrypoint"]
        spec["entrypoint"] = spec["entrypoint"].replace(old, new)

    seed.__name__ = f"{verb}{new.replace('/', '_')}"
    return seed


def _nightly_words(manifests: Manifests) -> None:
    job = find(manifests, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    job["containers"][0]["args"] += ["--rule", "best"]


def _own_cluster(manifests: Manifests) -> None:
    del find(manifests, "RayJob", "classify")["spec"]["clusterSelector"]


def _repeated(manifests: Manifests) -> None:
    find(manifests, "RayJob", "classify")["spec"]["backoffLimit"] = 3


SEEDED: dict[Callable[[Manifests], None], tuple[Rule, list[str]]] = {
    _works: (check.head_works, ["the head offers num-cpus None"]),
    _always_there: (check.pays_while_idle, ["gpu: minReplicas 1 is paid for"]),
    _by_hand: (check.no_autoscaler, ["enableInTreeAutoscaling"]),
    _no_auth: (check.no_token, ["authOptions without mode: token"]),
    _secret: (check.secret_in_yaml, ["Secret celebvision-token: its value lies in a file"]),
    _aws_key: (check.secret_in_yaml, ["RayCluster celebvision: looks like an AWS access key"]),
    _token_in_env: (check.secret_in_yaml, ["head: the value of RAY_AUTH_TOKEN"]),
    _root: (check.as_root, ["cpu, container ray: runAsUser 0"]),
    _may_be_root: (check.as_root, ["cpu, container ray: runAsNonRoot is None"]),
    _autoscaler_writes: (check.as_root, ["head, container autoscaler: readOnlyRootFilesystem is None"]),
    _no_limit: (check.no_limits, ["cpu, container ray: memory 26Gi, at most None"]),
    _more_than_asked: (check.no_limits, ["cpu, container ray: memory 26Gi, at most 64Gi"]),
    _no_cpu: (check.no_limits, ["gpu, container ray: asks for no cpu"]),
    _latest: (check.unpinned, ["gpu: image 'celebvision:latest'"]),
    _other_ray: (check.unpinned, ["rayVersion is 2.59.0"]),
    _not_on_gpus: (check.no_tolerations, ["gpu: no toleration of nvidia.com/gpu"]),
    _spot_alone: (check.spot_alone, ["gpu: spot without a fallback"]),
    _more_workers: (check.wrong_capacity, ["of the head is CPU=124 GPU=4, but its groups have: say CPU=127 GPU=5"]),
    _no_capacity: (check.wrong_capacity, ["of the head is None, but its groups have: say CPU=124 GPU=4"]),
    _world_in: (check.open_port, ["NetworkPolicy jobs: lets in anybody"]),
    _block_in: (check.open_port, ["NetworkPolicy jobs: lets in {'ipBlock'"]),
    _all_namespaces_in: (check.open_port, ["NetworkPolicy metrics: lets in {'namespaceSelector': {}}"]),
    _any_port_out: (check.open_port, ["NetworkPolicy ray: lets out to 0.0.0.0/0 on ports of all kinds"]),
    _metadata_service: (check.open_port, ["NetworkPolicy ray: lets out to 169.254.169.254/32"]),
    _not_closed: (check.open_port, [f"retrain: no NetworkPolicy of {way} selects it" for way in ("Ingress", "Egress")]),
    _load_balancer: (check.open_port, ["RayCluster celebvision: the jobs port is shown outside"]),
    _monitors_nobody: (check.blind_monitor, ["PodMonitor celebvision: selects no pod"]),
    _no_such_port: (check.blind_monitor, ["PodMonitor celebvision: cpu has no port named metrics"]),
    _say("classify", "jobs/classify.py", "jobs/label.py"): (
        check.wrong_words,
        ["RayJob classify-: python jobs/label.py: there is no such job"],
    ),
    _say("classify", "--output", "--ouput"): (
        check.wrong_words,
        ["RayJob classify-: --ouput: there is no such setting; did you mean --output?"],
    ),
    _say("train", "--workers 2", "--workers two"): (check.wrong_words, ["RayJob train-: workers: 'two' is refused"]),
    _say("stylize", "stylize.yaml", "styles.yaml"): (
        check.wrong_words,
        ["RayJob stylize-: --config configs/styles.yaml: No such file"],
    ),
    _nightly_words: (check.wrong_words, ["CronJob retrain: rule: 'best' is refused"]),
    _own_cluster: (check.refused_job, ["RayJob classify-: no clusterSelector"]),
    _repeated: (check.refused_job, ["RayJob classify-: backoffLimit is not to be had"]),
}


@pytest.mark.parametrize("seed", SEEDED, ids=[seed.__name__.strip("_") for seed in SEEDED])
def test_a_seeded_error_is_named(manifests: Manifests, seed: Callable[[Manifests], None]) -> None:
    rule, words = SEEDED[seed]
    seed(manifests)
    found = faults(manifests)
    assert found == list(rule(manifests))
    assert len(found) == len(words), found
    assert all(word in fault for word, fault in zip(words, found, strict=True)), found


def test_every_rule_has_a_seeded_error() -> None:
    assert {rule for rule, _ in SEEDED.values()} == set(RULES)


def test_the_check_says_what_is_wrong_and_fails(
    manifests: Manifests, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.yaml"
    _works(manifests)
    broken.write_text(yaml.safe_dump_all(manifests))
    assert main([str(broken)]) == 1
    assert capsys.readouterr().out.startswith("the head offers num-cpus None")
    assert main([str(file) for file in (*BASE, *JOBS)]) == 0
    assert main([]) == 2
