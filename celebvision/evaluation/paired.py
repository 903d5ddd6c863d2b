"""Two models on the same pictures: is one of them more often right, or may it be chance?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05  # a smaller p-value is taken to show a difference
RESAMPLES = 10_000


@dataclass(frozen=True)
class Paired:
    """How the answers of two models compare, picture by picture."""

    difference: float  # accuracy of the second minus that of the first, -1..1
    low: float  # of its 95 % interval
    high: float
    first_only: int  # pictures that only the first answers right
    second_only: int
    p_value: float  # of McNemar's exact test; corrected, where `comparisons` says so
    comparisons: int = 1  # that the p-value is corrected for, by Holm

    @property
    def shown(self) -> bool:
        """Whether chance alone would hardly do it."""
        return self.p_value < LEVEL

    def sentence(self, first_name: str, second_name: str) -> str:
        """What the comparison comes to, in plain words; the model that is more often right is named first."""
        if self.first_only > self.second_only:
            return self._turned().sentence(second_name, first_name)
        verdict = f"{second_name} is more often right than {first_name}"
        if not self.shown:
            verdict = f"no difference shown between {second_name} and {first_name}"
        corrected = f", by Holm for {self.comparisons} comparisons" if self.comparisons > 1 else ""
        gain = f"{_points(self.difference)} points, 95 % {_points(self.low)} to {_points(self.high)}"
        return (
            f"{verdict}: {self.second_only} against {self.first_only} pictures that only one gets right "
            f"(McNemar p {self.p_value:.2g}{corrected}; accuracy {gain})"
        )

    def _turned(self) -> Paired:
        """The same with the second model as the first."""
        only = {"first_only": self.second_only, "second_only": self.first_only}
        return replace(self, difference=-self.difference, low=-self.high, high=-self.low, **only)


def compare(
    truth: NDArray[np.bool_], first: NDArray[np.floating], second: NDArray[np.floating], seed: int = 0
) -> Paired:
    """Compare the right answers of two models to the same pictures.

    The p-value is that of McNemar's exact test (McNemar 1947): how often pictures that only one model gets right
    would divide as unevenly if each fell to either with the same chance. The interval is the percentile bootstrap
    over pictures, each drawn together with both answers to it.

    Args:
        truth: bool, N.
        first: probability of true by the first model, N, 0..1; more than 0.5 is yes.
        second: the same by the second.
        seed: of the resamples.

    Raises:
        ValueError: no pictures, or other shapes.
    """
    if not truth.ndim == 1 or not truth.shape == first.shape == second.shape or not len(truth):
        raise ValueError(f"shapes {truth.shape}, {first.shape}, {second.shape}; expected (N,) of each, N at least 1")
    count = len(truth)
    first_right, second_right = (first > 0.5) == truth, (second > 0.5) == truth
    first_only, second_only = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    # A picture adds 1, -1 or 0 to the difference, so how many of each kind a resample holds is all there is to draw.
    shares = np.array([first_only, second_only, count - first_only - second_only]) / count
    drawn = np.random.default_rng(seed).multinomial(count, shares, RESAMPLES)
    low, high = np.percentile((drawn[:, 1] - drawn[:, 0]) / count, [2.5, 97.5])
    difference = (second_only - first_only) / count
    return Paired(difference, float(low), float(high), first_only, second_only, _mcnemar(first_only, second_only))


def corrected(pairs: Sequence[Paired]) -> list[Paired]:
    """The same comparisons, made at once: p-values by Holm (1979), under which one false alarm in all is rare."""
    count, least = len(pairs), 0.0
    found = list(pairs)
    for rank, number in enumerate(sorted(range(count), key=lambda number: pairs[number].p_value)):
        least = max(least, min(1.0, (count - rank) * pairs[number].p_value))
        found[number] = replace(pairs[number], p_value=least, comparisons=count)
    return found


def _mcnemar(one: int, other: int) -> float:
    """Two-sided binomial test of a fair coin; 1 where no coin was thrown."""
    count = one + other
    # By logarithms: the numbers themselves leave the range of floats at about 1,000 pictures.
    choose = (
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(min(one, other) + 1)
    )
    return min(1.0, 2 * math.fsum(math.exp(ways - count * math.log(2)) for ways in choose))


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # + 0.0: zero has no minus
