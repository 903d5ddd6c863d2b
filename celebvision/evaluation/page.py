"""An evaluation as one page that needs nothing but a browser: sentences first, then tables and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from celebvision.evaluation.measure import Comparison, Measured
from celebvision.page import Picture, page, percent

WORST = 12  # groups of a table
LISTED = 100  # pictures that could not be read


@dataclass(frozen=True)
class Evaluation:
    """What the page tells."""

    data: str
    split: str | None
    pictures: int
    measured: Sequence[Measured]
    comparisons: Sequence[Comparison]
    failures: Mapping[str, str]  # by picture, why it has no answer

    @property
    def names(self) -> dict[str, str]:
        """What each model is called, by NAME@VERSION: its name, where no other has it."""
        titles = list(dict.fromkeys(one.model for one in self.measured))
        short = [title.partition("@")[0] for title in titles]
        return {title: name if short.count(name) == 1 else title for title, name in zip(titles, short, strict=True)}

    @property
    def targets(self) -> dict[str, list[Measured]]:
        """What was measured, by target."""
        found: dict[str, list[Measured]] = {}
        for one in self.measured:
            found.setdefault(one.target, []).append(one)
        return found

    @property
    def sentences(self) -> list[str]:
        """What there is to say before any table: which model is better, then how good, and about whom each errs."""
        return [one.sentence(self.names) for one in self.comparisons] + [
            sentence for one in self.measured for sentence in _sentences(one, self.names[one.model])
        ]


def page_of(evaluation: Evaluation, pictures: Sequence[Picture]) -> str:
    """The page as HTML; `pictures` in the order in which they are worth their room."""
    words = {name: getattr(evaluation, name) for name in ("data", "split", "failures")}
    derived = {name: getattr(evaluation, name) for name in ("names", "targets", "sentences")}
    title = f"Evaluation of {', '.join(evaluation.names.values())}"
    return page(
        "evaluation.html", title, pictures, images=evaluation.pictures, **words, **derived, worst=WORST, listed=LISTED
    )


def _sentences(one: Measured, name: str) -> Iterator[str]:
    accuracy = one.figures["accuracy"]
    within = "" if accuracy.low is None else f" (95 %: {percent(accuracy.low)} to {percent(accuracy.high)})"
    yield f"{one.target}: {name} is right on {percent(accuracy.value)} of the pictures{within}"
    if one.groups and not (worst := one.groups[0]).too_few and worst.errors:
        side = "" if worst.side else "not "
        proxy = f" (a proxy of {worst.proxy})" if worst.proxy else ""
        yield (
            f"{one.target}: {name} errs most where pictures are {side}{worst.attribute}{proxy}: on "
            f"{worst.errors} of {worst.pictures}"
        )
