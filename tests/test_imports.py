"""Imports go down only: who may know whom is a rule of the house, and this keeps it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "celebvision"

# From the ground up: a room may import rooms of lower floors, and rooms on its own floor where `beside` says so.
FLOORS = [
    {"storage", "images", "memory", "sheet", "logs", "models", "__init__"},
    {"config", "job", "page"},
    {"ray_session", "lease", "preemption", "spot", "capacity", "cost"},
    {"notices"},
    {"metrics"},
    {"celeba", "registry", "pretrained", "local_cluster"},
    {"styling"},
    {"style_evaluation", "evaluation"},
    {"training", "batch"},
    {"demo", "retrain", "submit", "top", "report", "app"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
BESIDE = {("job", "__init__"), ("evaluation", "style_evaluation"), ("demo", "cli")}
TORCH_ALONE = {"torch", "torchvision"}


def imports_of(path: Path) -> set[str]:
    """Dotted names of all modules a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(dotted: str) -> str | None:
    parts = dotted.split(".")
    if parts[0] != PACKAGE:
        return None
    is_room = len(parts) > 1 and parts[1] in FLOOR
    return parts[1] if is_room else "__init__"


FILES = sorted((ROOT / PACKAGE).rglob("*.py"))


def own_room(path: Path) -> str:
    return path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_lies_below_it(path: Path) -> None:
    room = own_room(path)
    assert room in FLOOR, f"{room} has no floor: give it one here"
    for name in imports_of(path):
        other = room_of(name)
        if other is not None and other != room:
            assert FLOOR[other] < FLOOR[room] or (room, other) in BESIDE, f"{path} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / PACKAGE / "models").rglob("*.py")), ids=lambda path: path.name)
def test_networks_know_torch_alone(path: Path) -> None:
    for name in imports_of(path):
        top = name.split(".")[0]
        ours = name.startswith(f"{PACKAGE}.models")
        assert ours or top in TORCH_ALONE or top in sys.stdlib_module_names, f"{path} imports {name}"


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("celebvision.cli", "torch"),  # `--help` and `runs` would take four times as long
        ("celebvision.training.feed", "torch"),  # the processes that split a training's rows
        ("celebvision.training.classifier_recipe", "torchvision"),  # each worker of a training
        ("celebvision.training.cyclegan_recipe", "torchvision"),
        ("celebvision.training.style_recipe", "torchvision"),
    ],
)
def test_what_takes_seconds_to_load_is_loaded_where_it_is_needed(module: str, never: str) -> None:
    look = f"import sys, {module}; sys.exit({never!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], timeout=60).returncode == 0


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.name)
def test_a_job_is_its_verb_and_nothing_else(path: Path) -> None:
    from celebvision.cli import VERBS

    assert imports_of(path) == {"sys", "celebvision.cli.main"}
    assert path.stem in VERBS
    assert f'main(["{path.stem}", *sys.argv[1:]])' in path.read_text()


def test_every_verb_has_its_job() -> None:
    from celebvision.cli import VERBS

    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} == set(VERBS)
