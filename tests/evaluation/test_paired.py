"""The paired comparison: exact where a textbook is, sure where it should be, and plain in its words."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from celebvision.evaluation.paired import Paired, compare, corrected

Answers = tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]


def answers(first_only: int, second_only: int, count: int = 1_000) -> Answers:
    """Pictures that are all true; both models are right but for these."""
    first, second = np.full(count, 0.9, np.float32), np.full(count, 0.8, np.float32)
    second[:first_only] = 0.1
    first[count - second_only :] = 0.5  # not more than a half: no
    return np.ones(count, bool), first, second


@pytest.mark.parametrize(("one", "other"), [(0, 0), (0, 1), (3, 12), (12, 3), (5, 5), (70, 41)])
def test_the_p_value_is_that_of_the_exact_binomial_test(one: int, other: int) -> None:
    count, least = one + other, min(one, other)
    exact = min(1.0, 2 * sum(math.comb(count, k) for k in range(least + 1)) / 2**count)
    found = compare(*answers(one, other))
    assert (found.first_only, found.second_only) == (one, other)
    assert found.p_value == pytest.approx(exact, rel=1e-9)


def test_thousands_of_pictures_are_no_trouble() -> None:
    assert compare(*answers(3_000, 3_000, 20_000)).p_value == pytest.approx(1.0)
    assert compare(*answers(1_000, 9_000, 20_000)).p_value == pytest.approx(0, abs=1e-300)


def test_the_interval_is_of_pairs_and_the_same_for_a_seed() -> None:
    truth, first, second = answers(10, 40)
    found = compare(truth, first, second, seed=3)
    assert found == compare(truth, first, second, seed=3)
    assert found.difference == pytest.approx(0.03)
    half = 1.96 * math.sqrt(0.05 - 0.03**2) / math.sqrt(1_000)  # of a mean of 1, -1 and 0
    assert found.low == pytest.approx(0.03 - half, abs=0.1 * half)
    assert found.high == pytest.approx(0.03 + half, abs=0.1 * half)


def test_the_sentence_names_the_better_one_first_whichever_it_is() -> None:
    words = "b is more often right than a: 12 against 3 pictures that only one gets right (McNemar p 0.035; accuracy "
    assert compare(*answers(3, 12)).sentence("a", "b").startswith(words + "+0.9 points, 95 % +0.")
    assert compare(*answers(12, 3)).sentence("b", "a").startswith(words + "+0.9 points, 95 % +0.")


def test_what_may_be_chance_is_called_no_difference() -> None:
    found = compare(*answers(5, 6))
    assert not found.shown
    assert found.sentence("a", "b").startswith("no difference shown between b and a: 6 against 5 pictures")
    same = compare(*answers(0, 0))
    assert (same.p_value, same.low, same.high, same.shown) == (1.0, 0.0, 0.0, False)
    assert "accuracy +0.0 points, 95 % +0.0 to +0.0" in same.sentence("a", "b")


def test_comparisons_made_at_once_are_corrected_by_holm_and_say_so() -> None:
    pairs = [Paired(0.0, 0.0, 0.0, 1, 2, p) for p in (0.04, 0.01, 0.03, 0.9)]
    found = corrected(pairs)
    assert [one.p_value for one in found] == pytest.approx([0.09, 0.04, 0.09, 0.9])
    assert [one.shown for one in found] == [False, True, False, False]
    assert "McNemar p 0.04, by Holm for 4 comparisons" in found[1].sentence("a", "b")
    assert corrected([]) == []


def test_answers_of_other_pictures_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"shapes \(3,\), \(3,\), \(2,\)"):
        compare(np.ones(3, bool), np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="N at least 1"):
        compare(np.ones(0, bool), np.ones(0), np.ones(0))
