"""The documentation's tables are what was measured, and figures can be held against it."""

import copy
import itertools
from typing import Any

import pytest

from tests.benchmarks import kept, tables
from tests.benchmarks.contestants import REPOSITORY

PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/*.md", "cluster/**/*.md")
    for path in REPOSITORY.glob(pattern)
)


@pytest.mark.parametrize("name", kept.PAGES)
def test_a_page_is_what_the_kept_figures_give(name: str) -> None:
    assert (kept.DOCS / name).read_text() == kept.page(name)


def test_every_table_has_its_place_and_every_place_a_table() -> None:
    text = (kept.DOCS / "performance.md").read_text()
    assert {place[1] for place in tables.PLACE.findall(text)} == set(tables.TABLES)


@pytest.mark.parametrize("page", PAGES)
def test_a_table_ends_before_the_words_that_follow(page: str) -> None:
    lines = (REPOSITORY / page).read_text().splitlines()
    after = [line for row, line in itertools.pairwise(lines) if row.lstrip().startswith("|")]
    assert [line for line in after if line and not line.lstrip().startswith(("|", "- "))] == []


def test_what_was_measured_beside_a_gpu_fills_its_own_tables_too() -> None:
    text = (kept.DOCS / "performance.md").read_text()
    (parts,) = [result for result in kept.figures() if "parts" in result]
    (gpu,) = [result for result in kept.figures() if "gpu" in result]
    both = gpu | {"parts": {"one": 1.0}}
    filled = tables.filled(text, [both])
    assert "| `one` | 1 |" in filled
    assert filled.count("NVIDIA H200") == 2  # of the machine, and of the GPU
    assert tables.filled(text, [parts, gpu]).count("NVIDIA H200") == 1


def test_a_figure_that_doubled_is_better_or_worse_by_what_it_is() -> None:
    (memory,) = [result for result in kept.figures() if "memory" in result]
    now: dict[str, Any] = copy.deepcopy(memory)
    now["memory"]["sustained_images_per_s"] *= 2
    now["memory"]["runs"][0]["peak_bytes"] *= 2
    told = {line.split()[0]: line.split()[3:] for line in kept.compared([now]).splitlines() if "memory" in line}
    assert told["memory.sustained_images_per_s"] == ["2.00", "better"]
    assert told["memory.runs[images=10000].peak_bytes"] == ["0.50", "worse"]
    assert told["memory.runs[images=100000].peak_bytes"] == ["1.00"]


def test_figures_of_another_machine_are_told_apart() -> None:
    (memory,) = [result for result in kept.figures() if "memory" in result]
    assert "different machines" not in kept.compared([memory])
    assert "different machines" in kept.compared([memory | {"machine": {"cpu": "another"}}])
