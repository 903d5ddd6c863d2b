"""Ctrl-C ends a job soon, says how to go on, and leaves nothing running."""

import json
import os
import random
import signal
from pathlib import Path

from faults.command import wait_for_a_moment_in_the_middle, wait_until
from faults.conftest import Exact, House, Start

ENDED_S = 30


def test_an_interrupted_command_says_so_leaves_no_process_and_is_continued(
    house: House, start: Start, exactly_once: Exact, draw: random.Random, tmp_path: Path
) -> None:
    output = tmp_path / "labels"
    with start(house.words(output)) as command:
        wait_for_a_moment_in_the_middle(command, output, house.shards, draw)
        os.killpg(command.process.pid, signal.SIGINT)  # as a terminal does
        assert command.status() == 130, command.stderr
        assert "interrupted; the same command continues" in command.stderr
        (record,) = output.glob("runs/*/run.json")
        assert json.loads(record.read_text())["state"] == "interrupted"
        wait_until(lambda: not command.processes(), f"still there: {command.processes()}", ENDED_S)
    with start(house.words(output)) as again:
        assert again.status() == 0, again.stderr
    exactly_once("Ctrl-C", output)
