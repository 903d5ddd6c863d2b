"""A spot instance is interrupted: what runs on it moves on, and no key is lost or doubled or counted as a failure."""

import random
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from interrupting import MetadataService
from trainings import checkpointed_epochs, drawn_shards, history

from faults.cluster import Cluster, cluster
from faults.command import END_S, Marked, kill, wait_for_a_moment_in_the_middle, wait_until
from faults.conftest import Exact, House, Start

ACTOR = "WorkShards"
SPOT = "127.0.0.2"  # nodes are told apart by their addresses, as on EC2
LEFT_S = 60  # half of what EC2 grants
# The command, which looks more often for new nodes; there are more epochs than it will come to, of one learning rate.
TRAIN = """
import sys
from celebvision import cli
from celebvision.training import run
run.RESIZE_S = 5.0
phases = '[{"epochs": 999, "learning_rate": 0.003}]'
sys.exit(cli.main(["train", "--phases", phases, "--schedule", "cosine", "--warmup", "0.001", *sys.argv[1:]]))
"""


@dataclass(frozen=True)
class Interrupted:
    """A job whose spot node has just been drained; its workers stand still."""

    command: Marked
    spot: Marked
    on_spot: list[int]
    elsewhere: list[int]


@contextmanager
def interrupted(house: House, start: Start, draw: random.Random, output: Path, folder: Path) -> Iterator[Interrupted]:
    """Interrupt the one spot instance of a cluster in the middle of a job."""
    with cluster(folder) as made, MetadataService(SPOT) as metadata:
        made.add(1)
        spot = made.add(1, f"--node-ip-address={SPOT}")
        with watcher(made, metadata, folder) as watching, start(house.words(output), made.environment) as command:
            wait_for_a_moment_in_the_middle(command, output, house.shards, draw)
            here, there = spot.processes(ACTOR), made.nodes[0].processes(ACTOR)
            assert here, "no network was on the node: its loss would show nothing"
            kill([*here, *there], signal.SIGSTOP)  # else the job may be over before the notice is heard
            metadata.interrupt()
            wait_until(watching.ended, "the notice was not heard", LEFT_S)
            assert watching.status() == 0, watching.stderr
            yield Interrupted(command, spot, here, there)


def watcher(made: Cluster, metadata: MetadataService, folder: Path) -> Marked:
    """What runs beside Ray on a spot instance."""
    words = [sys.executable, "-m", "celebvision.preemption"]
    return Marked(words, folder / "watcher", made.environment | metadata.environment)


def test_an_interrupted_node_is_left_long_before_it_ends(
    house: House, start: Start, exactly_once: Exact, draw: random.Random, tmp_path: Path
) -> None:
    output = tmp_path / "labels"
    with interrupted(house, start, draw, output, tmp_path) as job:
        kill(job.on_spot, signal.SIGCONT)
        wait_until(lambda: not job.spot.processes("raylet/raylet"), "the node is not left", LEFT_S)
        assert not job.command.ended(), f"it was over before the node was left: {job.command.stderr}"
        kill(job.elsewhere, signal.SIGCONT)
        assert job.command.status() == 0, job.command.stderr
    exactly_once("interruption of a spot node", output)


def test_a_shard_that_takes_longer_than_the_notice_is_done_elsewhere(
    house: House, start: Start, exactly_once: Exact, draw: random.Random, tmp_path: Path
) -> None:
    output = tmp_path / "labels"
    with interrupted(house, start, draw, output, tmp_path) as job:
        kill(job.spot.processes())  # the deadline; its workers have not moved since the notice
        kill(job.elsewhere, signal.SIGCONT)
        assert job.command.status() == 0, job.command.stderr
    exactly_once("end of a spot node at work", output)


def test_a_training_goes_on_with_fewer_workers_and_grows_again(ray_cluster: None, tmp_path: Path) -> None:
    shards, home = drawn_shards(tmp_path / "celeba", 320), tmp_path / "models"
    words = [sys.executable, "-c", TRAIN, "--data", shards, "--registry", str(home), "--arguments", '{"width": 8}']
    words += ["--batch_size", "32", "--workers", "2", "--min_workers", "1", "--max_worker_failures", "0"]

    def run() -> str:
        return str(next(home.glob("_training/cnn-*"), home))

    def worked_on_by(workers: int, after: int) -> bool:
        assert not training.ended(), training.stderr
        return workers in history(run())["workers"].tolist()[after:]

    with cluster(tmp_path) as made, MetadataService(SPOT) as metadata:
        made.add(2)
        spot = made.add(2, f"--node-ip-address={SPOT}")
        with (
            watcher(made, metadata, tmp_path) as watching,
            Marked(words, tmp_path / "train", made.environment) as training,
        ):
            wait_until(lambda: 1 in checkpointed_epochs(run()) or training.ended(), "no epoch ended", END_S)
            assert not training.ended(), training.stderr
            metadata.interrupt()
            wait_until(lambda: not spot.processes("raylet/raylet"), "the node is not left", LEFT_S)
            assert watching.status() == 0, watching.stderr
            wait_until(lambda: worked_on_by(1, after=2), "it did not go on with one worker", END_S, every_s=0.5)
            made.add(2, "--node-ip-address=127.0.0.3")
            fewer = len(history(run()))
            wait_until(lambda: worked_on_by(2, after=fewer), "it did not grow again", END_S, every_s=0.5)
            said = [line for line in training.stderr.splitlines() if "workers" in line]
    assert said == ["warning: goes on with 1 of 2 workers", "warning: goes on with 2 of 2 workers"]
    rows = history(run())
    assert rows["epoch"].tolist() == list(range(len(rows))), "each epoch once"
    assert [workers for workers, _ in groupby(rows["workers"])] == [2, 1, 2]
    assert rows["loss"].iloc[-1] < 0.9 * rows["loss"].iloc[0], "what was learnt before is forgotten"
