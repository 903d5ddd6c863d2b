"""The rules by which a challenger is promoted, or the champion kept."""

from typing import Any, Literal

import pytest

from celebvision.retrain.decision import Compared, decide

Shown = Literal["better", "worse", "not shown to differ"]
EVEN: Shown = "not shown to differ"


def on(shown: Shown) -> Compared:
    figures: dict[str, Any] = dict.fromkeys(("difference", "low", "high", "p_value"), 0.0)
    return Compared(
        rows=9, champion={}, challenger={}, challenger_is=shown, sentence=f"{shown}: 5 against 4", **figures
    )


@pytest.mark.parametrize(
    ("frozen", "newest", "if_better", "if_not_worse"),
    [
        ("better", "better", True, True),
        ("better", EVEN, True, True),
        ("better", "worse", True, False),
        (EVEN, "better", True, True),
        (EVEN, EVEN, False, True),
        (EVEN, "worse", False, False),
        ("worse", "better", False, False),
        ("worse", EVEN, False, False),
        ("better", None, True, True),
        (EVEN, None, False, True),
        ("worse", None, False, False),
    ],
)
def test_rules(frozen: Shown, newest: Shown | None, if_better: bool, if_not_worse: bool) -> None:
    sides = on(frozen), on(newest) if newest else None
    promoted, why = decide("better", *sides)
    assert promoted is if_better
    assert f"on the base's test split, {frozen}: 5 against 4" in why
    assert ("on the newest data, " in why) is (newest is not None)
    assert decide("not_worse", *sides)[0] is if_not_worse


def test_the_reason_names_where_it_was_shown() -> None:
    assert decide("better", on(EVEN), on("better"))[1].startswith("the challenger is better on the newest data: ")
    assert decide("better", on("worse"), on("better"))[1].startswith("the challenger is worse on the base's test split")
    assert decide("better", on(EVEN), on(EVEN))[1].startswith("the challenger is not shown better: ")
    assert decide("not_worse", on(EVEN), on("worse"))[1].startswith("the challenger is worse on the newest data: ")
