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
from labelling import published, published_style
from PIL import Image

from celebvision.registry import promote
from faults.command import BIN, Marked
from faults.counting import Count, count

ROUNDS = int(os.environ.get("CELEBVISION_FAULT_ROUNDS", "1"))
# Every 97th picture is broken. To draw takes longer than to label: a few will do.
PICTURES, BROKEN_EACH = {"classify": 600, "stylize": 200}, 97
SHARD_KEYS = 20
# Each batch is filled up to its size: so many for so few pictures slow the work down, that a fault may find its middle.
BATCH_SIZE = 256
SIZE = 200  # and for the same reason pictures are drawn larger than they are
COUNTS = pytest.StashKey[dict[str, list[Count]]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests are of `classify` where they do not say that they are of `stylize` too."""
    given = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "house" in metafunc.fixturenames and not any("house" in names for names in given):
        metafunc.parametrize("house", ["classify"], indirect=True)
    if "turn" in metafunc.fixturenames:
        metafunc.parametrize("turn", range(ROUNDS))


@pytest.hookimpl(trylast=True)  # after pytest has put together what it would
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One verb after the other: each has its own undisturbed run, which is done once."""
    items.sort(key=lambda item: _house(item) == "stylize")


def _house(item: pytest.Item) -> object:
    return (
        item.callspec.params.get("house") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNTS] = defaultdict(list)


@dataclass(frozen=True)
class House:
    """Pictures, and a model that is asked for what is in them, or to redraw them."""

    verb: str
    pictures: Path
    registry: Path
    keys: frozenset[str]

    @property
    def shards(self) -> int:
        return -(-len(self.keys) // SHARD_KEYS)

    def words(self, output: Path | str, pictures: Path | str = "", registry: Path | str = "") -> list[str]:
        """The command that works on the pictures."""
        places = {"input": pictures or self.pictures, "output": output, "registry": registry or self.registry}
        words = [str(BIN / "celebvision"), self.verb, "--json", "--shard_keys", str(SHARD_KEYS)]
        for name, value in places.items():
            words += [f"--{name}", str(value)]
        if self.verb == "stylize":
            return [*words, "--model", "sketch", "--batch_size", "2", "--size", str(SIZE)]
        return [*words, "--model", "cnn", "--batch_size", str(BATCH_SIZE)]


@pytest.fixture(scope="session")
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> House:
    verb, folder = str(request.param), tmp_path_factory.mktemp("house")
    pictures, registry = folder / "pictures", folder / "registry"
    pictures.mkdir()
    for number in range(PICTURES[verb]):
        data = blots(number)
        (pictures / f"{number:04}.jpg").write_bytes(data if number % BROKEN_EACH else data[: len(data) // 2])
    model = published(str(registry), seed=1) if verb == "classify" else published_style(str(registry), seed=1)
    promote(str(registry), model.name, model.version)
    return House(verb, pictures, registry, frozenset(path.name for path in pictures.iterdir()))


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
        fault = fault if house.verb == "classify" else f"{house.verb}: {fault}"
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
