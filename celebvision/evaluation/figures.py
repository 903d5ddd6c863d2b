"""Figures of a classifier on one attribute, each with the interval in which chance would leave it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_f1_score,
    binary_precision,
    binary_recall,
    binary_specificity,
)

from celebvision.evaluation.resampling import BINS, resampled

RESAMPLES = 1_000
DIGITS = 6  # behind the point: torchmetrics counts in float32
DEFINED = 0.95  # share of the resamples that must have a figure, or no interval is given
ONE_SIDE = "all pictures are of the same side"

# Of probabilities and labels, N each: the point estimates. A Brier score has no metric of torchmetrics.
METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "accuracy": binary_accuracy,
    "balanced_accuracy": lambda found, truth: (binary_recall(found, truth) + binary_specificity(found, truth)) / 2,
    "precision": binary_precision,
    "recall": binary_recall,
    "f1": binary_f1_score,
    "roc_auc": binary_auroc,
    "average_precision": binary_average_precision,
    "brier": lambda found, truth: ((found - truth) ** 2).mean(),
    "calibration_error": lambda found, truth: binary_calibration_error(found, truth, n_bins=BINS),
}


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval; what is None is so for the reason that `why` gives."""

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""

    @property
    def text(self) -> str:
        if self.value is None:
            return f"undefined ({self.why})"
        if self.low is None:
            return f"{self.value:.4f} (no interval: {self.why})"
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


def figures(truth: NDArray[np.bool_], probability: NDArray[np.floating], seed: int = 0) -> dict[str, Figure]:
    """Every figure of `METRICS` with the percentile bootstrap's interval over pictures.

    Args:
        truth: bool, N, N at least 1.
        probability: of true, N, 0..1; more than 0.5 is yes.
        seed: of the resamples; the same gives the same.
    """
    missing = _undefined(truth, probability)
    spread = resampled(truth, probability, RESAMPLES, seed)
    answers, labels = torch.tensor(probability, dtype=torch.float32), torch.from_numpy(truth.astype(np.int64))
    found = {}
    for name, metric in METRICS.items():
        if name in missing:
            found[name] = Figure(None, why=missing[name])
            continue
        value = round(float(metric(answers, labels)), DIGITS)
        values = spread[name][np.isfinite(spread[name])]
        if len(values) < DEFINED * RESAMPLES:
            found[name] = Figure(value, why="too few pictures of one side")
        else:
            low, high = np.percentile(values, [2.5, 97.5])
            found[name] = Figure(value, float(low), float(high))
    return found


def _undefined(truth: NDArray[np.bool_], probability: NDArray[np.floating]) -> dict[str, str]:
    """Figures that these pictures do not give, and why: each would divide by nothing."""
    yes = probability > 0.5
    missing = {}
    if truth.all() or not truth.any():
        missing = dict.fromkeys(("balanced_accuracy", "roc_auc", "average_precision"), ONE_SIDE)
    if not truth.any():
        missing["recall"] = "no picture is true"
    if not yes.any():
        missing["precision"] = "no answer is true"
    if not (truth | yes).any():
        missing["f1"] = "no picture and no answer is true"
    return missing
