"""Rules for who reaches whom: policies that let in or out more than is said, and monitors that see nothing."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from cluster.kuberay.pods import Manifest, Pod, name_of, of_kind, pods, selects

METADATA = IPv4Network("169.254.169.254/32")
HTTPS = 443


def open_port(manifests: list[Manifest]) -> Iterator[str]:
    policies = list(of_kind(manifests, "NetworkPolicy"))
    for pod in pods(manifests):
        for way in ("Ingress", "Egress") if policies else ():
            closing = (one["spec"] for one in policies if way in one["spec"]["policyTypes"])
            if not any(selects(one["podSelector"], pod.labels) for one in closing):
                yield f"{pod.name}: no NetworkPolicy of {way} selects it, so all of it is open"
    for policy in policies:
        for rule in policy["spec"].get("ingress", []):
            for peer in rule.get("from") or [{}]:
                if "ipBlock" in peer or not any(any(selector.values()) for selector in peer.values()):
                    yield f"{name_of(policy)}: lets in {peer or 'anybody'}: name the pods or the namespace"
        for rule in policy["spec"].get("egress", []):
            yield from (f"{name_of(policy)}: {fault}" for fault in _leaks(rule))
    for cluster in of_kind(manifests, "RayCluster"):
        head = cluster["spec"]["headGroupSpec"]
        if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
            yield f"{name_of(cluster)}: the jobs port is shown outside: leave serviceType and enableIngress out"


def _leaks(rule: Manifest) -> Iterator[str]:
    ports = {one.get("port") for one in rule.get("ports", [])}
    for peer in rule.get("to") or [{"ipBlock": {"cidr": "0.0.0.0/0"}}]:
        block = peer.get("ipBlock")
        if block is None or IPv4Network(block["cidr"]).is_private:
            continue
        if ports != {HTTPS}:
            yield f"lets out to {block['cidr']} on ports {sorted(map(str, ports)) or 'of all kinds'}: say {HTTPS} alone"
        if not any(METADATA.subnet_of(IPv4Network(one)) for one in block.get("except", [])):
            yield f"lets out to {METADATA}, where pods would find the machine's role: except 169.254.0.0/16"


def blind_monitor(manifests: list[Manifest]) -> Iterator[str]:
    for monitor in of_kind(manifests, "PodMonitor"):
        seen = [pod for pod in pods(manifests) if selects(monitor["spec"]["selector"], pod.labels)]
        if not seen:
            yield f"{name_of(monitor)}: selects no pod: {monitor['spec']['selector']}"
        for port in (endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]):
            for pod in (pod for pod in seen if port not in _ports(pod)):
                yield f"{name_of(monitor)}: {pod.name} has no port named {port}"


def _ports(pod: Pod) -> set[str]:
    return {port["name"] for container in pod.containers for port in container.get("ports", [])}
