"""A cluster on one machine: what it is told of its nodes, and that it ends exactly what it started."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celebvision import capacity, cli
from celebvision.config import ClusterSettings
from celebvision.job import JobFailed
from celebvision.local_cluster.autoscaling import autoscaling
from celebvision.local_cluster.marked import MARK, kill, processes

SLEEP = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)"]


def sleeper(mark: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(SLEEP, env=os.environ | {MARK: mark}, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    return process


def test_only_processes_of_the_mark_are_found_and_killed() -> None:
    with sleeper("ours") as ours, sleeper("ours-too") as other:
        assert processes("ours") == [ours.pid]
        assert not kill(other.pid, "ours")  # as if its number had been given to another
        assert kill(ours.pid, "ours")
        ours.wait()
        assert processes("ours") == []
        assert not kill(ours.pid, "ours")
        assert other.poll() is None
        other.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def words(tmp_path: Path) -> Iterator[list[str]]:
    yield ["--folder", str(tmp_path / "cluster"), "--port", str(free_port()), "--dashboard_port", str(free_port())]
    cli.main(["cluster", "down", "--folder", str(tmp_path / "cluster")])


def test_a_cluster_is_there_once_until_it_is_ended(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cluster"
    assert cli.main(["cluster", "status", *words]) == 1
    assert "there is no cluster; `celebvision cluster up` starts one" in capfd.readouterr().err
    assert cli.main(["cluster", "up", *words]) == 0
    exports = capfd.readouterr().out
    assert f"export RAY_ADDRESS=127.0.0.1:{words[3]}" in exports
    assert f"export RAY_AUTH_TOKEN_PATH={folder}/token" in exports
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
    assert cli.main(["cluster", "up", *words]) == 1
    assert "there is a cluster already" in capfd.readouterr().err
    assert cli.main(["cluster", "status", *words]) == 0
    assert "0 of 3" in capfd.readouterr().err
    assert cli.main(["cluster", "down", *words]) == 0
    assert cli.main(["cluster", "down", *words]) == 1


def test_a_taken_port_is_refused_before_anything_is_started(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["cluster", "up", *words, "--dashboard_port", str(port)]) == 1
    assert f"dashboard_port: {port} cannot be had" in capfd.readouterr().err
    assert not Path(words[1]).exists()


def test_a_cluster_can_grow_to_its_workers_and_not_to_more_than_all_types_together() -> None:
    config = autoscaling(ClusterSettings(action="up", max_nodes=3, node_cpus=2, node_gpus=1))
    told = capacity.cluster_config(config)
    assert [(group.name, group.max_count, dict(group.resources)["GPU"]) for group in told.node_group_configs] == [
        ("worker", 3, 1)
    ]
    assert told.max_resources["CPU"] == 6
    config["available_node_types"]["large"] = {"resources": {"CPU": 16, "GPU": 4}, "max_workers": 1}
    told = capacity.cluster_config(config)
    assert (told.max_resources["CPU"], told.max_resources["GPU"]) == (16 + 2 + 2, 4 + 1 + 1)


def test_where_no_autoscaler_has_a_file_the_heads_environment_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity.state, "get_max_resources_from_cluster_config", lambda: None)
    monkeypatch.setattr(capacity.ray, "cluster_resources", lambda: {"CPU": 14.0, "memory": 9.0})
    monkeypatch.delenv("CELEBVISION_CAPACITY", raising=False)
    assert capacity.most() == {"CPU": 14, "memory": 9}
    monkeypatch.setenv("CELEBVISION_CAPACITY", "CPU=124 GPU=4")
    assert capacity.most() == {"CPU": 124, "GPU": 4, "memory": 9}
    assert "CELEBVISION_CAPACITY" in capacity.told()
    for words in ("CPU: 124", "many", "CPU=-1", "CPU=1GPU=2"):
        monkeypatch.setenv("CELEBVISION_CAPACITY", words)
        with pytest.raises(JobFailed, match=r"such as CPU=124 GPU=4"):
            capacity.most()
