"""Pictures as they are drawn and written: whole, upright, and in the format that was asked for."""

import io

import numpy as np
import pytest
from pictures import FACE, apart, encoded, exif, half_clear, pixels_of
from PIL import Image, ImageOps

from celebvision.images import Format, UndecodableImage, decode_whole, encode


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_the_whole_picture_is_upright_and_as_large_as_it_was(kind: str, orientation: int) -> None:
    data = encoded(FACE, kind, exif=exif(orientation))
    with Image.open(io.BytesIO(data)) as stored:
        upright = pixels_of(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(decode_whole(data), upright)
    small = decode_whole(data, 89)
    assert small.shape == ((109, 89, 3) if orientation < 5 else (89, 109, 3))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "four inks"])
@pytest.mark.parametrize(
    ("stored", "size", "sides"),
    [
        ((178, 218), 89, (109, 89)),
        ((178, 218), 100, (122, 100)),
        ((218, 178), 300, (300, 367)),
        ((1, 1), 7, (7, 7)),
        ((1, 50), 3, (150, 3)),
        ((333, 77), 76, (76, 329)),
        ((5, 3), None, (3, 5)),
    ],
)
def test_the_shorter_side_is_the_size_and_the_shape_stays(
    kind: str, stored: tuple[int, int], size: int | None, sides: tuple[int, int]
) -> None:
    image = FACE.resize(stored)
    data = encoded(image.convert("CMYK")) if kind == "four inks" else encoded(image, kind)
    pixels = decode_whole(data, size)
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((*sides, 3), np.uint8, True)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_shrinks_to_what_it_shows(kind: str) -> None:
    large = FACE.resize((1424, 1744), Image.Resampling.BICUBIC)
    assert apart(decode_whole(encoded(large, kind), 89), pixels_of(large.resize((89, 109), Image.Resampling.BOX))) < 3


def test_sixteen_bits_and_palettes_are_whole_as_well() -> None:
    grey = np.linspace(0, 65535, 30).astype(np.uint16).reshape(5, 6)
    np.testing.assert_array_equal(decode_whole(encoded(Image.fromarray(grey), "PNG"))[..., 0], grey >> 8)
    palette = FACE.convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(decode_whole(encoded(palette, "PNG")), pixels_of(palette))
    assert decode_whole(half_clear("RGBA"))[10, 15].tolist() == [255, 255, 255]


def test_a_thin_picture_is_not_enlarged_beyond_the_bound() -> None:
    thin = encoded(Image.new("L", (1, 4000)), "PNG")
    assert decode_whole(thin, max_pixels=4000).shape == (4000, 1, 3)
    with pytest.raises(UndecodableImage, match="too large: 10×40000 pixels, at most 4000"):
        decode_whole(thin, 10, max_pixels=4000)


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("sides", [(1, 1), (3, 200), (218, 178)])
def test_what_is_encoded_is_the_picture_in_that_format_without_more(form: Format, sides: tuple[int, int]) -> None:
    pixels = np.asarray(FACE.resize(sides[::-1]))
    data = encode(pixels, form)
    assert data == encode(pixels.copy(), form)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode) == (form.upper(), "RGB")
        assert not {"exif", "icc_profile"} & set(image.info)
    assert apart(decode_whole(data), pixels) <= (0 if form == "png" else 8)


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_quality_is_paid_in_bytes(form: Format) -> None:
    pixels = np.asarray(FACE)
    assert len(encode(pixels, form, 30)) < len(encode(pixels, form, 90)) < len(encode(pixels, form, 100))


@pytest.mark.parametrize(("form", "longest"), [("jpeg", 65_500), ("webp", 16_383)])
def test_a_side_that_the_format_cannot_hold_is_told(form: Format, longest: int) -> None:
    assert decode_whole(encode(np.zeros((1, longest, 3), np.uint8), form)).shape == (1, longest, 3)
    with pytest.raises(ValueError, match=f"{longest + 1}×1 pixels; no side of a {form} is longer than {longest}"):
        encode(np.zeros((1, longest + 1, 3), np.uint8), form)
