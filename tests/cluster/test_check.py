"""The rules for the launcher's YAML: ours keeps them all, and each error that is put into it is named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.check import RULES, faults, locked_ray, main

FILE = Path(__file__).parents[2] / "cluster" / "aws" / "cluster.yaml"

Config = dict[str, Any]


@pytest.fixture
def config() -> Config:
    loaded: Config = yaml.safe_load(FILE.read_text())
    return loaded


def _types(config: Config) -> Config:
    types: Config = config["available_node_types"]
    return types


def test_the_yaml_keeps_every_rule(config: Config) -> None:
    assert faults(config) == []


def _latest(config: Config) -> None:
    config["docker"]["image"] = config["docker"]["image"].rpartition(":")[0] + ":latest"


def _other_ray(config: Config) -> None:
    config["metadata"]["ray"] = "2.59.0"


def _nightly(config: Config) -> None:
    del config["setup_commands"]


def _installs(config: Config) -> None:
    config["worker_setup_commands"].append("pip install -U ray")


def _head_works(config: Config) -> None:
    _types(config)["head"]["resources"] = {"GPU": 0}


def _no_profile(config: Config) -> None:
    del _types(config)["gpu-spot"]["node_config"]["IamInstanceProfile"]


def _heads_profile(config: Config) -> None:
    types = _types(config)
    types["gpu-spot"]["node_config"]["IamInstanceProfile"] = types["head"]["node_config"]["IamInstanceProfile"]


def _external(config: Config) -> None:
    config["provider"]["use_internal_ips"] = False


def _public_card(config: Config) -> None:
    _types(config)["cpu-spot"]["node_config"]["NetworkInterfaces"] = [{"AssociatePublicIpAddress": True}]


def _open_ssh(config: Config) -> None:
    del _types(config)["cpu-spot"]["node_config"]["SecurityGroupIds"]


def _old_metadata(config: Config) -> None:
    _types(config)["gpu-spot"]["node_config"]["MetadataOptions"] = {"HttpTokens": "optional"}


def _clear_disk(config: Config) -> None:
    del _types(config)["gpu-spot"]["node_config"]["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]


def _no_token(config: Config) -> None:
    config["docker"]["run_options"].remove("--env=RAY_AUTH_MODE=token")


def _open_dashboard(config: Config) -> None:
    commands = config["head_start_ray_commands"]
    config["head_start_ray_commands"] = [
        command.replace("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0") for command in commands
    ]


def _no_fallback(config: Config) -> None:
    del _types(config)["gpu-on-demand"]


def _dear_first(config: Config) -> None:
    _types(config)["gpu-on-demand"]["priority"] = 1


def _always_on(config: Config) -> None:
    _types(config)["gpu-spot"]["min_workers"] = 1


def _never_ends(config: Config) -> None:
    del config["idle_timeout_minutes"]


def _key(config: Config) -> None:
    config["docker"]["run_options"].append("--env=AWS_SECRET_ACCESS_KEY=0123456789")


def _key_id(config: Config) -> None:
    config["setup_commands"].append("aws configure set aws_access_key_id AKIA" + "X" * 16)


def _token_in_yaml(config: Config) -> None:
    config["docker"]["run_options"].append("--env=RAY_AUTH_TOKEN=0123456789")


SEEDED: dict[Callable[[Config], None], str] = {
    _no_profile: "gpu-spot: no IamInstanceProfile",
    _heads_profile: "gpu-spot: IamInstanceProfile {'Name': 'celebvision-head'} is the head's",
    _external: "use_internal_ips is not true",
    _public_card: "cpu-spot: AssociatePublicIpAddress",
    _open_ssh: "cpu-spot: no SecurityGroupIds",
    _head_works: "the head offers CPU None",
    _no_token: "RAY_AUTH_MODE=token",
    _open_dashboard: "without --dashboard-host=127.0.0.1",
    _latest: "no tag but latest",
    _other_ray: "ray is 2.59.0",
    _nightly: "setup_commands is missing",
    _installs: "worker_setup_commands: 'pip install -U ray'",
    _no_fallback: "gpu-spot: spot without a fallback",
    _dear_first: "gpu-spot: its priority 1",
    _old_metadata: "gpu-spot: MetadataOptions",
    _clear_disk: "gpu-spot: BlockDeviceMappings",
    _always_on: "gpu-spot: min_workers 1",
    _never_ends: "idle_timeout_minutes is missing",
    _key: "docker.run_options[6]: looks like a secret's value",
    _key_id: "setup_commands[0]: looks like an AWS access key",
    _token_in_yaml: "docker.run_options[6]: looks like a secret's value",
}


@pytest.mark.parametrize(("seed", "words"), SEEDED.items(), ids=[seed.__name__.strip("_") for seed in SEEDED])
def test_a_seeded_error_is_named(config: Config, seed: Callable[[Config], None], words: str) -> None:
    config = yaml.safe_load(yaml.dump(config, Dumper=_NoAliases))  # what is shared by anchors, apart
    seed(config)
    found = faults(config)
    assert len(found) == 1, found
    assert words in found[0]


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def test_every_rule_has_a_seeded_error(config: Config) -> None:
    caught = set()
    for seed in SEEDED:
        broken = copy.deepcopy(config)
        seed(broken)
        caught |= {rule for rule in RULES if list(rule(broken))}
    assert caught == set(RULES)


def test_the_check_says_which_file_and_fails(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.yaml"
    _external(config)
    broken.write_text(yaml.dump(config))
    assert main([str(FILE), str(broken)]) == 1
    assert capsys.readouterr().out.startswith(f"{broken}: provider: use_internal_ips")
    assert main([str(FILE)]) == 0
    assert main([]) == 2


def test_the_version_of_ray_is_the_locked_one(config: Config) -> None:
    import ray

    assert config["metadata"]["ray"] == locked_ray() == ray.__version__
