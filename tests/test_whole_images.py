"""Pictures as they are drawn and written: whole, upright, and in the format that was asked for."""

import io

import numpy as np
import pytest
from colour_profiles import LIGHTER, SWAPPED, inks
from pictures import FACE, apart, encoded, exif, half_clear, pixels_of
from PIL import Image, ImageCms, ImageOps

from celebvision.images import Format, UndecodableImage, decode_whole, encode


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_taken_in_the_colours_of_its_profile(kind: str) -> None:
    words = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    swapped = Image.fromarray(np.asarray(FACE)[..., ::-1])
    assert apart(decode_whole(encoded(swapped, kind, icc_profile=SWAPPED, **words)), FACE) < 5
    assert apart(decode_whole(encoded(FACE, kind, **words)), FACE) < 5
    turned = encoded(swapped, kind, icc_profile=SWAPPED, exif=exif(6), **words)
    assert apart(decode_whole(turned), np.rot90(pixels_of(FACE), -1)) < 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_profile_of_greys_holds_for_greys_alone(kind: str) -> None:
    grey = Image.new("L", (8, 8), 55)  # in linear light; sRGB's 128
    assert apart(decode_whole(encoded(grey, kind, icc_profile=LIGHTER)), np.full((8, 8, 3), 128)) <= 1
    assert apart(decode_whole(encoded(FACE, kind, icc_profile=LIGHTER)), FACE) < 6


def test_four_inks_are_mixed_as_their_profile_says() -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    for kind in ("JPEG", "TIFF"):
        red, green, blue = decode_whole(encoded(cyan, kind, icc_profile=inks()))[4, 4].tolist()
        assert red > 180 > 80 > max(green, blue)
        assert decode_whole(encoded(cyan, kind))[4, 4, 0] < 80  # without one, cyan
        assert decode_whole(encoded(cyan, kind, icc_profile=SWAPPED))[4, 4, 0] < 80


def test_what_is_transparent_keeps_its_white_whatever_the_profile() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 255, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 4, 8))
    pixels = decode_whole(encoded(clear, "PNG", icc_profile=SWAPPED))
    assert apart(pixels[:, :4], np.full((8, 4, 3), (255, 0, 0))) < 3
    assert apart(pixels[:, 4:], np.full((8, 4, 3), 255)) <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("broken", [b"no profile", SWAPPED[:100], SWAPPED[:-60], SWAPPED[:140] + b"\xff" * 99, inks()])
def test_a_broken_or_foreign_profile_does_not_cost_the_picture(kind: str, broken: bytes) -> None:
    assert apart(decode_whole(encoded(FACE, kind, icc_profile=broken)), FACE) < 6


def test_the_usual_profile_changes_nothing() -> None:
    usual = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(decode_whole(encoded(FACE, icc_profile=usual)), decode_whole(encoded(FACE)))


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


# --- and back


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
