"""Error rates by attribute: counted right, worst first, and silent where there are too few to say."""

import numpy as np
import pyarrow as pa
import pytest

from celebvision.evaluation.groups import LEAST, groups, wilson


@pytest.fixture(scope="module")
def predictions() -> pa.Table:
    """100 pictures; wrong about 10 of the first 40, which are pale, and about 3 of the others."""
    number = np.arange(100)
    wrong = (number < 10) | (number >= 97)
    return pa.table(
        {
            "Male": number % 2 == 0,
            "Male_probability": np.where((number % 2 == 0) ^ wrong, 0.9, 0.1).astype(np.float32),
            "Pale_Skin": number < 40,
            "Blurry": number >= 100 - LEAST + 1,
            "Bald": np.zeros(100, bool),
        }
    )


def test_both_sides_of_every_other_attribute_are_counted_worst_first(predictions: pa.Table) -> None:
    found = groups(predictions, "Male", ["Male", "Bald", "Blurry", "Pale_Skin"])
    counted = [(group.attribute, group.side, group.errors, group.pictures) for group in found]
    assert counted == [
        ("Pale_Skin", True, 10, 40),
        ("Bald", False, 13, 100),
        ("Blurry", False, 10, 81),
        ("Pale_Skin", False, 3, 60),
        ("Blurry", True, 3, 19),
        ("Bald", True, 0, 0),
    ]
    assert [group.too_few for group in found] == [False] * 4 + [True] * 2


def test_a_proxy_is_called_one_and_an_empty_group_has_no_rate(predictions: pa.Table) -> None:
    by_group = {(group.attribute, group.side): group for group in groups(predictions, "Male", ["Bald", "Pale_Skin"])}
    assert by_group["Pale_Skin", True].proxy == "skin tone"
    empty = by_group["Bald", True]
    assert (empty.error_rate, empty.low, empty.high) == (None, None, None)


def test_the_interval_is_wilsons() -> None:
    assert wilson(10, 40) == pytest.approx((0.14187, 0.40194), abs=1e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.16113), abs=1e-5)
    assert wilson(20, 20) == pytest.approx((0.83887, 1.0), abs=1e-5)
