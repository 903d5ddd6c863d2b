"""Pages that need nothing but a browser: one file, no script, nothing fetched, and what others have named escaped."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from celebvision.logs import printable

LONGEST = 4000  # characters of a line
MAX_BYTES = 5_000_000  # of a page; pictures that would make it larger are left out


@dataclass(frozen=True)
class Picture:
    """A picture of the page, made when there is room for it."""

    name: str
    kind: str  # png or jpeg
    make: Callable[[], bytes]


def page(template: str, title: str, pictures: Sequence[Picture], **words: Any) -> str:
    """The page as HTML.

    Args:
        template: of `celebvision/templates`, which shows a picture by `show(name)`.
        title: of the page.
        pictures: in the order in which they are worth their room.
        words: what else the template speaks of.
    """
    bare = _render(template, {}, {"title": title, **words})
    room = MAX_BYTES - len(bare.encode())
    shown: dict[str, str] = {}
    for picture in pictures:
        source = f"data:image/{picture.kind};base64,{base64.b64encode(picture.make()).decode()}"
        if len(source) + 2 * len(picture.name) + 64 > room:
            break
        shown[picture.name] = source
        room -= len(source) + 2 * len(picture.name) + 64
    return _render(template, shown, {"title": title, **words})


def percent(share: float | None) -> str:
    """Empty where there is none."""
    return "" if share is None else f"{100 * share:.1f} %"


def _shown(words: object) -> str:
    """What others have named, or said in several lines, without letters that hide or turn what stands beside them."""
    return "\n".join(printable(line, LONGEST) for line in str(words).split("\n"))


def _render(template: str, shown: Mapping[str, str], words: Mapping[str, Any]) -> str:
    def show(name: str) -> Markup:
        if name not in shown:
            return Markup('<p class="note">The {} would make this page too large.</p>').format(name)
        return Markup('<img alt="{}" src="{}">').format(name, shown[name])

    environment = Environment(
        loader=PackageLoader("celebvision", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["shown"] = _shown
    return environment.get_template(template).render(**words, show=show, percent=percent)
