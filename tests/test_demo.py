"""`celebvision demo`, as a newcomer starts it."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from celebvision.storage import open_store, read_table

COMMAND = str(Path(sys.executable).parent / "celebvision")
GONE_WITHIN_S = 30


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    size = ["--images", "200", "--photos", "12", "--epochs", "1"]
    return [COMMAND, "demo", "--folder", str(tmp_path / "demo"), *size, "--json"]


def test_the_demo_trains_labels_a_messy_bucket_and_leaves_all_of_it_in_its_folder(words: list[str]) -> None:
    ended = subprocess.run(words, capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["labelled"] + told["failures"] == 12
    assert told["failures"] == 3
    labels = open_store(f"{told['everything_lies_in']}/labels")
    keys = {
        kind: [key for stat in labels.list(f"{kind}/") for key in read_table(labels, stat.key)["key"].to_pylist()]
        for kind in ("results", "failures")
    }
    photos = {stat.key for stat in open_store(f"{told['everything_lies_in']}/photos").list()}
    assert sorted(keys["results"] + keys["failures"]) == sorted(photos)
    assert keys["failures"] == ["broken/empty.jpg", "broken/text.jpg", "broken/truncated.jpg"]
    name, _, version = told["model"].partition("@")
    assert (Path(told["everything_lies_in"]) / "models" / name / version / "model.safetensors").exists()


def test_ctrl_c_ends_the_demo_and_all_that_it_started(words: list[str]) -> None:
    mark = uuid.uuid4().hex
    environment = os.environ | {"CELEBVISION_TEST_MARK": mark}
    demo = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            process_group=0)  # fmt: skip
    assert demo.stderr is not None
    for line in demo.stderr:
        if line.startswith("Train"):
            break
    demo.send_signal(signal.SIGINT)
    said = demo.stderr.read()
    assert demo.wait(timeout=60) == 130, said
    assert "interrupted" in said
    deadline = time.monotonic() + GONE_WITHIN_S
    while left := processes_with(mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def processes_with(mark: str) -> list[str]:
    """Processes whose environment holds `mark`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(f"{folder.name} {(folder / 'comm').read_text().strip()}")
        except OSError:
            continue  # ended meanwhile
    return found
