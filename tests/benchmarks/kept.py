"""The figures that the documentation shows: kept as JSON in the repository, its tables made from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.benchmarks import report, tables
from tests.benchmarks.contestants import REPOSITORY

DOCS = REPOSITORY / "docs"
FIGURES = DOCS / "figures.json"
PAGES = ("benchmarks.md", "performance.md")
LESS_IS_BETTER = ("seconds", "_s", "_bytes", "overhead", "requests")
MORE_IS_BETTER = ("_per_s",)
SKIPPED = ("rounds", "images", "keys", "nodes", "workers", "mean_bytes", "run")  # what was asked for, not what was seen
SAME = 0.03  # a ratio that is nearer to 1 says nothing: machines are noisy


def figures() -> list[dict[str, Any]]:
    """Of each command, what it measured last."""
    kept: list[dict[str, Any]] = json.loads(FIGURES.read_text())
    return kept


def keep(results: list[dict[str, Any]]) -> None:
    """Put results in the place of those of the same commands, and write the tables anew."""
    by_command = {result["command"]: result for result in [*figures(), *results]}
    FIGURES.write_text(json.dumps(list(by_command.values()), indent=1, ensure_ascii=False) + "\n")
    for name in PAGES:
        (DOCS / name).write_text(page(name))


def page(name: str) -> str:
    """A page of `docs/` with the tables that the kept figures give."""
    if name == "benchmarks.md":
        return report.page(figures())
    return tables.filled((DOCS / name).read_text(), figures())


def compared(results: list[dict[str, Any]]) -> str:
    """A line for each figure that both have: before, now, and how many times as good it is now."""
    before = {name: value for result in figures() for name, value in _flat(result)}
    lines = []
    for result in results:
        for name, value in _flat(result):
            if before.get(name) and value:
                less = name.endswith(LESS_IS_BETTER) and not name.endswith(MORE_IS_BETTER)
                ratio = before[name] / value if less else value / before[name]
                word = "" if abs(ratio - 1) < SAME else "better" if ratio > 1 else "worse"
                lines.append(f"{name:<72} {before[name]:>12,.2f} {value:>12,.2f} {ratio:>6.2f} {word}".rstrip())
    commands = {result["command"] for result in results}
    kept = [result for result in figures() if result["command"] in commands]
    machines = {json.dumps(result["machine"]) for result in [*kept, *results]}
    note = [] if len(machines) == 1 else ["These are of different machines or versions:", *sorted(machines)]
    head = f"{'figure':<72} {'kept':>12} {'now':>12} {'×':>6}"
    return "\n".join([*note, head, *lines] if lines else [*note, "no figure that both have"])


def _flat(result: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Each number with the names that lead to it; a list's by what its entries are of."""
    if isinstance(result, Mapping):
        for key, value in result.items():
            if key not in ("command", "machine") and not (key in SKIPPED and isinstance(value, int | float | list)):
                yield from _flat(value, f"{name}.{key}" if name else key)
    elif isinstance(result, list):
        for at, value in enumerate(result):
            of = [f"{key}={value[key]}" for key in ("kind", "source", *SKIPPED) if key in value] if value else []
            yield from _flat(value, f"{name}[{','.join(of) or at}]")
    elif isinstance(result, int | float) and not isinstance(result, bool):
        yield name, float(result)
