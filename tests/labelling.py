"""What the tests of `classify` share: a registry with untrained models, and looks at what a run left."""

import io
import json
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from moto.s3.exceptions import S3ClientError

from celebvision import cli, job
from celebvision.models import complete_arguments, create
from celebvision.registry import ModelVersion, publish
from celebvision.storage import Store, open_store, read_table

SMALL = {"outputs": 1, "width": 8, "depths": [1]}


def published(registry: str, seed: int) -> ModelVersion:
    """A version of `cnn` that was never trained: its answers are no good, but they are always the same."""
    torch.manual_seed(seed)
    network = create("cnn", **SMALL)
    return publish(
        registry,
        "cnn",
        state=network.state_dict(),
        architecture="cnn",
        arguments=complete_arguments("cnn", **SMALL),
        preprocessing=network.preprocessing.to_json(),
        targets=["Male"],
        classes={"Male": ("female", "male")},
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
