"""Temperature scaling: one number per target, so that what is called 0.9 is right nine times of ten.

Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv:1706.04599), section 4.2. Departure: one temperature
for each binary target, since every one of our logits is an answer of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from celebvision.celeba.shards import DataSet, ReadRowGroup, row_groups
from celebvision.evaluation.resampling import weighted
from celebvision.job import progress
from celebvision.models.classifier import Classifier

LEAST, MOST = 0.05, 20.0  # temperatures that are looked at
TOLERANCE = 1e-4  # of the logarithm of a temperature
GOLDEN = (math.sqrt(5) - 1) / 2
ROWS = 5000  # of the split that are looked at; what 1 more number is fitted on need not be more
BATCH = 128


@dataclass(frozen=True)
class Calibration:
    """A target's temperature, and what it changed on the pictures that it was fitted on.

    nll: mean negative log likelihood, nats; ece: expected calibration error, 0..1, in 15 bins of equal width.
    """

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    remark: str = ""  # why there is no temperature, or none inside the bounds


def calibrate(logits: Tensor, labels: Tensor, targets: Sequence[str]) -> dict[str, Calibration]:
    """Fit a temperature for each target; `logits`, N T, and `labels`, N T or more, as `logits_of` gives them."""
    return {name: fit(logits[:, at], labels[:, at]) for at, name in enumerate(targets)}


def logits_of(classifier: Classifier, data: DataSet, split: str, read: ReadRowGroup) -> tuple[Tensor, Tensor]:
    """Logits, float32 N T, of a split's first pictures, `ROWS` at most, and the labels that `read` gives, 0 or 1."""
    wanted = min(ROWS, data.rows(split))
    logits: list[Tensor] = []
    labels: list[NDArray[np.float32]] = []
    done = 0
    with progress("calibrate", wanted, "images") as show:
        for group in row_groups(data, split):
            for batch in read({"path": np.array([group.path]), "number": np.array([group.number])}):
                pixels = torch.from_numpy(batch["image"][: wanted - done])
                logits.extend(classifier.logits(some) for some in pixels.split(BATCH))
                labels.append(batch["label"][: len(pixels)])
                done += len(pixels)
                show(done)
                if done == wanted:
                    return torch.cat(logits), torch.from_numpy(np.concatenate(labels))
    raise ValueError(f"the {split} split should hold {wanted} pictures, and holds {done}")


def fit(logits: Tensor, labels: Tensor) -> Calibration:
    """The temperature of the least negative log likelihood, within `LEAST`..`MOST`.

    It stays 1, with a remark, where there is nothing to fit: labels of one class, or logits that tell both apart
    without a mistake, of which the likelihood grows as long as the temperature falls.

    Args:
        logits: float, N, finite; N at least 1.
        labels: float, N, 0 or 1.
    """
    logits, labels = logits.double(), labels.double()
    signs = labels * 2 - 1
    remark, temperature = "", 1.0
    if bool((labels == labels[0]).all()):
        remark = f"all {len(labels)} pictures are of one class"
    elif bool((logits * signs > 0).all()):
        remark = f"all {len(labels)} pictures are answered rightly"
    else:
        temperature = _least(lambda value: _nll(logits / value, labels))
        if not LEAST * 1.01 < temperature < MOST / 1.01:
            remark = f"at the bound: the best one lies outside {LEAST:g}..{MOST:g}"
    return Calibration(
        temperature=temperature,
        nll_before=_nll(logits, labels),
        nll_after=_nll(logits / temperature, labels),
        ece_before=_ece(logits, labels),
        ece_after=_ece(logits / temperature, labels),
        remark=remark,
    )


def figures_of(calibrations: Mapping[str, Calibration]) -> dict[str, float]:
    """Means over the targets, as a version's metrics name them."""
    names = ("nll_before", "nll_after", "ece_before", "ece_after")
    return {f"valid_{name}": float(np.mean([getattr(one, name) for one in calibrations.values()])) for name in names}


def table_of(calibrations: Mapping[str, Calibration]) -> str:
    """A Markdown table for a card: a line for each target."""
    lines = [
        f"| {target} | {one.temperature:.3f} | {one.nll_before:.4f} → {one.nll_after:.4f} | "
        f"{one.ece_before:.4f} → {one.ece_after:.4f} | {one.remark} |"
        for target, one in calibrations.items()
    ]
    return "\n".join(["| target | temperature | NLL | ECE | |", "| --- | --- | --- | --- | --- |", *lines])


def _least(loss: Callable[[float], float]) -> float:
    """Where a loss of a temperature is least: golden section over its logarithm.

    The loss is convex in the inverse of the temperature, so it falls and then rises, whatever the logits are.
    """
    low, high = math.log(LEAST), math.log(MOST)
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    of_left, of_right = loss(math.exp(left)), loss(math.exp(right))
    while high - low > TOLERANCE:
        if of_left < of_right:
            high, right, of_right = right, left, of_left
            left = high - GOLDEN * (high - low)
            of_left = loss(math.exp(left))
        else:
            low, left, of_left = left, right, of_right
            right = low + GOLDEN * (high - low)
            of_right = loss(math.exp(right))
    return math.exp((low + high) / 2)


def _nll(logits: Tensor, labels: Tensor) -> float:
    return float(binary_cross_entropy_with_logits(logits, labels))


def _ece(logits: Tensor, labels: Tensor) -> float:
    """Of the probability of true, of all pictures once."""
    once = np.ones((1, len(labels)), dtype=np.int64)
    return float(weighted(labels.bool().numpy(), logits.sigmoid().numpy(), once)["calibration_error"][0])
