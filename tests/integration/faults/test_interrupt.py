"""Ctrl-C, as `kill` does, ends a job soon, says how to go on, and leaves nothing running."""

import json
import os
import random
import signal
from pathlib import Path

import pandas as pd
from trainings import drawn_shards, history, wait_for_checkpoint

from celebvision import registry
from faults.command import BIN, kill, wait_for_a_moment_in_the_middle, wait_until
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


def test_an_interrupted_training_says_so_leaves_no_process_and_is_continued_as_a_killed_one_is(
    start: Start, tmp_path: Path
) -> None:
    home = tmp_path / "models"
    words = [str(BIN / "celebvision"), "train", "--registry", str(home), "--workers", "1", "--batch_size", "16"]
    words += ["--data", drawn_shards(tmp_path, 96), "--arguments", '{"width": 8}', "--patience", "99", "--json"]
    words += ["--phases", '[{"epochs": 12, "learning_rate": 0.003}]']
    kept = []
    for epoch, how in ((1, signal.SIGKILL), (4, signal.SIGINT), (7, signal.SIGTERM)):
        with start(words) as command:
            run = wait_for_checkpoint(str(home / "_training"), epoch)
            if how is signal.SIGKILL:
                kill([command.process.pid])
                assert command.status() != 0
            else:
                os.killpg(command.process.pid, how)
                assert command.status() == 130, command.stderr
                assert "interrupted; the same command continues" in command.stderr
                wait_until(lambda command=command: not command.processes(), f"{how.name}: processes are left", ENDED_S)
        assert epoch < len(history(run)) < 12
        kept.append(history(run).head(epoch + 1))  # what else there is may have no checkpoint
    with start(words) as again:
        assert again.status() == 0, again.stderr
    assert json.loads(again.stdout)["run"] == run
    rows = history(run)
    assert rows["epoch"].tolist() == list(range(12))
    for before in kept:
        pd.testing.assert_frame_equal(rows.head(len(before)), before)
    assert len(registry.versions(str(home), "cnn")) == 1
