"""Many pictures or numbers laid out as one picture: what people look at instead of a table."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TILE = 128  # pixels of a picture's longer side
LINE = 16  # pixels of the text below
Numbers = Sequence[float] | NDArray[np.floating]

INK, PAPER, GREY = (32, 32, 32), (255, 255, 255), (225, 225, 225)


def contact_sheet(tiles: Sequence[tuple[bytes, str]], columns: int = 10) -> bytes:
    """A PNG of these pictures, each with its words; a picture that cannot be shown is a grey tile."""
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * TILE, rows * (TILE + LINE)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for number, (data, words) in enumerate(tiles):
        left, top = number % columns * TILE, number // columns * (TILE + LINE)
        sheet.paste(_tile(data), (left, top))
        draw.text((left + TILE / 2, top + TILE + LINE / 2), words, INK, font, anchor="mm")
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    return content.getvalue()


def _tile(data: bytes) -> Image.Image:
    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    except OSError:
        return Image.new("RGB", (TILE - 4, TILE - 4), GREY)
    return ImageOps.pad(image, (TILE - 4, TILE - 4), color=PAPER)


def histograms(columns: Mapping[str, Numbers]) -> bytes:
    """A PNG with a histogram for each column of numbers, and a line at its median."""
    figure = _figure(4.5 * len(columns), 3.2)
    for (name, values), axes in zip(columns.items(), np.atleast_1d(figure.subplots(1, len(columns))), strict=True):
        median = float(np.median(np.asarray(values)))
        axes.hist(values, bins=min(40, max(5, len(values) // 4)), color="#4c72b0")
        axes.axvline(median, color="#333333", linestyle="--", label=f"median {median:.3g}")
        axes.set(xlabel=name.replace("_", " "), ylabel="pictures")
        axes.legend()
    return png(figure)


def boxes(groups: Mapping[str, Mapping[str, Numbers]]) -> bytes:
    """A PNG with a box plot for each group of columns, a box a column: how numbers of the same kind compare."""
    tallest = max(len(columns) for columns in groups.values())
    figure = _figure(5.5 * len(groups), 1.2 + 0.5 * tallest)
    for (name, columns), axes in zip(groups.items(), np.atleast_1d(figure.subplots(1, len(groups))), strict=True):
        axes.boxplot(list(columns.values())[::-1], orientation="horizontal", tick_labels=list(columns)[::-1])
        axes.set(xlabel=name.replace("_", " "))
    return png(figure)


def png(figure: Figure) -> bytes:
    """A figure as a PNG, the same bytes each time."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100, metadata={"Software": None})
    return content.getvalue()


def _figure(width: float, height: float) -> Figure:
    """So large in inches. Most jobs draw none, and each begins half a second of CPU earlier without what it needs."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
