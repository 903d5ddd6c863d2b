"""The token that the head makes and workers fetch: the same for all, and for nobody else."""

from __future__ import annotations

import stat
from pathlib import Path

import boto3
import pytest

from cluster.aws.share_token import PARAMETER, main


@pytest.fixture
def node(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a node keeps its token; the parameter store is empty."""
    ssm = boto3.client("ssm")
    ssm.delete_parameters(Names=[PARAMETER])
    path = tmp_path / ".ray" / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    return path


def test_the_head_makes_a_token_and_a_worker_has_the_same(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--make"]) == 0
    made = node.read_text()
    assert len(made) == 64
    assert stat.S_IMODE(node.stat().st_mode) == 0o600
    stored = boto3.client("ssm").get_parameter(Name=PARAMETER)["Parameter"]
    assert stored["Type"] == "SecureString"
    node.unlink()
    assert main([]) == 0
    assert node.read_text() == made
    assert stat.S_IMODE(node.stat().st_mode) == 0o600
    assert made not in "".join(capsys.readouterr())


def test_a_head_that_comes_again_keeps_the_token(node: Path) -> None:
    boto3.client("ssm").put_parameter(Name=PARAMETER, Value="0" * 64, Type="SecureString")
    assert main(["--make"]) == 0
    assert node.read_text() == "0" * 64
    assert [path.name for path in node.parent.iterdir()] == ["auth_token"]


def test_a_worker_before_the_head_is_told_so(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert "start the head first" in capsys.readouterr().err
    assert not node.exists()


def test_words_that_are_not_understood_make_no_token(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--mkae"]) == 1
    assert "'--mkae' is not understood" in capsys.readouterr().err
    assert not node.exists()
