"""Any process of a job may be killed at any moment: no key is lost or doubled, and no bytes differ."""

import json
import random
import signal
import sys
from pathlib import Path

import pytest

from faults.cluster import cluster
from faults.command import END_S, Marked, kill, parts, wait_for_a_moment_in_the_middle, wait_until
from faults.conftest import SHARD_KEYS, Exact, House, Start

ACTOR = "WorkShards"  # in the title of each process that holds a network
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # no workers: a node ends with either of its two agents


def workers(command: Marked) -> dict[str, list[int]]:
    """Ray's worker processes: those with a network, and all others."""
    actors, agents = command.processes(ACTOR), [agent for title in AGENTS for agent in command.processes(title)]
    others = [process for process in command.processes("ray::") if process not in {*actors, *agents}]
    return {"actor": actors, "other": others}


@pytest.mark.parametrize(
    ("house", "kind"),
    [("classify", "actor"), ("classify", "other"), ("stylize", "actor")],
    indirect=["house"],
    scope="session",
)
def test_a_killed_worker_loses_no_key(
    kind: str, house: House, start: Start, exactly_once: Exact, draw: random.Random, tmp_path: Path
) -> None:
    output = tmp_path / "labels"
    with start(house.words(output)) as command:
        wait_for_a_moment_in_the_middle(command, output, house.shards, draw)
        victim = draw.choice(workers(command)[kind])
        kill([victim])
        wait_until(lambda: victim not in command.processes(), "the worker lives")
        assert command.status() == 0, command.stderr
    exactly_once(f"SIGKILL of {kind} worker", output)


def stopped_while_it_writes(actors: list[int], output: Path) -> bool:
    """Stop the workers if a part is half written just now. False if they were quicker; then they go on."""

    def half_written() -> list[Path]:
        return list(output.glob("runs/*/parts/.*"))

    if half_written():
        kill(actors, signal.SIGSTOP)
        if half_written():
            return True
        kill(actors, signal.SIGCONT)
    return False


def test_workers_killed_while_they_write_leave_no_half_file(
    house: House, start: Start, exactly_once: Exact, tmp_path: Path
) -> None:
    output = tmp_path / "labels"
    with start(house.words(output)) as command:
        wait_until(lambda: parts(output) > 0 or command.ended(), "no part came", END_S)
        actors = command.processes(ACTOR)
        wait_until(lambda: stopped_while_it_writes(actors, output), "no write was met", 60, every_s=0.001)
        kill(actors)
        assert command.status() == 0, command.stderr
    exactly_once("SIGKILL in a write", output)


@pytest.mark.parametrize(
    ("house", "kind"),
    [("classify", "driver"), ("classify", "driver's own node"), ("stylize", "driver")],
    indirect=["house"],
    scope="session",
)
def test_a_killed_driver_loses_no_key_when_the_command_is_given_again(
    kind: str, house: House, start: Start, exactly_once: Exact, draw: random.Random, tmp_path: Path
) -> None:
    output = tmp_path / "labels"
    with start(house.words(output)) as killed:
        wait_for_a_moment_in_the_middle(killed, output, house.shards, draw)
        kill([killed.process.pid] if kind == "driver" else killed.processes("raylet/raylet"))
        assert killed.status() != 0  # Ray ends a driver whose node is lost
        # At once, while workers of the killed one may still be at work.
        with start(house.words(output)) as again:
            assert again.status() == 0, again.stderr
    exactly_once(f"SIGKILL of the {kind}", output)


def test_a_driver_killed_while_it_lists_and_works_loses_no_key_and_goes_on_with_both(
    house: House, start: Start, exactly_once: Exact, draw: random.Random, tmp_path: Path
) -> None:
    output, pictures = tmp_path / "labels", len(house.keys)
    behind = draw.randint(2 * SHARD_KEYS, pictures // 2)
    slowly = [sys.executable, str(Path(__file__).with_name("slow_lister.py")), "0.1", str(behind)]
    words = house.words(output)[1:]
    with start([*slowly, *words]) as killed:
        done = draw.randint(1, behind // SHARD_KEYS - 1)
        wait_until(lambda: parts(output) >= done or killed.ended(), f"no {done} parts came: {killed.stderr}", END_S)
        assert not killed.ended(), f"it was over before it was disturbed: {killed.stderr}"
        kill([killed.process.pid])
        assert killed.status() != 0
    (record,) = output.glob("runs/*/run.json")
    assert json.loads(record.read_text())["state"] == "running"
    listed = list(output.glob("runs/*/inventory/*.parquet"))
    assert parts(output) <= len(listed) < house.shards, "all was listed when it was killed: this shows nothing"
    before = {path: path.stat().st_mtime_ns for path in listed}
    with start(house.words(output)) as again:
        assert again.status() == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was listed was listed again"
    exactly_once("SIGKILL of the driver while it lists", output)


def test_a_lost_node_loses_no_key(
    house: House, start: Start, exactly_once: Exact, draw: random.Random, tmp_path: Path
) -> None:
    output = tmp_path / "labels"
    with cluster(tmp_path) as made:
        made.add(1)
        lost = made.add(1)
        with start(house.words(output), made.environment) as command:
            wait_for_a_moment_in_the_middle(command, output, house.shards, draw)
            assert lost.processes(ACTOR), "no network was on the node: its loss would show nothing"
            kill(lost.processes("raylet/raylet"))
            kill(lost.processes())  # whatever else was on the machine
            assert command.status() == 0, command.stderr
    exactly_once("SIGKILL of a node", output)
