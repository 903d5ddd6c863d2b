"""An evaluation as one page that needs nothing but a browser: sentences first, then tables and pictures."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from celebvision.evaluation.measure import Comparison, Measured

MAX_BYTES = 5_000_000  # of a page; pictures that would make it larger are left out
WORST = 12  # groups of a table
LISTED = 100  # pictures that could not be read


@dataclass(frozen=True)
class Picture:
    """A picture of the page, made when there is room for it."""

    name: str
    kind: str  # png or jpeg
    make: Callable[[], bytes]


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


def page(evaluation: Evaluation, pictures: Sequence[Picture]) -> str:
    """The page as HTML; `pictures` in the order in which they are worth their room."""
    bare = _render(evaluation, {})
    room = MAX_BYTES - len(bare.encode())
    shown: dict[str, str] = {}
    for picture in pictures:
        source = f"data:image/{picture.kind};base64,{base64.b64encode(picture.make()).decode()}"
        if len(source) + 2 * len(picture.name) + 64 > room:
            break
        shown[picture.name] = source
        room -= len(source) + 2 * len(picture.name) + 64
    return _render(evaluation, shown)


def percent(share: float | None) -> str:
    """Empty where there is none."""
    return "" if share is None else f"{100 * share:.1f} %"


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


def _render(evaluation: Evaluation, shown: Mapping[str, str]) -> str:
    def show(name: str) -> Markup:
        if name not in shown:
            return Markup('<p class="note">The {} would make this page too large.</p>').format(name)
        return Markup('<img alt="{}" src="{}">').format(name, shown[name])

    environment = Environment(
        loader=PackageLoader("celebvision", "evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    words = {name: getattr(evaluation, name) for name in ("data", "split", "pictures", "failures")}
    derived = {name: getattr(evaluation, name) for name in ("names", "targets", "sentences")}
    template = environment.get_template("page.html")
    return template.render(**words, **derived, show=show, percent=percent, worst=WORST, listed=LISTED)
