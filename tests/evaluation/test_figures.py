"""Figures and their intervals: equal to torchmetrics', honest where there is none, and wide enough."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from celebvision.evaluation.figures import METRICS, Figure, figures
from celebvision.evaluation.resampling import resampled, weighted

Answers = tuple[NDArray[np.bool_], NDArray[np.float32]]


def answers(count: int, seed: int, levels: int | None = None) -> Answers:
    """A classifier that is right more often than not; with `levels`, many of its probabilities are equal."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    probability = np.clip(0.5 + 0.2 * (truth - 0.5) + 0.25 * rng.standard_normal(count), 0, 1)
    if levels:
        probability = np.round(probability * levels) / levels
    return truth, probability.astype(np.float32)


def by_torchmetrics(truth: NDArray[np.bool_], probability: NDArray[np.float32]) -> dict[str, float]:
    found, labels = torch.from_numpy(probability), torch.from_numpy(truth).int()
    return {name: float(metric(found, labels)) for name, metric in METRICS.items()}


@pytest.mark.parametrize("levels", [None, 15, 4, 1], ids=lambda levels: f"levels-{levels}")
def test_figures_of_a_resample_are_torchmetrics_own_even_where_probabilities_are_equal(levels: int | None) -> None:
    truth, probability = answers(300, 1, levels)
    times = np.random.default_rng(2).multinomial(300, np.full(300, 1 / 300), 3)
    found = weighted(truth, probability, np.vstack([np.ones(300, int), times]))
    for row, drawn in enumerate([np.arange(300), *(np.repeat(np.arange(300), one) for one in times)]):
        expected = by_torchmetrics(truth[drawn], probability[drawn])
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, abs=2e-6), name


def test_resamples_are_drawn_in_steps_and_alike_for_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, probability = answers(50, 3)
    whole = resampled(truth, probability, 20, seed=4)
    monkeypatch.setattr("celebvision.evaluation.resampling.HELD", 300)
    parts = resampled(truth, probability, 20, seed=4)
    other = resampled(truth, probability, 20, seed=5)
    for name, values in whole.items():
        np.testing.assert_allclose(values, parts[name], rtol=1e-12)
    assert (whole["brier"] != other["brier"]).any()


def test_the_interval_of_an_accuracy_is_as_wide_as_theory_has_it() -> None:
    truth, probability = answers(1_000, 6)
    found = figures(truth, probability)["accuracy"]
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    half = 1.96 * math.sqrt(found.value * (1 - found.value) / 1_000)
    assert found.low == pytest.approx(found.value - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.1 * half)


def test_every_value_lies_in_its_interval() -> None:
    for name, figure in figures(*answers(400, 7)).items():
        if name != "calibration_error":  # chance alone makes it larger: the resamples' lie above it
            assert figure.low <= figure.value <= figure.high, name  # type: ignore[operator]


@pytest.mark.parametrize(
    ("truth", "probability", "missing"),
    [
        ([True] * 4, [0.9, 0.8, 0.2, 0.6], {"balanced_accuracy", "roc_auc", "average_precision"}),
        ([False] * 4, [0.9, 0.8, 0.2, 0.6], {"balanced_accuracy", "roc_auc", "average_precision", "recall"}),
        ([False] * 3, [0.1] * 3, {"balanced_accuracy", "roc_auc", "average_precision", "recall", "precision", "f1"}),
        ([True], [1.0], {"balanced_accuracy", "roc_auc", "average_precision"}),
        ([True, False], [0.1, 0.1], {"precision"}),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_a_split_cannot_tell_is_none_with_a_reason(
    truth: list[bool], probability: list[float], missing: set[str]
) -> None:
    found = figures(np.array(truth), np.array(probability, np.float32))
    assert {name for name, figure in found.items() if figure.value is None} == missing
    for figure in found.values():
        assert (figure.low is None) == (figure.high is None) == bool(figure.why)
        assert all(value is None or math.isfinite(value) for key, value in asdict(figure).items() if key != "why")


def test_a_figure_that_few_resamples_have_gets_no_interval() -> None:
    truth = np.arange(100) < 1  # one picture in a hundred: every third resample holds it not at all
    found = figures(truth, np.linspace(1, 0, 100, dtype=np.float32))
    assert found["recall"] == Figure(1.0, why="too few pictures of one side")
    assert found["accuracy"].low is not None
    assert found["recall"].text == "1.0000 (no interval: too few pictures of one side)"
