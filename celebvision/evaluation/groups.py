"""Whom a model errs about: its error rate among the pictures of each side of every other attribute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

LEAST = 20  # pictures; fewer are too few to say
Z = 1.959964  # of a 95 % interval

# What an attribute may stand for: somebody marked it by looking at a picture, and nobody was asked about themself.
PROXIES = {
    "Pale_Skin": "skin tone",
    "Big_Lips": "ethnicity",
    "Big_Nose": "ethnicity",
    "Narrow_Eyes": "ethnicity",
    "Black_Hair": "ethnicity",
    "Blond_Hair": "skin tone",
    "Male": "gender",
    "Heavy_Makeup": "gender",
    "Wearing_Lipstick": "gender",
    "Wearing_Earrings": "gender",
    "Young": "age",
    "Gray_Hair": "age",
    "Bald": "age",
    "Receding_Hairline": "age",
    "Chubby": "weight",
    "Double_Chin": "weight",
}


@dataclass(frozen=True)
class Group:
    """The pictures of one side of an attribute."""

    attribute: str
    side: bool
    pictures: int
    errors: int
    error_rate: float | None  # None where there is no picture, and so for the two below
    low: float | None  # of its 95 % interval (Wilson 1927)
    high: float | None
    too_few: bool  # to say how often the model errs
    proxy: str | None  # what the attribute may stand for


def groups(predictions: pa.Table, target: str, attributes: Sequence[str]) -> list[Group]:
    """Both sides of every attribute but the target's own: the worst first, those with too few pictures last.

    Args:
        predictions: as `predict` gives them, with a column for each of `attributes`.
    """
    wrong = pc.xor(pc.greater(predictions[f"{target}_probability"], 0.5), predictions[target])
    found = []
    for attribute in attributes:
        if attribute == target:
            continue
        for side in (True, False):
            errors = wrong.filter(pc.equal(predictions[attribute], side))
            found.append(_group(attribute, side, len(errors), pc.sum(errors).as_py() or 0))
    return sorted(found, key=lambda group: (group.too_few, -(group.error_rate or 0), group.attribute, group.side))


def wilson(errors: int, pictures: int) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson 1927), which holds for few pictures and rates near 0 too."""
    rate, spread = errors / pictures, Z**2 / pictures
    middle = (rate + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(rate * (1 - rate) / pictures + spread / (4 * pictures))
    return max(0.0, middle - half), min(1.0, middle + half)


def _group(attribute: str, side: bool, pictures: int, errors: int) -> Group:
    rate = errors / pictures if pictures else None
    low, high = wilson(errors, pictures) if pictures else (None, None)
    return Group(attribute, side, pictures, errors, rate, low, high, pictures < LEAST, PROXIES.get(attribute))
