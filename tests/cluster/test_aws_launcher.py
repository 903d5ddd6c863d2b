"""The launcher's YAML: Ray takes it, and makes of it on EC2 what it promises (moto stands for AWS)."""

from __future__ import annotations

import copy
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from ray.autoscaler._private import commands, providers
from ray.autoscaler._private.aws import config as aws_config
from ray.autoscaler._private.aws import utils as aws_utils
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import NODE_KIND_WORKER, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

from celebvision.spot import NO_SPOT

FILE = Path(__file__).parents[2] / "cluster" / "aws" / "cluster.yaml"
TRUST = '{"Version": "2012-10-17", "Statement": []}'

Config = dict[str, Any]


def _types(config: Config) -> Config:
    types: Config = config["available_node_types"]
    return types


@pytest.fixture(scope="module")
def aws(module_environment: pytest.MonkeyPatch) -> Iterator[None]:
    """An AWS of its own in this process, with Ray's memory of an earlier one wiped."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else one line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    module_environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    _forget_clients()
    yield
    server.stop()
    _forget_clients()


def _forget_clients() -> None:
    aws_utils.client_cache.cache_clear()
    aws_utils.resource_cache.cache_clear()
    aws_config._get_subnets_or_die.cache_clear()
    providers._clear_provider_cache()


@pytest.fixture(scope="module")
def module_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """Nobody's credentials, and a home where Ray may leave the key that it makes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", "testaccess")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testsecret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield patch


@pytest.fixture(scope="module")
def bootstrapped(aws: None) -> Config:
    """The YAML with the numbers of a network that is there, as Ray has filled it up."""
    ec2, iam = boto3.client("ec2"), boto3.client("iam")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="nodes", Description="nodes", VpcId=vpc)["GroupId"]
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    for name in ("celebvision-head", "celebvision-worker"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    text = FILE.read_text()
    for number, there in {"subnet-": subnet, "sg-": group, "ami-": image}.items():
        text = text.replace(f"{number}{'0' * 17}", there)
    there_now: Config = commands._bootstrap_config(yaml.safe_load(text), no_config_cache=True)
    return there_now


@pytest.fixture(scope="module")
def filled(aws: None) -> Config:
    """The YAML with Ray's defaults, and with what EC2 says of the machines."""
    prepared = prepare_config(yaml.safe_load(FILE.read_text()))
    full: Config = providers._get_node_provider_cls(prepared["provider"]).fillout_available_node_types_resources(
        prepared
    )
    return full


def test_ray_takes_the_yaml(filled: Config) -> None:
    validate_config(filled)
    assert _types(filled)["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert _types(filled)["gpu-spot"]["resources"] == _types(filled)["gpu-on-demand"]["resources"]
    assert _types(filled)["gpu-spot"]["resources"]["GPU"] == 1
    assert _types(filled)["cpu-spot"]["resources"]["CPU"] == 16
    assert filled["setup_commands"] == filled["head_setup_commands"] == filled["worker_setup_commands"] == []


def _assert_closed(instance: Any, profile: str) -> None:
    assert instance.iam_instance_profile["Arn"].endswith(f"instance-profile/{profile}")
    assert instance.metadata_options["HttpTokens"] == "required"
    assert instance.metadata_options["HttpPutResponseHopLimit"] == 1
    assert instance.public_ip_address is None
    assert instance.private_ip_address.startswith("10.0.0.")
    volumes = list(instance.volumes.all())
    assert [volume.encrypted for volume in volumes] == [True]


class _NobodySshes:
    """In place of `subprocess`: remembers what would be run on nodes, and answers as a machine with Docker does."""

    CalledProcessError = subprocess.CalledProcessError

    def __init__(self) -> None:
        self.said: list[str] = []

    def check_call(self, words: list[str], *args: object, **kwargs: object) -> int:
        self.said.append(" ".join(words))
        return 0

    def check_output(self, words: list[str], *args: object, **kwargs: object) -> bytes:
        self.said.append(" ".join(words))
        return b'["HOME=/home/ray"]' if ".Config.Env" in words[-1] else b"docker"


def test_the_head_comes_up_closed_and_with_its_role(bootstrapped: Config) -> None:
    runner = _NobodySshes()
    commands.get_or_create_head_node(
        bootstrapped,
        str(FILE),
        no_restart=False,
        restart_only=False,
        yes=True,
        override_cluster_name=None,
        _runner=runner,
    )
    (head,) = _instances("head")
    _assert_closed(head, "celebvision-head")
    assert head.spot_instance_request_id is None
    ran = [words for words in runner.said if words.startswith("ssh ")]
    assert all("ProxyCommand=aws ssm start-session" in words and f"ubuntu@{head.id}" in words for words in ran)
    starts, makes = (next(i for i, words in enumerate(ran) if what in words) for what in ("ray start", "share_token"))
    assert makes < starts
    assert "--dashboard-host=127.0.0.1" in ran[starts]
    assert "--make" in ran[makes]
    (run,) = [words for words in ran if "docker run" in words]
    assert "--env=RAY_AUTH_MODE=token" in run


def test_the_head_reaches_workers_without_the_tunnel(bootstrapped: Config) -> None:
    provider = providers._get_node_provider(bootstrapped["provider"], bootstrapped["cluster_name"])
    config, _file = commands._set_up_config_for_head_node(bootstrapped, provider, no_restart=False)
    sent = yaml.safe_load(Path(config["file_mounts"]["~/ray_bootstrap_config.yaml"]).read_text())
    assert not {"ssh_proxy_command", "ssh_proxy_use_node_id"} & sent["auth"].keys()
    assert sent["auth"]["ssh_private_key"] == "~/ray_bootstrap_key.pem"


@pytest.mark.parametrize(("name", "spot"), [("gpu-spot", True), ("gpu-on-demand", False), ("cpu-spot", True)])
def test_a_worker_comes_up_closed_and_with_its_role(bootstrapped: Config, name: str, spot: bool) -> None:
    provider = providers._get_node_provider(bootstrapped["provider"], bootstrapped["cluster_name"])
    node = _types(bootstrapped)[name]["node_config"]
    made = provider.create_node(node, {TAG_RAY_NODE_KIND: NODE_KIND_WORKER}, 1)
    (worker,) = boto3.resource("ec2").instances.filter(InstanceIds=list(made))
    _assert_closed(worker, "celebvision-worker")
    assert (worker.instance_lifecycle == "spot") is spot


class _Refusing:
    """EC2 that refuses spot instances, or all, for a reason; it remembers what it was asked for."""

    def __init__(self, ec2: Any, reason: str, spot_alone: bool = True) -> None:
        self.ec2, self.reason, self.spot_alone = ec2, reason, spot_alone
        self.asked: list[str] = []

    def create_instances(self, **words: Any) -> Any:
        spot = "InstanceMarketOptions" in words
        self.asked.append("spot" if spot else "on demand")
        if spot or not self.spot_alone:
            raise ClientError({"Error": {"Code": self.reason, "Message": "there is none"}}, "RunInstances")
        return self.ec2.create_instances(**words)


@pytest.fixture
def provider(bootstrapped: Config, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = providers._get_node_provider(bootstrapped["provider"], bootstrapped["cluster_name"])
    monkeypatch.setattr(made, "ec2_fail_fast", made.ec2_fail_fast)  # tests replace it
    return made


@pytest.mark.parametrize("reason", sorted(NO_SPOT))
@pytest.mark.parametrize("name", ["gpu-spot", "cpu-spot"])
def test_a_spot_node_that_is_refused_everywhere_comes_on_demand_and_is_counted_as_its_type(
    provider: Any, bootstrapped: Config, name: str, reason: str
) -> None:
    provider.ec2_fail_fast = ec2 = _Refusing(provider.ec2_fail_fast, reason)
    node = _types(bootstrapped)[name]["node_config"]
    tags = {TAG_RAY_NODE_KIND: NODE_KIND_WORKER, TAG_RAY_USER_NODE_TYPE: name}
    made = provider.create_node(node, tags, 1)
    assert ec2.asked[-1] == "on demand"
    assert set(ec2.asked[:-1]) == {"spot"}
    assert len(ec2.asked) > len(node["SubnetIds"]), "each subnet was asked for spot first"
    (worker,) = boto3.resource("ec2").instances.filter(InstanceIds=list(made))
    _assert_closed(worker, "celebvision-worker")
    assert worker.instance_lifecycle != "spot"
    assert worker.instance_type == node["InstanceType"]
    assert provider.non_terminated_nodes(tags) == [worker.id], "Ray finds it by its type"
    provider.terminate_nodes([worker.id])
    assert not provider.non_terminated_nodes(tags)


@pytest.mark.parametrize("reason", ["UnauthorizedOperation", "InvalidParameterValue", "VcpuLimitExceeded"])
def test_what_is_refused_for_another_reason_is_an_error(provider: Any, bootstrapped: Config, reason: str) -> None:
    provider.ec2_fail_fast = ec2 = _Refusing(provider.ec2_fail_fast, reason)
    with pytest.raises(NodeLaunchException) as refused:
        provider.create_node(_types(bootstrapped)["gpu-spot"]["node_config"], {}, 1)
    assert refused.value.category == reason
    assert set(ec2.asked) == {"spot"}


def test_where_there_is_none_on_demand_either_ray_is_told(provider: Any, bootstrapped: Config) -> None:
    provider.ec2_fail_fast = ec2 = _Refusing(provider.ec2_fail_fast, "InsufficientInstanceCapacity", spot_alone=False)
    for name in ("gpu-spot", "gpu-on-demand"):
        with pytest.raises(NodeLaunchException):
            provider.create_node(_types(bootstrapped)[name]["node_config"], {}, 1)
    assert ec2.asked.count("on demand") == 2 * ec2.asked.count("spot")


def _instances(kind: str) -> list[Any]:
    return list(
        boto3.resource("ec2").instances.filter(Filters=[{"Name": f"tag:{TAG_RAY_NODE_KIND}", "Values": [kind]}])
    )


# Which type Ray asks for


def _asked(filled: Config, gpus: int, monitor: CloudResourceMonitor) -> dict[str, int]:
    """How many nodes of each type Ray's autoscaler would launch for so many requests of one GPU."""
    wanted = AutoscalingConfig(filled, skip_content_hash=True)
    reply = ResourceDemandScheduler(SimpleNamespace(emit_event=print)).schedule(
        SchedulingRequest(
            node_type_configs=wanted.get_node_type_configs(),
            max_num_nodes=wanted.get_max_num_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count(
                [ResourceRequestUtil.make({"GPU": 1}) for _ in range(gpus)]
            ),
            disable_launch_config_check=wanted.disable_launch_config_check(),
            cloud_resource_availabilities=monitor.get_resource_availabilities(),
            recoverable_resource_availabilities=monitor.get_recoverable_resource_availabilities(),
        )
    )
    return {request.instance_type: request.count for request in reply.to_launch}


def test_spot_comes_first_and_on_demand_when_spot_is_at_its_maximum(filled: Config) -> None:
    assert _asked(filled, 2, CloudResourceMonitor()) == {"gpu-spot": 2}
    assert _asked(filled, 18, CloudResourceMonitor()) == {"gpu-spot": 16, "gpu-on-demand": 2}


def _told(status: int) -> CloudResourceMonitor:
    monitor = CloudResourceMonitor()
    monitor.notify([InstanceUpdateEvent(new_instance_status=status, instance_type="gpu-spot")])
    return monitor


def test_on_demand_comes_when_a_spot_node_never_came_up(filled: Config) -> None:
    assert _asked(filled, 1, _told(Instance.ALLOCATION_TIMEOUT)) == {"gpu-on-demand": 1}


def test_a_refusal_of_spot_is_not_counted_by_ray(filled: Config) -> None:
    # Should this fail with a newer Ray: our provider is needed no more.
    assert _asked(filled, 1, _told(Instance.ALLOCATION_FAILED)) == {"gpu-spot": 1}


def test_without_room_for_spot_nodes_on_demand_is_asked_for(filled: Config) -> None:
    without = copy.deepcopy(filled)
    _types(without)["gpu-spot"]["max_workers"] = 0
    assert _asked(without, 1, CloudResourceMonitor()) == {"gpu-on-demand": 1}
