"""What the tests of `classify` and `stylize` share: untrained models, and looks at what a run left."""

import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import ray
import torch
from moto.s3.exceptions import S3ClientError

from celebvision import cli, job
from celebvision.models import complete_arguments, create
from celebvision.models.preprocessing import Preprocessing
from celebvision.registry import ModelVersion, publish
from celebvision.storage import Store, open_store, read_table

MARK = "CELEBVISION_TEST_MARK"
SMALL = {"outputs": 1, "width": 8, "depths": [1]}
SMALL_STYLE = {"size": 64, "width": 8, "blocks": 1}


def published(registry: str, seed: int) -> ModelVersion:
    """A version of `cnn` that was never trained: its answers are no good, but they are always the same."""
    return _publish(registry, "cnn", "cnn", SMALL, {"Male": ("female", "male")}, seed)


def published_style(registry: str, seed: int, **arguments: Any) -> ModelVersion:
    """A version of `sketch` that was never trained: what it draws is no picture, but it is always the same."""
    return _publish(registry, "sketch", "cyclegan", SMALL_STYLE | arguments, {}, seed)


def _publish(
    registry: str, name: str, architecture: str, arguments: dict[str, Any], classes: dict[str, Any], seed: int
) -> ModelVersion:
    torch.manual_seed(seed)
    network = create(architecture, **arguments)
    preprocessing = cast(Preprocessing, network.preprocessing)
    return publish(
        registry,
        name,
        state=network.state_dict(),
        architecture=architecture,
        arguments=complete_arguments(architecture, **arguments),
        preprocessing=preprocessing.to_json(),
        targets=list(classes),
        classes=classes,
        metrics={},
        data_digest="",
        code_version="",
        seed=seed,
        card="",
        samples={},
    )


@dataclass
class House:
    """A registry with two versions, the first in production."""

    registry: str
    first: ModelVersion
    second: ModelVersion


@dataclass
class Ran:
    """What a command over a bucket did, and where."""

    bucket: str
    output: str
    good: list[str]
    version: ModelVersion
    words: list[str]
    status: int
    stdout: str
    stderr: str


def fill(uri: str, pictures: dict[str, bytes]) -> None:
    for key, data in pictures.items():
        open_store(uri).put(key, data)


def rows(output: str, kind: str, run_id: str = "") -> list[dict[str, Any]]:
    store = open_store(output)
    return [row for stat in store.list(f"{kind}/run={run_id}") for row in read_table(store, stat.key).to_pylist()]


def record(output: str) -> dict[str, Any]:
    """The `run.json` of the latest run."""
    store = open_store(output)
    latest: dict[str, Any] = json.loads(store.get(f"runs/{store.folders('runs')[-1]}/run.json"))
    return latest


def everything(store: Store) -> dict[str, str]:
    return {stat.key: stat.etag for stat in store.list()}


def command(words: list[str]) -> tuple[int, str, str]:
    """The command on the cluster that is there: exit status, stdout and stderr."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(ray, "shutdown", lambda: None)
        patch.setattr(job, "LINE_INTERVAL_S", 0)
        status = cli.main(words)
    return status, stdout.getvalue(), stderr.getvalue()


class Refused(S3ClientError):
    code = 403

    def __init__(self) -> None:
        super().__init__("AccessDenied", "Access Denied")


def processes_with(mark: str) -> list[int]:
    """Processes whose environment holds `mark`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # ended meanwhile
    return found


def wait_until(happened: Any, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def kill_once(happened: Callable[[], bool], words: list[str], mark: str) -> None:
    """Start the command, and kill its driver once that has happened, and then all that came from it."""
    killed = subprocess.Popen(words, env=os.environ | {MARK: mark}, stderr=subprocess.DEVNULL)
    try:
        wait_until(happened, timeout_s=200)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        for process in processes_with(mark):  # without their driver most of Ray's end by themselves, but not all
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    wait_until(lambda: not processes_with(mark))
