"""Pictures with a line below each, laid out as one: what people look at instead of a table."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

TILE = 128  # pixels of a picture's longer side
LINE = 16  # pixels of the text below
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
