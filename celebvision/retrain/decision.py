"""Champion against challenger: their answers to the same pictures, and which of the two is to be in production."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from celebvision.celeba.shards import DataSet
from celebvision.evaluation.paired import compare
from celebvision.evaluation.predict import predict
from celebvision.registry import ModelVersion

SPLIT = "test"
BATCH = 128  # images a forward pass
FROZEN = "the base's test split"
NEWEST = "the newest data"


@dataclass(frozen=True)
class Compared:
    """How often both were right on the same pictures, and whether that shows one to be the better."""

    rows: int
    champion: dict[str, float]  # accuracy by target
    challenger: dict[str, float]
    difference: float  # challenger's accuracy minus the champion's, over the answers to all targets together
    low: float  # of its 95 % interval
    high: float
    p_value: float
    challenger_is: Literal["better", "worse", "not shown to differ"]
    sentence: str


def compared(
    uri: str, data: DataSet, registry: str, champion: ModelVersion, challenger: ModelVersion
) -> Compared | None:
    """Ask both for the test rows of `data`, whose shards lie under `uri`; None: it has none.

    Raises:
        JobFailed, RegistryError, StorageError: rows or weights cannot be had.
    """
    if not data.rows(SPLIT):
        return None
    targets = champion.targets
    first, second = (predict(uri, data, SPLIT, registry, model, BATCH) for model in (champion, challenger))
    mine, others = (_pooled(table, targets, "_probability") for table in (first, second))
    paired = compare(_pooled(first, targets), mine, others)
    return Compared(
        rows=len(first),
        champion=_accuracies(first, targets),
        challenger=_accuracies(second, targets),
        difference=paired.difference,
        low=paired.low,
        high=paired.high,
        p_value=paired.p_value,
        challenger_is=("better" if paired.difference > 0 else "worse") if paired.shown else "not shown to differ",
        sentence=paired.sentence("the champion", "the challenger"),
    )


def _pooled(predictions: pa.Table, targets: list[str], ending: str = "") -> NDArray[Any]:
    """A column of each target, one behind the other."""
    return np.concatenate([predictions[target + ending].to_numpy() for target in targets])


def _accuracies(predictions: pa.Table, targets: list[str]) -> dict[str, float]:
    answers = {target: predictions[f"{target}_probability"].to_numpy() > 0.5 for target in targets}
    return {target: float((answers[target] == predictions[target].to_numpy()).mean()) for target in targets}


def decide(rule: Literal["better", "not_worse"], frozen: Compared, newest: Compared | None) -> tuple[bool, str]:
    """Whether the challenger is to be promoted, and why, in a sentence. `newest` is None where no row is new."""
    on = {FROZEN: frozen} | ({NEWEST: newest} if newest else {})
    facts = "; ".join(f"on {where}, {both.sentence}" for where, both in on.items())
    better = [where for where, both in on.items() if both.challenger_is == "better"]
    worse = [where for where, both in on.items() if both.challenger_is == "worse"]
    if rule == "not_worse":
        if worse:
            return False, f"the challenger is worse on {' and '.join(worse)}: {facts}"
        return True, f"the challenger is not shown worse: {facts}"
    if FROZEN in better or (NEWEST in better and FROZEN not in worse):
        return True, f"the challenger is better on {' and '.join(better)}: {facts}"
    if FROZEN in worse:
        return False, f"the challenger is worse on {FROZEN}: {facts}"
    return False, f"the challenger is not shown better: {facts}"
