"""What the answers of some models come to: all that `evaluation.json` and the page tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from celebvision.evaluation.figures import Figure, figures
from celebvision.evaluation.groups import Group, groups
from celebvision.evaluation.paired import Paired, compare, corrected
from celebvision.evaluation.predict import IMAGE_ID
from celebvision.job import progress

SHOWN = 40  # mistakes


@dataclass(frozen=True)
class Mistake:
    """A picture that a model answered wrong."""

    image_id: str
    truth: bool
    probability: float  # of true


@dataclass(frozen=True)
class Measured:
    """One model on one target."""

    model: str
    target: str
    truth: NDArray[np.bool_]  # N
    probability: NDArray[np.float32]  # of true, N
    figures: dict[str, Figure]
    groups: list[Group]
    mistakes: list[Mistake]  # the most wrong first, `SHOWN` at most

    @property
    def confusion(self) -> dict[str, int]:
        """Pictures by what is true of them and what the model answers."""
        yes = self.probability > 0.5
        return {
            "true_positives": int((self.truth & yes).sum()),
            "false_negatives": int((self.truth & ~yes).sum()),
            "false_positives": int((~self.truth & yes).sum()),
            "true_negatives": int((~self.truth & ~yes).sum()),
        }


@dataclass(frozen=True)
class Comparison:
    """Two models on one target that both answer."""

    target: str
    first: str
    second: str
    paired: Paired  # its p-value corrected for all comparisons of this evaluation
    p_value_alone: float  # as if it were the only one

    def sentence(self, names: Mapping[str, str]) -> str:
        """In plain words, with the models under these names."""
        return f"{self.target}: {self.paired.sentence(names[self.first], names[self.second])}"

    def to_json(self) -> dict[str, Any]:
        models = {"target": self.target, "first": self.first, "second": self.second}
        return models | asdict(self.paired) | {"p_value_alone": self.p_value_alone, "shown": self.paired.shown}


def measure(
    predictions: Mapping[str, pa.Table], targets: Mapping[str, Sequence[str]], attributes: Sequence[str]
) -> list[Measured]:
    """Figures, groups and mistakes of each model on each of its targets.

    Args:
        predictions: by model, as `predict` gives them.
        targets: by model.
        attributes: that pictures are grouped by.
    """
    pairs = [(model, target) for model in predictions for target in targets[model]]
    found = []
    with progress("figures", len(pairs), "targets") as show:
        for done, (model, target) in enumerate(pairs, start=1):
            table = predictions[model]
            truth, probability = table[target].to_numpy(), table[f"{target}_probability"].to_numpy()
            grouped, wrong = groups(table, target, attributes), mistakes(table, target)
            found.append(Measured(model, target, truth, probability, figures(truth, probability), grouped, wrong))
            show(done)
    return found


def mistakes(predictions: pa.Table, target: str) -> list[Mistake]:
    """Wrong answers, those first that the model was surest of, `SHOWN` at most."""
    truth, probability = predictions[target].to_numpy(), predictions[f"{target}_probability"].to_numpy()
    wrong = np.flatnonzero((probability > 0.5) != truth)
    worst = wrong[np.argsort(-np.abs(probability[wrong] - truth[wrong]), kind="stable")][:SHOWN]
    return [Mistake(predictions[IMAGE_ID][int(at)].as_py(), bool(truth[at]), float(probability[at])) for at in worst]


def comparisons(measured: Sequence[Measured]) -> list[Comparison]:
    """Every two models on every target they share, all on the same pictures; corrected for their number by Holm."""
    pairs = [(one, other) for one, other in combinations(measured, 2) if one.target == other.target]
    alone = [compare(one.truth, one.probability, other.probability) for one, other in pairs]
    return [
        Comparison(one.target, one.model, other.model, paired, single.p_value)
        for (one, other), paired, single in zip(pairs, corrected(alone), alone, strict=True)
    ]
