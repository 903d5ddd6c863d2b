"""How the pictures and answers of a run are spread, and how far that is from another run's: the sign that one drifts.

A distribution is how many rows fall into each bin, by the bin's lower edge: of what lies in 0..1 twenty bins of equal
width, of sides and bytes powers of two. `failures` counts why keys have no result, and those that have one as `none`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from celebvision.batch.record import POSITIVE, Run
from celebvision.job import JobFailed

SHARES = 20  # bins of what lies in 0..1
SIZES = ("width", "height", "bytes")
BRIGHTNESS = "brightness"
FAILURES, NONE = "failures", "none"
UNSEEN = 0.5  # rows that every bin is given before shares are taken
MODERATE, LARGE = 0.1, 0.25

Distributions = dict[str, dict[str, int]]  # rows by bin, by distribution


def positives_of(rows: pa.Table) -> list[str]:
    """The columns of a part that no result has: probabilities of each target's second class."""
    return [name for name in rows.column_names if name == POSITIVE or name.startswith(f"{POSITIVE}_")]


def distributions_of(rows: pa.Table) -> Distributions:
    """The distributions of rows of parts: `probability` (with several targets `probability_<target>`) of the second
    class, `width`, `height`, `bytes`, `brightness` and `failures`, as far as the rows have the columns.
    """
    found: Distributions = {}
    for name in positives_of(rows):
        found[f"probability{name.removeprefix(POSITIVE)}"] = _by_share(rows[name])
    found |= {name: _by_power(rows[name]) for name in SIZES if name in rows.column_names}
    if BRIGHTNESS in rows.column_names:
        found[BRIGHTNESS] = _by_share(rows[BRIGHTNESS])
    reasons = rows.group_by(["stage", "error"]).aggregate([([], "count_all")]).to_pylist()
    found[FAILURES] = {f"{one['stage']} {one['error']}" if one["stage"] else NONE: one["count_all"] for one in reasons}
    return found


def summed(several: Iterable[Distributions]) -> Distributions:
    """The distributions of all rows together."""
    total: dict[str, Counter[str]] = {}
    for distributions in several:
        for name, bins in distributions.items():
            total.setdefault(name, Counter()).update(bins)
    return {name: dict(sorted(bins.items(), key=_place)) for name, bins in total.items()}


def psi(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """The population stability index: the sum over bins of (q - p) ln(q / p), of shares p before and q after.

    It is 0 where both are spread alike, and the same from either side. A share is (rows + ½) / (all rows + ½ bins),
    over the bins that either run has rows in: one that a run leaves empty counts as rare and not as impossible. Of n
    and m rows that differ by chance alone it is about (bins - 1) (1/n + 1/m).
    """
    bins = sorted({*before, *after})
    p, q = (_shares(rows, bins) for rows in (before, after))
    return float(((q - p) * np.log(q / p)).sum())


def compared(before: Distributions, after: Distributions) -> dict[str, float]:
    """The index of each distribution that both runs have rows of."""
    return {name: psi(bins, after[name]) for name, bins in before.items() if bins and after.get(name)}


def reading(index: float) -> str:
    """What an index is usually taken for."""
    return "stable" if index < MODERATE else "moderate shift" if index <= LARGE else "large shift"


def largest(indices: Mapping[str, float]) -> tuple[str, float]:
    """The distribution that has shifted most, and its index."""
    return max(indices.items(), key=lambda item: item[1])


def since_last(run: Run, runs: Iterable[Run]) -> dict[str, Any]:
    """How far a run's distributions are from those of the last of `runs`, oldest first, that is done by the same model.

    Returns:
        `baseline`, that run's id, and `psi`, the index of each distribution; nothing where there is no such run.
    """
    # The keys of a retry are those that failed, which says nothing of the rest.
    if run.retry or not run.distributions:
        return {}
    earlier = [
        one
        for one in runs
        if one.run_id < run.run_id
        and (one.verb, one.model["name"], one.state) == (run.verb, run.model["name"], "done")
        and one.distributions
        and not one.retry
    ]
    if not earlier:
        return {}
    return {"baseline": earlier[-1].run_id, "psi": compared(earlier[-1].distributions, run.distributions)}


def between(runs: Iterable[Run], run_ids: tuple[str, str]) -> dict[str, float]:
    """The index of each distribution of the second of two runs, beside the first.

    Raises:
        JobFailed: there is no such run, it is not done, or it has no distributions.
    """
    by_id = {run.run_id: run for run in runs}
    for run_id in run_ids:
        if run_id not in by_id:
            raise JobFailed(f"compare: there is no run {run_id}; there are: {', '.join(by_id) or 'none'}")
        if (state := by_id[run_id].state) != "done":
            raise JobFailed(f"compare: run {run_id} is {state}, not done; the command that began it continues it")
        if not by_id[run_id].distributions:
            raise JobFailed(f"compare: run {run_id} has no distributions: a stylize, or a classify of an older version")
    first, second = (by_id[run_id] for run_id in run_ids)
    return compared(first.distributions, second.distributions)


def _by_share(column: pa.ChunkedArray) -> dict[str, int]:
    values = column.drop_null().to_numpy()
    bins = np.minimum((values * SHARES).astype(int), SHARES - 1)
    return {f"{number / SHARES:.2f}": count for number, count in _counted(bins)}


def _by_power(column: pa.ChunkedArray) -> dict[str, int]:
    _, exponents = np.frexp(column.drop_null().to_numpy().astype(float))  # a value is 0.5..1 times 2 to the exponent
    return {str(2 ** (exponent - 1)): count for exponent, count in _counted(exponents)}


def _counted(numbers: NDArray[Any]) -> Iterator[tuple[int, int]]:
    values, counts = np.unique(numbers, return_counts=True)
    return zip(values.tolist(), counts.tolist(), strict=True)


def _place(item: tuple[str, int]) -> tuple[float, str]:
    """Edges by their value, words behind them."""
    edge, _ = item
    return (float(edge) if edge[0].isdigit() else math.inf, edge)


def _shares(rows: Mapping[str, int], bins: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    counts = np.array([rows.get(edge, 0) for edge in bins]) + UNSEEN
    shares: np.ndarray[Any, np.dtype[np.float64]] = counts / counts.sum()
    return shares
