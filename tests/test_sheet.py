"""The contact sheet holds a tile for every picture, whatever the picture is."""

import io

from PIL import Image

from celebvision.sheet import GREY, LINE, TILE, boxes, contact_sheet, histograms


def colour(rgb: tuple[int, int, int]) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (40, 80), rgb).save(content, "PNG")
    return content.getvalue()


def test_every_picture_has_its_tile_and_a_broken_one_is_grey() -> None:
    tiles = [(colour((255, 0, 0)), "a"), (b"", "b"), (colour((0, 0, 255)), "c")]
    sheet = Image.open(io.BytesIO(contact_sheet(tiles, columns=2)))
    assert sheet.size == (2 * TILE, 2 * (TILE + LINE))
    middle = TILE // 2
    assert sheet.getpixel((middle, middle)) == (255, 0, 0)
    assert sheet.getpixel((TILE + middle, middle)) == GREY
    assert sheet.getpixel((middle, TILE + LINE + middle)) == (0, 0, 255)


def test_numbers_are_plotted_side_by_side_and_always_alike() -> None:
    one = histograms({"content_loss": [0.1, 0.2, 0.2]})
    both = histograms({"content_loss": [0.1, 0.2, 0.2], "style_loss": [1.0, 2.0, 3.0]})
    assert Image.open(io.BytesIO(both)).width == 2 * Image.open(io.BytesIO(one)).width
    assert one == histograms({"content_loss": [0.1, 0.2, 0.2]})
    few, more = ({"lpips": {name: [0.1, 0.2] for name in names}} for names in ("ab", "abcd"))
    assert Image.open(io.BytesIO(boxes(more))).height > Image.open(io.BytesIO(boxes(few))).height
