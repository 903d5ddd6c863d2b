"""`submit` on a real cluster that begins with no worker, over real S3."""

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import free_ports
from faults.command import BIN, CLEARED, END_S, Marked, kill, wait_until
from labelling import fill, published, record, rows

from celebvision.celeba.drawn import messy_bucket
from celebvision.local_cluster.marked import named, processes
from celebvision.registry import promote
from celebvision.storage import open_store

NODES = 3
PICTURES = dict(messy_bucket(300, seed=7))


class Cluster:
    """What `celebvision cluster up` started, and `submit` on it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.address = folder / "cluster", f"http://127.0.0.1:{port + 1}"
        self.log, self.token = folder / "command", {"RAY_AUTH_TOKEN_PATH": str(self.folder / "token")}
        size = ["--max_nodes", str(NODES), "--node_cpus", "1", "--idle_s", "5"]
        done = command(
            "cluster", "up", "--folder", str(self.folder), *size, f"--port={port}", f"--dashboard_port={port + 1}"
        )
        assert done.returncode == 0, done.stderr

    def down(self) -> None:
        assert command("cluster", "down", "--folder", str(self.folder)).returncode == 0

    @property
    def mark(self) -> str:
        return str(json.loads((self.folder / "cluster.json").read_text())["mark"])

    def workers(self) -> int:
        return len(named("raylet", self.mark)) - 1

    def worker(self) -> int:
        """The process that is one of the workers."""
        raylets = named("raylet", self.mark)
        environments = {raylet: Path(f"/proc/{raylet}/environ").read_bytes() for raylet in raylets}
        return next(raylet for raylet in raylets if b"RAY_NODE_TYPE_NAME=worker" in environments[raylet])

    def at_work(self) -> list[int]:
        """The processes that do the shards of jobs."""
        found = []
        for process in processes(self.mark):
            with suppress(OSError):  # ended meanwhile
                if b"WorkShards" in Path(f"/proc/{process}/cmdline").read_bytes():
                    found.append(process)
        return found

    def words(self, *words: str) -> list[str]:
        return ["submit", "--address", self.address, *words]

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        return command(*self.words(*words), **self.token)


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in CLEARED}
    return subprocess.run(
        [str(BIN / "celebvision"), *words], env=inherited | environment, capture_output=True, text=True, timeout=END_S
    )


@pytest.fixture(scope="module")
def cluster(ceph: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"), free_ports(2))
    try:
        yield made
    finally:
        made.down()


@pytest.fixture
def job(ceph_bucket: str) -> list[str]:
    """The words of a `classify` of `PICTURES`, in small shards with a heavy forward pass each: it takes a while."""
    fill(f"{ceph_bucket}/photos", PICTURES)
    models = f"{ceph_bucket}/models"
    promote(models, "cnn", published(models, seed=1).version)
    words = ["--input", f"{ceph_bucket}/photos", "--output", f"{ceph_bucket}/labels", "--registry", models]
    return ["--verb", "classify", "--", *words, "--model", "cnn", "--shard_keys", "5", "--batch_size", "512"]


def keys_of(output: str) -> Counter[str]:
    """How often each key is answered, as a result or a failure."""
    return Counter(row["key"].removeprefix("photos/") for kind in ("results", "failures") for row in rows(output, kind))


def test_a_job_makes_workers_come_and_go_loses_one_and_runs_once_however_often_it_is_submitted(
    cluster: Cluster, ceph_bucket: str, job: list[str]
) -> None:
    assert cluster.workers() == 0
    most, labels = 0, open_store(f"{ceph_bucket}/labels")
    with Marked([str(BIN / "celebvision"), *cluster.words(*job)], cluster.log, cluster.token) as first:
        wait_until(lambda: " runs\n" in first.stderr or first.ended(), "it does not begin", END_S)
        second = cluster.submit(*job)
        assert not first.ended(), first.stderr
        assert second.returncode == 1
        assert "runs already; follow it by" in second.stderr
        while not first.ended() and most < NODES:
            most = max(most, cluster.workers())
        wait_until(lambda: any("/parts/" in stat.key for stat in labels.list("runs/")), "no part came", END_S, 0.2)
        assert not first.ended(), f"it was over before a node was lost: {first.stderr}"
        kill([cluster.worker()])
        wait_until(first.ended, "it does not end", END_S, 0.2)
        assert first.status() == 0, first.stderr
    assert most == NODES
    assert first.stderr.count("Running entrypoint") == 1
    assert f"{len(PICTURES)} of {len(PICTURES)} images" in first.stderr
    assert keys_of(f"{ceph_bucket}/labels") == Counter(PICTURES.keys())
    wait_until(lambda: cluster.workers() == 0, "workers without work stay", END_S, 0.5)


def test_a_stopped_job_says_so_and_goes_on_when_it_is_submitted_again(
    cluster: Cluster, ceph_bucket: str, job: list[str]
) -> None:
    labels = open_store(f"{ceph_bucket}/labels")
    sent = cluster.submit("--no-follow", "--json", *job)
    assert sent.returncode == 0, sent.stderr
    job_id = json.loads(sent.stdout)["id"]
    wait_until(lambda: any("/parts/" in stat.key for stat in labels.list("runs/")), "no part came", END_S, 0.2)
    still = cluster.at_work()
    assert still, "nobody works on it"
    kill(still, signal.SIGSTOP)  # else the job may be over before the word to stop has come to it
    stopped = cluster.submit("--stop", job_id, "--json")
    kill(still, signal.SIGCONT)
    assert json.loads(stopped.stdout)["status"] == "STOPPED", stopped.stderr
    assert record(labels.uri)["state"] == "interrupted"
    assert cluster.submit("--logs", job_id).returncode == 130

    again = cluster.submit("--json", *job)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["id"] == f"{job_id}-2"
    assert len(labels.folders("runs")) == 1
    assert keys_of(labels.uri) == Counter(PICTURES.keys())


def test_who_has_no_token_of_the_cluster_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    without = command(*cluster.words(), RAY_AUTH_MODE="disabled", HOME=str(tmp_path))
    assert without.returncode == 1
    assert "asks for a token, and none was sent" in without.stderr
    (tmp_path / "token").write_text("0" * 64)
    wrong = command(*cluster.words(), RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
    assert wrong.returncode == 1
    assert "refuses the token" in wrong.stderr


def test_what_the_cluster_cannot_run_is_refused_before_any_work(
    cluster: Cluster, ceph_bucket: str, job: list[str]
) -> None:
    missing = f"{ceph_bucket}-missing"
    refused = cluster.submit("--gpus", "2", *job, "--input", f"{missing}/photos")
    assert refused.returncode == 1
    assert f"input: {missing}/photos" in refused.stderr
    assert "gpus: 2 are asked for, and no more than 0 can be had" in refused.stderr
    assert list(open_store(f"{ceph_bucket}/labels").list()) == []
    assert "probe" not in cluster.submit().stderr
