"""The bucket that the jobs work on, the run that nobody disturbed, and the table of what the faults cost."""

from __future__ import annotations

import io
import json
import os
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from labelling import published
from PIL import Image

from celebvision.registry import promote
from faults.command import BIN, Marked
from faults.counting import Count, count

ROUNDS = int(os.environ.get("CELEBVISION_FAULT_ROUNDS", "1"))
PICTURES, BROKEN_EACH = 600, 97  # every 97th is broken
SHARD_KEYS = 20
# Each batch is filled up to its size: so many for so few pictures slow the work down, that a fault may find its middle.
BATCH_SIZE = 256
COUNTS = pytest.StashKey[dict[str, list[Count]]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "turn" in metafunc.fixturenames:
        metafunc.parametrize("turn", range(ROUNDS))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNTS] = defaultdict(list)


@dataclass(frozen=True)
class House:
    """Pictures, and a model that is asked for what is in them."""

    pictures: Path
    registry: Path
    keys: frozenset[str]

    @property
    def shards(self) -> int:
        return -(-len(self.keys) // SHARD_KEYS)

    def words(self, output: Path | str, pictures: Path | str = "", registry: Path | str = "") -> list[str]:
        """The command that labels the pictures."""
        places = {"input": pictures or self.pictures, "output": output, "registry": registry or self.registry}
        words = [str(BIN / "celebvision"), "classify", "--model", "cnn", "--json"]
        for name, value in places.items():
            words += [f"--{name}", str(value)]
        return [*words, "--shard_keys", str(SHARD_KEYS), "--batch_size", str(BATCH_SIZE)]


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    folder = tmp_path_factory.mktemp("house")
    pictures, registry = folder / "pictures", folder / "registry"
    pictures.mkdir()
    for number in range(PICTURES):
        data = blots(number)
        (pictures / f"{number:04}.jpg").write_bytes(data if number % BROKEN_EACH else data[: len(data) // 2])
    promote(str(registry), "cnn", published(str(registry), seed=1).version)
    return House(pictures, registry, frozenset(path.name for path in pictures.iterdir()))


def blots(seed: int) -> bytes:
    """A JPEG of 64 x 64 to 178 x 218 pixels, each of another size and with other colours."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(64, 179)), int(rng.integers(64, 219))
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).resize(size).save(buffer, "JPEG")
    return buffer.getvalue()


Start = Callable[..., Marked]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a command, with variables added to its environment."""

    def started(words: list[str], environment: Mapping[str, str] | None = None) -> Marked:
        return Marked(words, tmp_path / "command", environment or {})

    return started


@pytest.fixture(scope="session")
def undisturbed(house: House, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with Marked(house.words(folder / "labels"), folder / "command", {}) as command:
        assert command.status() == 0, command.stderr
    return folder / "labels"


@pytest.fixture
def draw(request: pytest.FixtureRequest, turn: int) -> random.Random:
    """Another moment for each test and turn, the same in each session."""
    return random.Random(f"{request.function.__name__} {turn}")


Exact = Callable[..., None]


@pytest.fixture
def exactly_once(request: pytest.FixtureRequest, house: House, undisturbed: Path) -> Exact:
    """Assert that each key is in results or failures once, as if nothing had happened; the table keeps the count."""

    def assert_exact(fault: str, output: Path | str, without: tuple[str, ...] = ()) -> None:
        counted = count(str(output), set(house.keys), str(undisturbed), without)
        request.config.stash[COUNTS][fault].append(counted)
        assert counted.exact, counted

    return assert_exact


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not (table := [as_row(fault, counts) for fault, counts in config.stash[COUNTS].items()]):
        return
    terminalreporter.section("keys after faults")
    names = list(table[0])
    widths = [max(len(name), *(len(str(row[name])) for row in table)) for name in names]
    for cells in (names, *([str(row[name]) for name in names] for row in table)):
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)))
    if path := os.environ.get("CELEBVISION_FAULT_TABLE"):
        Path(path).write_text(json.dumps(table, indent=1))


def as_row(fault: str, counts: list[Count]) -> dict[str, object]:
    sums = {name: sum(getattr(count, name) for count in counts) for name in ("results", "failures", "lost", "doubled")}
    keys = sum(count.keys for count in counts)
    same = all(count.same_bytes for count in counts)
    return {"fault": fault, "rounds": len(counts), "keys in": keys, **sums, "bytes equal": "yes" if same else "no"}
