"""The bootstrap over pictures: every figure of a thousand resamples, in some passes over sorted probabilities."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

BINS = 15  # of the calibration error, of equal width; so many as Guo et al. 2017 have (arXiv:1706.04599)
HELD = 1 << 20  # numbers of an array of resamples at most, or one resample: 8 MiB

Floats = NDArray[np.float64]


def resampled(
    truth: NDArray[np.bool_], probability: NDArray[np.floating], resamples: int, seed: int
) -> dict[str, Floats]:
    """Figures of as many sets of N pictures, each drawn from these N with replacement.

    Args:
        truth: bool, N, N at least 1.
        probability: of true, N, 0..1.

    Returns:
        By figure, R values; NaN where a resample does not give it.
    """
    count, generator = len(truth), np.random.default_rng(seed)
    parts: list[dict[str, Floats]] = []
    step = max(1, HELD // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        parts.append(weighted(truth, probability, times))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def weighted(
    truth: NDArray[np.bool_], probability: NDArray[np.floating], times: NDArray[np.integer]
) -> dict[str, Floats]:
    """Figures of resamples that hold each picture so many times.

    Pictures of one probability stand or fall together, as a threshold cannot part them; average precision is the sum
    over thresholds without interpolation. Both, and the bins of the calibration error, are as torchmetrics has them.

    Args:
        truth: bool, N.
        probability: of true, N, 0..1.
        times: R N, each row of the same sum above 0.

    Returns:
        As `resampled`.
    """
    order = np.argsort(-probability, kind="stable")
    truth, probability, times = truth[order], probability[order].astype(np.float32), times[:, order]
    ends = np.flatnonzero(np.append(probability[1:] != probability[:-1], True))  # last of each probability
    hits = np.cumsum(times * truth, axis=1)[:, ends].astype(float)  # true pictures at or above each threshold
    alarms = np.cumsum(times * ~truth, axis=1)[:, ends].astype(float)
    positives, negatives = hits[:, -1], alarms[:, -1]
    total = positives + negatives
    above = int(np.count_nonzero(probability[ends] > 0.5))
    nothing = np.zeros(len(times))
    hit, alarm = (hits[:, above - 1], alarms[:, above - 1]) if above else (nothing, nothing)
    recall, specificity = _share(hit, positives), _share(negatives - alarm, negatives)
    more_hits = np.diff(hits, axis=1, prepend=0)
    more_alarms = np.diff(alarms, axis=1, prepend=0)
    precisions = _share(hits, hits + alarms)
    errors = (probability.astype(float) - truth) ** 2
    return {
        "accuracy": (hit + negatives - alarm) / total,
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": _share(hit, hit + alarm),
        "recall": recall,
        "f1": _share(2 * hit, hit + alarm + positives),
        "roc_auc": _share((more_alarms * (hits - more_hits / 2)).sum(axis=1), positives * negatives),
        "average_precision": _share(np.nansum(more_hits * precisions, axis=1), positives),
        "brier": (times @ errors) / total,
        "calibration_error": _gaps(truth, probability, times) / total,
    }


def bins(probability: NDArray[np.float32]) -> NDArray[np.integer]:
    """The bin of each probability, 0 to `BINS`: the last one holds what is exactly 1."""
    edges = torch.linspace(0, 1, BINS + 1).numpy()  # NumPy's own differ in the last bit
    return np.searchsorted(edges, probability, side="right") - 1


def _gaps(truth: NDArray[np.bool_], probability: NDArray[np.float32], times: NDArray[np.integer]) -> Floats:
    """Sum over bins of how far its probabilities, summed, are from its true pictures; of sorted pictures."""
    numbers = bins(probability)
    starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1]))
    surplus = np.add.reduceat(times * (probability.astype(float) - truth), starts, axis=1)
    gaps: Floats = np.abs(surplus).sum(axis=1)
    return gaps


def _share(part: Floats, whole: Floats) -> Floats:
    """NaN where there is no whole."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
