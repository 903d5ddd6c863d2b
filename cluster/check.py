"""Rules for the YAML of Ray's cluster launcher on AWS: what would open a door, cost money or leave a node without S3.

    python -m cluster.check cluster/aws/cluster.yaml

Ray's own check knows the names of settings, and would start a cluster that breaks every one of these.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

LOCK = Path(__file__).parent.parent / "requirements.lock"
TOKEN_SETTINGS = ("RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN_PATH=")
INSTALLS = re.compile(r"\b(pip3?|uv|conda|apt(-get)?|yum)\b[^|;&]*\binstall\b")
PINNED = re.compile(r"(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})$")
SECRETS = {
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a secret's value": re.compile(r"(?i)(secret_access_key|session_token|password|ray_auth_token)\b\s*[=:]\s*\S"),
}

Config = dict[str, Any]


def locked_ray() -> str:
    """Ray's version in requirements.lock."""
    found = re.search(r"^ray==(\S+)", LOCK.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{LOCK}: no line begins with ray==: run make lock")
    return found[1]


def _workers(config: Config) -> Iterator[tuple[str, Config]]:
    for name, node_type in config["available_node_types"].items():
        if name != config["head_node_type"]:
            yield name, node_type


def _is_spot(node_type: Config) -> bool:
    return bool(node_type["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot")


def head_works(config: Config) -> Iterator[str]:
    resources = config["available_node_types"][config["head_node_type"]].get("resources", {})
    for kind in ("CPU", "GPU"):
        if (has := resources.get(kind)) != 0:
            yield f"the head offers {kind} {has}: say resources {{{kind}: 0}}, else work starves what schedules it"


def profile_of_its_own(config: Config) -> Iterator[str]:
    profiles = {
        name: of["node_config"].get("IamInstanceProfile") for name, of in config["available_node_types"].items()
    }
    for name, profile in profiles.items():
        if not profile:
            yield f"{name}: no IamInstanceProfile in node_config: it could read no bucket, as Ray gives workers none"
        elif name != config["head_node_type"] and profile == profiles[config["head_node_type"]]:
            yield f"{name}: IamInstanceProfile {profile} is the head's, who starts and ends machines: give it another"


def public_address(config: Config) -> Iterator[str]:
    if config["provider"].get("use_internal_ips") is not True:
        yield "provider: use_internal_ips is not true: nodes would want public addresses"
    for name, node_type in config["available_node_types"].items():
        node = node_type["node_config"]
        if any(card.get("AssociatePublicIpAddress") for card in node.get("NetworkInterfaces", [])):
            yield f"{name}: AssociatePublicIpAddress gives it a public address: leave it out"
        if not node.get("SecurityGroupIds") and "NetworkInterfaces" not in node:
            yield f"{name}: no SecurityGroupIds: Ray would make a group that lets the whole internet try SSH"


def bare_machine(config: Config) -> Iterator[str]:
    for name, node_type in config["available_node_types"].items():
        node = node_type["node_config"]
        if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
            yield f"{name}: MetadataOptions without HttpTokens: required (IMDSv2): a forged request could take its role"
        disks = [disk["Ebs"] for disk in node.get("BlockDeviceMappings", []) if "Ebs" in disk]
        if not disks or not all(disk.get("Encrypted") is True for disk in disks):
            yield f"{name}: BlockDeviceMappings without Encrypted: true: pictures lie on its disk"


def no_token(config: Config) -> Iterator[str]:
    words = " ".join(config.get("docker", {}).get("run_options", []))
    for setting in TOKEN_SETTINGS:
        if setting not in words:
            yield f"docker: run_options without --env={setting}…: whoever reaches the head could run what they like"


def open_dashboard(config: Config) -> Iterator[str]:
    for command in config["head_start_ray_commands"]:
        if "ray start" in command and "--dashboard-host=127.0.0.1" not in command:
            yield f"head_start_ray_commands: {command!r} without --dashboard-host=127.0.0.1: jobs come in by a tunnel"


def unpinned(config: Config) -> Iterator[str]:
    if (wanted := locked_ray()) != (has := config.get("metadata", {}).get("ray")):
        yield f"metadata: ray is {has}, but requirements.lock has {wanted}: both must be of one version"
    dockers = [config.get("docker", {}), *(of.get("docker", {}) for of in config["available_node_types"].values())]
    images = [(where, docker[where]) for docker in dockers for where in docker if where.endswith("image")]
    for where, image in images or [("image", "")]:
        if not PINNED.search(image):
            yield f"docker: {where} {image!r} has no digest, and no tag but latest: nodes that come later would differ"
    for where in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        if where not in config:
            yield f"{where} is missing: Ray's default installs a nightly build of itself: say []"
        for command in config.get(where, []):
            if INSTALLS.search(command):
                yield f"{where}: {command!r} installs what the image has pinned: put it into the image"


def spot_alone(config: Config) -> Iterator[str]:
    stand_ins: dict[str, list[int]] = {}
    for _, node_type in _workers(config):
        if not _is_spot(node_type) and node_type.get("max_workers", 1) > 0:
            kind = node_type["node_config"]["InstanceType"]
            stand_ins.setdefault(kind, []).append(node_type.get("priority", 0))
    for name, node_type in _workers(config):
        if not _is_spot(node_type):
            continue
        kind, priority = node_type["node_config"]["InstanceType"], node_type.get("priority", 0)
        if kind not in stand_ins:
            yield f"{name}: spot without a fallback: add a type of {kind} without InstanceMarketOptions"
        elif max(stand_ins[kind]) >= priority:
            yield f"{name}: its priority {priority} is not above its fallback's: Ray would pay the full price first"


def pays_while_idle(config: Config) -> Iterator[str]:
    for name, node_type in _workers(config):
        if node_type.get("min_workers", 0) > 0:
            yield f"{name}: min_workers {node_type['min_workers']} is paid for day and night: say 0"
    if config.get("idle_timeout_minutes", 0) <= 0:
        yield "idle_timeout_minutes is missing: nodes would stay when the work is done"


def credential(config: Config) -> Iterator[str]:
    if config["provider"].get("aws_credentials"):
        yield "provider: aws_credentials would lie on the head: leave them out, its role has what it needs"
    for place, text in _texts(config):
        for what, pattern in SECRETS.items():
            if pattern.search(text):
                yield f"{place}: looks like {what}: nodes take secrets from their role or the parameter store"


def _texts(value: object, place: str = "") -> Iterator[tuple[str, str]]:
    """Each value of the YAML, with its key before it, and where it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{place}[{number}]")
    else:
        yield place, f"{place.rpartition('.')[2]}: {value}"


RULES: tuple[Callable[[Config], Iterator[str]], ...] = (
    head_works,
    profile_of_its_own,
    public_address,
    bare_machine,
    no_token,
    open_dashboard,
    unpinned,
    spot_alone,
    pays_while_idle,
    credential,
)


def faults(config: Config) -> list[str]:
    """What breaks a rule: where, with the value, and what to do. Empty: nothing does."""
    return [fault for rule in RULES for fault in rule(config)]


def main(files: list[str]) -> int:
    """Say what is wrong in each file; the exit status says whether anything is."""
    if not files:
        print("say which files: python -m cluster.check cluster/aws/cluster.yaml", file=sys.stderr)
        return 2
    found = [f"{file}: {fault}" for file in files for fault in faults(yaml.safe_load(Path(file).read_text()))]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
