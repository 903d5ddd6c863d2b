"""What CONTRIBUTING.md says of adding a network and a job, done to the letter in a copy of the house."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trainings import drawn_shards

ROOT = Path(__file__).parent.parent
COPIED = ("celebvision", "jobs", "configs", "tests", "cluster", "docs")
FILES = ("pyproject.toml", "README.md", "CONTRIBUTING.md")
# A file's name, or a place in one, and below it what is to stand there, four blanks in front of each line.
NEW = re.compile(r"^.*`([\w/]+\.(?:py|yaml))`\n\n((?:(?:    .*)?\n)+)", re.MULTILINE)
LINES = re.compile(r"^In `([\w/]+\.py)`.*, behind `(.+)`\n\n((?:    .*\n)+)", re.MULTILINE)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to which all has been added."""
    copy = tmp_path_factory.mktemp("house")
    for name in COPIED:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".terraform*"))
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    text = text[text.index("## To add a network") : text.index("## To add a metric")]
    for name, anchor, lines in LINES.findall(text):
        path = copy / name
        before = path.read_text()
        assert before.count(f"{anchor}\n") == 1, f"{name} has no one line that is {anchor}"
        path.write_text(before.replace(f"{anchor}\n", f"{anchor}\n{_unindented(lines)}"))
    for name, content in NEW.findall(text):
        path = copy / name
        assert not path.exists(), f"{name} is there already"
        path.write_text(_unindented(content).strip("\n") + "\n")
    return copy


def _unindented(lines: str) -> str:
    return "".join(line[4:] or "\n" for line in lines.splitlines(keepends=True))


def run(house: Path, *words: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(house), "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    ended = subprocess.run(
        [sys.executable, "-m", *words], cwd=house, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def test_their_own_tests_and_the_rules_of_the_house_hold(house: Path) -> None:
    told = run(house, "pytest", "-q", "tests/models/test_tiny.py", "tests/test_count.py", "tests/test_imports.py")
    assert "failed" not in told
    run(house, "ruff", "check", "celebvision", "jobs", "tests")
    run(house, "ruff", "format", "--check", "celebvision", "jobs", "tests")


def test_the_job_is_a_verb_like_any_other(house: Path) -> None:
    assert "Tell how many objects" in run(house, "celebvision", "--help")
    told = json.loads(run(house, "celebvision", "count", "--input", str(house / "configs"), "--json"))
    assert told["keys"] == sum(path.is_file() for path in (house / "configs").rglob("*"))


def test_the_network_is_trained_published_and_put_to_work(house: Path, tmp_path: Path) -> None:
    shards, registry, labels = drawn_shards(tmp_path, 160), str(tmp_path / "models"), str(tmp_path / "labels")
    words = ["--config", "configs/train/tiny.yaml", "--data", shards, "--registry", registry, "--json"]
    trained = json.loads(run(house, "celebvision", "train", *words))
    assert trained["model"].startswith("tiny@")
    photos = str(tmp_path / "original" / "img_align_celeba")
    words = ["--input", photos, "--output", labels, "--model", "tiny", "--registry", registry, "--json"]
    told = json.loads(run(house, "celebvision", "classify", *words))
    assert (told["results"], told["failures"]) == (160, 0)
