"""What Terraform makes of cluster/aws/terraform, looked at with boto3; moto stands for AWS."""

from __future__ import annotations

import fnmatch
import json
import logging
import os
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from celebvision.config import WatchedSettings
from celebvision.logs import COUNTED, COUNTED_BY
from celebvision.metrics.cloudwatch import JUDGED, KEY
from celebvision.metrics.names import JOB_LABELS
from cluster.check import faults

AWS = Path(__file__).parents[2] / "cluster" / "aws"
ACCOUNT = "123456789012"  # moto's
# moto has neither an identity to check nor a bucket per host name.
OVERRIDE = """
provider "aws" {
  access_key                  = "testaccess"
  secret_key                  = "testsecret"
  s3_use_path_style           = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = false
  skip_credentials_validation = true
}
"""


def _mirror() -> Path | None:
    """The folder that holds the provider, so that nothing is downloaded."""
    if named := os.environ.get("CELEBVISION_TERRAFORM_MIRROR"):
        return Path(named)
    return next(Path("/").glob("*/tf-plugins"), None)


@dataclass(frozen=True)
class Terraform:
    """Terraform in a copy of our folder."""

    folder: Path
    variables: dict[str, Any]

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            ["terraform", *words], cwd=self.folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"terraform {' '.join(words)}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def set(self, **changed: object) -> None:
        (self.folder / "terraform.tfvars.json").write_text(json.dumps(self.variables | changed))

    def output(self) -> dict[str, str]:
        return {name: said["value"] for name, said in json.loads(self("output", "-json")).items()}


@pytest.fixture(scope="module")
def aws() -> Iterator[None]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else one line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "TF_CLI_CONFIG_FILE"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testaccess")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testsecret")
        patch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        patch.setenv("NO_PROXY", host)
        yield
    server.stop()


@pytest.fixture(scope="module")
def terraform(aws: None, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """Ready to apply, in a region of Europe and a network that is there."""
    if not shutil.which("terraform"):
        pytest.skip("terraform is not installed")
    if (mirror := _mirror()) is None:
        pytest.skip("CELEBVISION_TERRAFORM_MIRROR is not set: it names the folder that holds the provider for AWS")
    folder = tmp_path_factory.mktemp("cluster") / "aws"
    shutil.copytree(AWS, folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars"))
    ec2 = boto3.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for n, zone in enumerate(("eu-west-1a", "eu-west-1b"))
    ]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    variables = {
        "region": "eu-west-1",
        "photos_bucket": "our-photos",
        "data_bucket": "our-data",
        "vpc_id": vpc,
        "subnet_ids": subnets,
        "route_table_ids": [table],
        "ami": ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"],
        "image_tag": "0.1.0-0123456789ab",
        "alarm_email": "somebody@example.org",
        "budget_usd": 500,
    }
    ready = Terraform(folder / "terraform", variables)
    (ready.folder / "moto_override.tf").write_text(OVERRIDE)
    ready.set()
    ready("init", "-input=false", f"-plugin-dir={mirror}")
    return ready


@pytest.fixture(scope="module")
def made(terraform: Terraform) -> Iterator[dict[str, str]]:
    """The outputs of what was applied; in the end it is destroyed, and must all be gone."""
    before = names()  # moto has one account for all that runs in this process
    (terraform.folder / "budget.tf").unlink()  # moto cannot say who subscribes to a budget: it is planned, not applied
    terraform("apply", "-auto-approve", "-input=false")
    yield terraform.output()
    terraform("destroy", "-auto-approve", "-input=false")
    assert names() == before


def names() -> set[str]:
    """Of all buckets and roles that there are."""
    buckets, roles = boto3.client("s3").list_buckets()["Buckets"], boto3.client("iam").list_roles()["Roles"]
    return {bucket["Name"] for bucket in buckets} | {role["RoleName"] for role in roles}


def test_terraform_finds_it_valid(terraform: Terraform) -> None:
    assert json.loads(terraform("validate", "-json"))["diagnostics"] == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"image_tag": "latest"}, "image_tag: latest"),
        ({"outputs": ["labels/*"]}, "without wildcards"),
        ({"data_bucket": "our-photos"}, "data_bucket: our-photos"),
        ({"alarm_email": "nobody"}, "alarm_email: nobody"),
        ({"ami": "ubuntu"}, "ami: ubuntu"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_impossible_variable_is_refused_with_its_value(
    terraform: Terraform, changed: dict[str, object], words: str
) -> None:
    terraform.set(**changed)
    with pytest.raises(AssertionError) as refused:
        terraform("plan", "-input=false", "-no-color", "-refresh=false")
    terraform.set()
    assert words in " ".join(str(refused.value).split())


def test_money_is_told_when_it_is_spent_and_when_it_is_foreseen(terraform: Terraform) -> None:
    terraform("plan", "-input=false", "-target=aws_budgets_budget.month", "-out=budget.plan")
    (budget,) = json.loads(terraform("show", "-json", "budget.plan"))["planned_values"]["root_module"]["resources"]
    assert budget["values"]["limit_amount"] == "500"
    told = {notice["notification_type"]: notice for notice in budget["values"]["notification"]}
    assert told.keys() == {"ACTUAL", "FORECASTED"}
    assert all(notice["subscriber_email_addresses"] == ["somebody@example.org"] for notice in told.values())


@pytest.mark.parametrize("bucket", ["our-photos", "our-data"])
def test_buckets_are_closed_encrypted_and_versioned(made: dict[str, str], bucket: str) -> None:
    s3 = boto3.client("s3")
    blocked = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert len(blocked) == 4
    assert all(blocked.values())
    (rule,) = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    (denial,) = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    assert denial["Effect"] == "Deny"
    assert denial["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert set(denial["Resource"]) == {f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"}


def _rules(bucket: str) -> dict[str, dict[str, Any]]:
    rules = boto3.client("s3").get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    return {rule["ID"]: rule for rule in rules if rule["Status"] == "Enabled"}


def test_leftovers_expire_and_photos_and_models_do_not(made: dict[str, str]) -> None:
    photos, data = _rules("our-photos"), _rules("our-data")
    for rules in (photos, data):
        assert rules["old-versions"]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30
        assert rules["old-versions"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 3
        assert "Days" not in rules["old-versions"]["Expiration"]
    assert data["runs-of-labels"]["Filter"]["Prefix"] == "labels/runs/"
    expiring = [rule["Filter"]["Prefix"] for rule in data.values() if "Days" in rule.get("Expiration", {})]
    assert expiring
    assert all(prefix.endswith("/runs/") for prefix in expiring)
    assert list(photos) == ["old-versions"]


def _statements(role: str) -> list[dict[str, Any]]:
    iam = boto3.client("iam")
    assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
    found: list[dict[str, Any]] = []
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        text = urllib.parse.unquote(document) if isinstance(document, str) else json.dumps(document)
        found += json.loads(text)["Statement"]
    return found


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _may(role: str, action: str, resource: str) -> bool:
    """Whether a statement of the role allows it, its conditions aside."""
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatch.fnmatchcase(action, pattern) for pattern in _list(statement["Action"]))
        and any(fnmatch.fnmatchcase(resource, pattern) for pattern in _list(statement["Resource"]))
        for statement in _statements(role)
    )


@pytest.mark.parametrize("role", ["celebvision-head", "celebvision-worker"])
def test_a_node_reads_photos_and_writes_outputs_alone(made: dict[str, str], role: str) -> None:
    photo, data = "arn:aws:s3:::our-photos/a.jpg", "arn:aws:s3:::our-data"
    assert _may(role, "s3:GetObject", photo)
    assert not _may(role, "s3:PutObject", photo)
    assert not _may(role, "s3:DeleteObject", photo)
    assert _may(role, "s3:PutObject", f"{data}/labels/results/part.parquet")
    assert _may(role, "s3:GetObject", f"{data}/celeba/images.zip")
    assert not _may(role, "s3:PutObject", f"{data}/celeba/images.zip")
    assert not _may(role, "s3:GetObject", f"{data}/salaries/2026.csv")
    assert not _may(role, "s3:GetObject", "arn:aws:s3:::another-bucket/labels/a")
    assert not any(_may(role, f"s3:{action}", data) for action in ("DeleteBucket", "PutBucketPolicy", "PutObjectAcl"))


def test_only_the_head_starts_machines_and_makes_the_token(made: dict[str, str]) -> None:
    instance = f"arn:aws:ec2:eu-west-1:{ACCOUNT}:instance/i-1"
    token = f"arn:aws:ssm:eu-west-1:{ACCOUNT}:parameter/celebvision/ray-token"
    for action, resource in [
        ("ec2:RunInstances", instance),
        ("ec2:TerminateInstances", instance),
        ("ssm:PutParameter", token),
        ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/celebvision-worker"),
    ]:
        assert _may("celebvision-head", action, resource), action
        assert not _may("celebvision-worker", action, resource), action
    assert _may("celebvision-worker", "ssm:GetParameter", token)
    assert not _may("celebvision-worker", "ssm:GetParameter", token.replace("celebvision", "payroll"))


def test_the_head_tells_how_jobs_ended_and_the_topic_is_said(made: dict[str, str]) -> None:
    (topic,) = boto3.client("sns").list_topics()["Topics"]
    assert made["sns_topic"] == topic["TopicArn"]
    assert _may("celebvision-head", "sns:Publish", made["sns_topic"])
    assert not _may("celebvision-head", "sns:Publish", f"arn:aws:sns:us-east-1:{ACCOUNT}:other")
    assert not _may("celebvision-worker", "sns:Publish", made["sns_topic"])
    assert WatchedSettings(sns_topic=made["sns_topic"])


def test_the_head_ends_only_machines_of_its_cluster_and_passes_only_the_workers_role(made: dict[str, str]) -> None:
    head = {statement["Sid"]: statement for statement in _statements("celebvision-head")}
    own = {"StringEquals": {"aws:ResourceTag/ray-cluster-name": "celebvision"}}
    assert head["TagAndEndOwnMachines"]["Condition"] == own
    assert _list(head["GiveWorkersTheirRole"]["Resource"]) == [f"arn:aws:iam::{ACCOUNT}:role/celebvision-worker"]
    started = head["StartWorkers"]["Condition"]
    assert started["ArnEquals"] == {
        "ec2:InstanceProfile": f"arn:aws:iam::{ACCOUNT}:instance-profile/celebvision-worker"
    }
    assert started["StringEquals"]["ec2:MetadataHttpTokens"] == "required"


@pytest.mark.parametrize("role", ["celebvision-head", "celebvision-worker"])
def test_no_role_has_a_wildcard_for_an_action(made: dict[str, str], role: str) -> None:
    for statement in _statements(role):
        assert not [action for action in _list(statement["Action"]) if "*" in action]
        assert statement["Effect"] == "Allow"


def test_nobody_reaches_a_node_from_outside(made: dict[str, str]) -> None:
    (group,) = boto3.client("ec2").describe_security_groups(
        Filters=[{"Name": "group-name", "Values": ["celebvision-nodes"]}]
    )["SecurityGroups"]
    assert group["IpPermissions"]
    for rule in group["IpPermissions"]:
        assert rule["IpRanges"] == rule.get("Ipv6Ranges", []) == []
        assert {pair["GroupId"] for pair in rule["UserIdGroupPairs"]} == {group["GroupId"]}


def test_the_filled_yaml_keeps_every_rule_and_has_no_number_left_to_fill(made: dict[str, str]) -> None:
    text = made["cluster_yaml"]
    assert faults(yaml.safe_load(text)) == []
    assert "0" * 17 not in text
    assert "us-east-1" not in text
    filled = yaml.safe_load(text)
    assert filled["docker"]["image"].endswith("/celebvision:0.1.0-0123456789ab")
    assert filled["docker"]["image"].startswith(made["repository"])
    assert len(filled["available_node_types"]["gpu-spot"]["node_config"]["SubnetIds"]) == 2
    profiles = {p["InstanceProfileName"] for p in boto3.client("iam").list_instance_profiles()["InstanceProfiles"]}
    named = {of["node_config"]["IamInstanceProfile"]["Name"] for of in filled["available_node_types"].values()}
    assert named == profiles


def test_image_tags_are_for_good_and_scanned(made: dict[str, str]) -> None:
    (repository,) = boto3.client("ecr").describe_repositories()["repositories"]
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}


def test_logs_end_and_alarms_reach_somebody(made: dict[str, str]) -> None:
    groups = {group["logGroupName"]: group for group in boto3.client("logs").describe_log_groups()["logGroups"]}
    agent = json.loads((AWS / "cloudwatch-agent.json").read_text())
    collected = agent["logs"]["logs_collected"]["files"]["collect_list"]
    assert {file["log_group_name"] for file in collected} == groups.keys()
    assert {group["retentionInDays"] for group in groups.values()} == {30}
    (topic,) = boto3.client("sns").list_topics()["Topics"]
    (subscription,) = boto3.client("sns").list_subscriptions()["Subscriptions"]
    assert subscription["Endpoint"] == "somebody@example.org"
    for alarm in boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]:
        assert alarm["AlarmActions"] == [topic["TopicArn"]]
    parameter = boto3.client("ssm").get_parameter(Name="AmazonCloudWatch-celebvision")["Parameter"]["Value"]
    assert json.loads(parameter) == agent


def test_alarms_of_jobs_are_those_of_prometheus_on_what_jobs_send(made: dict[str, str]) -> None:
    given = yaml.safe_load((AWS.parent / "monitoring" / "rules" / "jobs.yml").read_text())
    known = {rule.get("alert") for group in given["groups"] for rule in group["rules"]}
    found = boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]
    ours = [alarm for alarm in found if "#" in alarm["AlarmDescription"]]
    alarms = {alarm["AlarmName"].removeprefix("celebvision-"): alarm for alarm in ours}
    assert alarms.keys() <= known
    assert {alarm["MetricName"] for alarm in alarms.values()} == JUDGED.keys()
    for name, alarm in alarms.items():
        assert alarm["AlarmDescription"].endswith(f"cluster/monitoring/RUNBOOK.md#{name.lower()}")
        assert (alarm["Namespace"], alarm["Statistic"], alarm["Dimensions"]) == ("CelebVision", "Maximum", [])


def test_the_dashboard_asks_for_what_jobs_send(made: dict[str, str]) -> None:
    sent = {metric.exported: tuple(metric.labels) for metric in KEY} | dict.fromkeys(JUDGED, ())
    body = json.loads(boto3.client("cloudwatch").get_dashboard(DashboardName="celebvision")["DashboardBody"])
    asked = re.findall(r'SEARCH\(\'{CelebVision,(.*?)} MetricName=\\"(\w+)\\"', json.dumps(body))
    assert len(asked) == len(body["widgets"]) - 1
    for dimensions, name in asked:
        if name == COUNTED:
            assert tuple(dimensions.split(",")) == COUNTED_BY
        else:
            assert dimensions.split(",") == [*JOB_LABELS, *sent[name]]
    places = [(widget["x"], widget["y"]) for widget in body["widgets"]]
    assert len(places) == len(set(places))
    (alarms,) = [widget["properties"]["alarms"] for widget in body["widgets"] if widget["type"] == "alarm"]
    assert len(alarms) == 1 + len(JUDGED)


def test_the_head_has_an_alarm_once_it_is_there(made: dict[str, str], terraform: Terraform) -> None:
    tags = [{"Key": "ray-cluster-name", "Value": "celebvision"}, {"Key": "ray-node-type", "Value": "head"}]
    head = boto3.resource("ec2").create_instances(
        ImageId=terraform.variables["ami"],
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )[0]
    # The alarm alone: moto tells a group's rules otherwise than it was told them, and cannot change one.
    terraform("apply", "-auto-approve", "-input=false", "-target=aws_cloudwatch_metric_alarm.head")
    (alarm,) = boto3.client("cloudwatch").describe_alarms(AlarmNamePrefix="celebvision-head")["MetricAlarms"]
    assert alarm["Dimensions"] == [{"Name": "InstanceId", "Value": head.id}]
    assert alarm["MetricName"] == "StatusCheckFailed"
    head.terminate()
