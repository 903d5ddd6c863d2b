"""The image's Dockerfile, as it is written: nothing here builds it."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
APP = "/app"


@dataclass(frozen=True)
class Step:
    """One instruction, its lines joined."""

    word: str
    rest: str


def _steps(text: str) -> list[Step]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Step(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


@pytest.fixture
def steps() -> list[Step]:
    return _steps((ROOT / "Dockerfile").read_text())


def _of(steps: list[Step], word: str) -> list[str]:
    return [step.rest for step in steps if step.word == word]


def _sources(steps: list[Step]) -> list[str]:
    """What is copied out of our folder, and not out of an earlier stage."""
    copies = [rest.split() for rest in _of(steps, "COPY")]
    return [source for words in copies if not words[0].startswith("--from=") for source in words[:-1]]


def test_it_runs_as_nobody_special(steps: list[Step]) -> None:
    last = next(number for number, step in reversed(list(enumerate(steps))) if step.word == "FROM")
    assert _of(steps[last:], "USER") == ["ray"]
    (made,) = [step for step in _of(steps[last:], "RUN") if "useradd" in step]
    assert "--uid 1000" in made  # the user of the host's /tmp/ray
    assert [step.word for step in steps].index("USER") > max(n for n, step in enumerate(steps) if step.word == "RUN")


def test_all_stages_stand_on_one_pinned_base(steps: list[Step]) -> None:
    (base,) = _of(steps, "ARG")
    assert re.fullmatch(r"BASE=python:3\.11\.\d+-slim-\w+", base)
    assert {rest.split()[0] for rest in _of(steps, "FROM")} == {"${BASE}"}


def test_what_it_copies_is_there_and_is_let_in(steps: list[Step]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    let_in = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored
    assert _sources(steps)
    for source in _sources(steps):
        assert (ROOT / source).exists(), source
        assert source in let_in, f"{source} is kept out by .dockerignore"
    assert sorted(let_in) == sorted(set(_sources(steps)))


def test_packages_come_with_hashes_from_the_lock(steps: list[Step]) -> None:
    (run,) = [rest for rest in _of(steps, "RUN") if "requirements.lock > uv.txt" in rest]
    installs = re.findall(r"pip install.*?(?=&&|$)", run)
    assert len(installs) == 2
    for install in installs:
        assert "--require-hashes" in install
    assert "-c requirements.lock" in installs[1]
    # Our own code alone is installed otherwise, and brings nothing along.
    others = [rest for rest in _of(steps, "RUN") if "pip install" in rest and rest != run]
    assert len(others) == 1
    assert "--no-deps" in others[0]


def test_it_holds_no_secret(steps: list[Step]) -> None:
    for step in steps:
        if step.word in ("ARG", "ENV"):
            assert not re.search(r"(?i)(key|secret|token|password)", step.rest), step.rest
    for name in (".env", ".aws/credentials", "id_rsa", ".git", "demo"):
        assert not [source for source in _sources(steps) if fnmatch.fnmatch(name, source)]


def test_make_image_builds_a_stage_that_is_there(steps: list[Step]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    found = re.search(r"^image:.*\n\tdocker build --target (\w+) ", makefile, re.MULTILINE)
    assert found
    assert found[1] in [rest.split()[-1] for rest in _of(steps, "FROM")]


def test_the_launcher_runs_what_is_in_the_image(steps: list[Step]) -> None:
    config = yaml.safe_load((ROOT / "cluster" / "aws" / "cluster.yaml").read_text())
    copied = {f"{APP}/{source}" for source in _sources(steps)}
    assert _of(steps, "WORKDIR")[-1] == APP
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        for path in re.findall(rf"{APP}/\S+", command):
            assert path in copied
    # The autoscaler needs these in the container.
    assert all(any(program in rest for rest in _of(steps, "RUN")) for program in ("openssh-client", "rsync"))


def test_gpus_are_seen_where_there_are_some(steps: list[Step]) -> None:
    assert any("NVIDIA_VISIBLE_DEVICES=all" in rest for rest in _of(steps, "ENV"))


def test_it_has_cuda_as_the_lock_has() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert re.search(r"^nvidia-cudnn-cu\d+==\S+ ; sys_platform == 'linux'", lock, re.MULTILINE)
