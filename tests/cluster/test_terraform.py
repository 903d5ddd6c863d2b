"""Rules for Terraform's text that need no Terraform; tests/integration applies it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster" / "aws" / "terraform"
FILES = sorted(FOLDER.glob("*.tf"))


def _text() -> str:
    return "\n".join(path.read_text() for path in FILES)


def test_the_provider_has_one_version() -> None:
    assert re.search(r'source\s+= "hashicorp/aws"\s+version = "\d+\.\d+\.\d+"', _text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_permission_is_for_every_action_and_each_for_every_resource_says_why(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if re.search(r"actions\s*=.*\*", line):
            assert "# of a denial" in line, f"{path.name}:{number}: {line.strip()}"
        if re.search(r'resources\s*=\s*\["\*"\]', line):
            assert re.search(r'"\]\s+# \w+', line), f"{path.name}:{number}: say beside it why"


def test_every_variable_says_what_it_is_and_what_is_refused() -> None:
    for name, body in re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', _text(), re.MULTILINE | re.DOTALL):
        assert "description" in body, name
        # Ids of what is in the network are looked up, which says more than a pattern.
        assert "validation" in body or name in {"vpc_id", "route_table_ids"}, name


def test_no_state_and_no_variables_are_committed() -> None:
    ignored = (FOLDER / ".gitignore").read_text().split()
    assert {".terraform/", "*.tfstate*", "*.tfvars"} <= set(ignored)


def test_the_alarm_listens_for_what_a_job_says_that_stands_still() -> None:
    (words,) = re.findall(r'pattern\s+= "\\"(.*?)\\""', _text())
    assert words in (ROOT / "celebvision" / "batch" / "watch.py").read_text()


def test_the_agent_may_send_what_it_collects() -> None:
    agent = json.loads((FOLDER.parent / "cloudwatch-agent.json").read_text())
    assert f'values   = ["{agent["metrics"]["namespace"]}"]' in (FOLDER / "roles.tf").read_text()
    for file in agent["logs"]["logs_collected"]["files"]["collect_list"]:
        assert f'"{file["log_group_name"]}"' in (FOLDER / "watching.tf").read_text()


def test_it_is_formatted() -> None:
    if not shutil.which("terraform"):
        pytest.skip("terraform is not installed")
    done = subprocess.run(["terraform", "fmt", "-check", "-diff", FOLDER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
