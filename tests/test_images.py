"""What decoding promises: every kind of picture comes out as upright RGB of the size asked for, or with its reason."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import simplejpeg
from colour_profiles import SWAPPED
from numpy.typing import NDArray
from pictures import FACE, JPEG, PNG, apart, encoded, exif, half_clear, pixels_of
from PIL import Image, ImageOps

from celebvision import images
from celebvision.images import UndecodableImage, check, decode, decode_whole

BROKEN_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x05" + b"\xff" * 20
HEIGHT, WIDTH = 218, 178


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header announces this many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_that_claims(width: int, height: int) -> bytes:
    data = bytearray(encoded(FACE))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def damaged(data: bytes) -> bytes:
    """The JPEG with a stretch of its scan overwritten by what no Huffman code begins with."""
    middle = len(data) // 2
    return data[:middle] + b"\xff\x00" * 20 + data[middle + 40 :]


# --- what size, and what part


def test_a_celeba_picture_at_half_size_is_libjpegs_half_scale_and_nothing_else() -> None:
    half = simplejpeg.decode_jpeg(JPEG, "RGB", min_height=109, min_width=89)
    assert half.shape == (109, 89, 3)
    np.testing.assert_array_equal(decode(JPEG, 109, 89), half)


def test_a_celeba_picture_at_its_own_size_is_what_is_stored() -> None:
    np.testing.assert_array_equal(decode(JPEG, HEIGHT, WIDTH), simplejpeg.decode_jpeg(JPEG, "RGB"))
    np.testing.assert_array_equal(decode(PNG, HEIGHT, WIDTH), pixels_of(FACE))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(109, 89), (299, 299), (1, 1), (64, 200), (200, 64), (500, 3)])
def test_the_size_asked_for_is_the_size_that_comes_out(kind: str, size: tuple[int, int]) -> None:
    pixels = decode(encoded(FACE, kind), *size)
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((*size, 3), np.uint8, True)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("turned", [False, True])
def test_what_stands_over_is_cut_off_evenly_at_both_sides(kind: str, turned: bool) -> None:
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = (10, 200, 10)
    wide[:, 200:] = (200, 10, 10)
    image = Image.fromarray(wide.swapaxes(0, 1) if turned else wide)
    pixels = decode(encoded(image, kind, quality=95), 50, 50)
    assert apart(pixels[2:-2, 2:-2], np.full((46, 46, 3), (10, 200, 10))) < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (7, 5)])
def test_small_and_thin_pictures_are_spread_to_the_size(kind: str, size: tuple[int, int]) -> None:
    pixels = decode(encoded(Image.new("RGB", size, (200, 30, 60)), kind, quality=95), 109, 89)
    assert pixels.shape == (109, 89, 3)
    assert apart(pixels, np.full((109, 89, 3), (200, 30, 60))) < 3


def test_a_large_jpeg_shrinks_to_the_same_picture_as_through_pillow() -> None:
    large = FACE.resize((1424, 1744), Image.Resampling.BICUBIC)
    assert apart(decode(encoded(large), 109, 89), pixels_of(large.resize((89, 109), Image.Resampling.BOX))) < 3


def test_the_scale_is_not_taken_too_large_because_of_how_floats_round(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = simplejpeg.decode_jpeg

    def decode_jpeg(data: bytes, colours: str, **words: int) -> NDArray[np.uint8]:
        asked.append((words["min_height"], words["min_width"]))
        return real(data, colours, **words)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode_jpeg)
    decode(encoded(Image.new("RGB", (22, 218))), 109, 89)  # in floats, 22 * (89 / 22) is more than 89
    assert asked == [(882, 89)]


# --- how the camera was held


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_comes_out_upright_however_the_camera_was_held(kind: str, orientation: int) -> None:
    words = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(FACE, kind, exif=exif(orientation), **words)
    with Image.open(io.BytesIO(data)) as stored:
        upright = ImageOps.exif_transpose(stored).convert("RGB")
    assert upright.size == (WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH)
    assert apart(decode(data, upright.height, upright.width), upright) < 0.5
    small = upright.resize((upright.width // 2, upright.height // 2), Image.Resampling.BOX)
    assert apart(decode(data, small.height, small.width), small) < 2


def test_a_turned_jpeg_is_also_decoded_at_libjpegs_own_scale() -> None:
    stored = FACE.transpose(Image.Transpose.ROTATE_90)
    plain, turned = encoded(stored), encoded(stored, exif=exif(6))
    half = simplejpeg.decode_jpeg(plain, "RGB", min_height=89, min_width=109)
    np.testing.assert_array_equal(decode(turned, 109, 89), np.rot90(half, -1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("broken", [BROKEN_EXIF, b"Exif\0\0", b"garbage", exif(9), exif(0)])
@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")
def test_broken_exif_does_not_cost_the_picture(kind: str, broken: bytes) -> None:
    data = encoded(FACE, kind, exif=broken)
    assert apart(decode(data, HEIGHT, WIDTH), pixels_of(FACE)) < 6
    check(data)


# --- kinds of pixels


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM"])
def test_every_common_format_is_read(kind: str) -> None:
    data = encoded(FACE, kind)
    assert apart(decode(data, HEIGHT, WIDTH), FACE) < 8
    check(data)


@pytest.mark.parametrize("words", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"optimize": True}])
def test_every_usual_way_to_write_a_jpeg_is_read(words: dict[str, Any]) -> None:
    assert apart(decode(encoded(FACE, quality=95, **words), HEIGHT, WIDTH), FACE) < 5


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_four_inks_become_the_colours_that_were_meant(kind: str) -> None:
    data = encoded(FACE.convert("CMYK"), kind)
    assert apart(decode(data, HEIGHT, WIDTH), FACE) < 6
    assert decode(data, 40, 40).shape == (40, 40, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_grey_stays_grey(kind: str) -> None:
    pixels = decode(encoded(FACE.convert("L"), kind), 109, 89)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 1])
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])
    assert apart(pixels[..., 0], FACE.convert("L").resize((89, 109), Image.Resampling.BOX)) < 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_upper_eight(kind: str) -> None:
    grey = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    pixels = decode(encoded(Image.fromarray(grey), kind), HEIGHT, WIDTH)
    np.testing.assert_array_equal(pixels, np.repeat((grey >> 8)[..., None], 3, axis=2))


def test_thirty_two_bits_are_taken_as_sixteen_and_held_within_bounds() -> None:
    row = np.array([[-5, 0, 40000, 65535, 1 << 30]], np.int32)
    pixels = decode(encoded(Image.fromarray(row), "TIFF"), 1, 5)
    assert pixels[0, :, 0].tolist() == [0, 0, 40000 >> 8, 255, 255]


def test_a_palette_becomes_its_colours() -> None:
    palette = FACE.convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(decode(encoded(palette, "PNG"), HEIGHT, WIDTH), pixels_of(palette))
    black_and_white = FACE.convert("1")
    np.testing.assert_array_equal(decode(encoded(black_and_white, "PNG"), HEIGHT, WIDTH), pixels_of(black_and_white))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(mode: str) -> None:
    pixels = decode(half_clear(mode), 20, 20)
    assert pixels[10, 15].tolist() == [255, 255, 255]
    assert pixels[10, 5].tolist() == ([200, 200, 200] if mode == "LA" else [200, 0, 0])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    red, blue = (Image.new("RGB", (20, 20), colour) for colour in ("red", "blue"))
    words = {"WEBP": {"lossless": True}}.get(kind, {})
    pixels = decode(encoded(red, kind, save_all=True, append_images=[blue], **words), 20, 20)
    assert apart(pixels, pixels_of(red)) < 2


@pytest.mark.parametrize("name", ["a PNG named .jpg", "a GIF named .jpg", "a JPEG named .png"])
def test_the_bytes_say_what_it_is_and_not_the_name(name: str) -> None:
    assert decode(encoded(FACE, name.split()[1]), 109, 89).shape == (109, 89, 3)


# --- what cannot be shown


def test_an_empty_file_says_that_it_is_empty(refused: Callable[[bytes], str]) -> None:
    assert refused(b"") == "empty: 0 bytes"


@pytest.mark.parametrize("data", [b"hello, I am text", b"<html>404</html>", b"\xff\xd8\xff but then text", b"\0" * 99])
def test_what_is_no_picture_says_how_it_begins(refused: Callable[[bytes], str], data: bytes) -> None:
    assert refused(data) == f"of no known format: begins with {data[:12]!r}"


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "JPEG with EXIF", "four inks", "PNG", "WEBP"])
def test_a_truncated_picture_is_refused(refused: Callable[[bytes], str], kind: str, share: float) -> None:
    data = {
        "JPEG": JPEG,
        "progressive JPEG": encoded(FACE, progressive=True),
        "JPEG with EXIF": encoded(FACE, exif=exif(6)),
        "four inks": encoded(FACE.convert("CMYK")),
    }.get(kind) or encoded(FACE, kind)
    assert refused(data[: int(len(data) * share)]).startswith(("not a whole JPEG", "broken", "of no known format"))


@pytest.mark.parametrize("orientation", [None, 1, 6])
def test_a_damaged_jpeg_is_refused_rather_than_shown_with_made_up_pixels(
    refused: Callable[[bytes], str], orientation: int | None
) -> None:
    data = JPEG if orientation is None else encoded(FACE, quality=92, exif=exif(orientation))
    assert "Corrupt JPEG data" in refused(damaged(data))


def test_a_damaged_png_is_refused(refused: Callable[[bytes], str]) -> None:
    middle = len(PNG) // 2
    assert refused(PNG[:middle] + b"\0\xff" * 20 + PNG[middle + 40 :]).startswith("broken")


@pytest.mark.parametrize("cut", [12, 20])
def test_a_png_is_whole_to_its_last_checksum(refused: Callable[[bytes], str], cut: int) -> None:
    assert refused(PNG[:-cut]).startswith("broken")
    damaged_checksum = bytes([PNG[-13] ^ 1])  # the last byte of the pixels' own chunk
    assert "checksum" in refused(PNG[:-13] + damaged_checksum + PNG[-12:])


def test_an_odd_jpeg_header_as_some_phones_write_it_is_no_damage(refused: Callable[[bytes], str]) -> None:
    scan = JPEG.index(b"\xff\xda")
    end_of_spectrum = scan + 2 + int.from_bytes(JPEG[scan + 2 : scan + 4], "big") - 2
    odd = JPEG[:end_of_spectrum] + b"\0" + JPEG[end_of_spectrum + 1 :]
    with pytest.raises(ValueError, match="Invalid SOS"):
        simplejpeg.decode_jpeg(odd, "RGB")
    assert apart(decode(odd, HEIGHT, WIDTH), FACE) < 6
    assert "truncated" in refused(odd[: len(odd) // 2])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest undoes what `images` set
@pytest.mark.parametrize("claiming", [png_that_claims, jpeg_that_claims])
@pytest.mark.parametrize("size", [(8001, 8000), (12000, 12000), (60000, 60000)])
def test_a_decompression_bomb_is_refused_by_its_header(
    refused: Callable[[bytes], str], claiming: Callable[[int, int], bytes], size: tuple[int, int]
) -> None:
    assert refused(claiming(*size)).startswith("too large: ")


def test_the_largest_picture_is_the_callers_to_set() -> None:
    for data in (JPEG, PNG, encoded(FACE, exif=exif(6)), encoded(FACE.convert("CMYK"))):
        assert decode(data, 20, 20, max_pixels=HEIGHT * WIDTH).shape == (20, 20, 3)
        with pytest.raises(UndecodableImage, match="at most 38803 are allowed"):
            decode(data, 20, 20, max_pixels=HEIGHT * WIDTH - 1)
        with pytest.raises(UndecodableImage, match="at most 38803 are allowed"):
            check(data, max_pixels=HEIGHT * WIDTH - 1)


def test_postscript_is_not_run(refused: Callable[[bytes], str]) -> None:
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    assert refused(program).startswith("of no known format")


@pytest.fixture
def refused() -> Callable[[bytes], str]:
    """Why a picture is refused, by `decode` and by `check` alike."""

    def words(data: bytes) -> str:
        with pytest.raises(UndecodableImage) as of_decode:
            decode(data, 109, 89)
        with pytest.raises(UndecodableImage) as of_check:
            check(data)
        with pytest.raises(UndecodableImage):
            decode_whole(data)
        assert str(of_check.value).split(":")[0] == str(of_decode.value).split(":")[0]
        return str(of_decode.value)

    return words


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_bytes_whatever_raise_anything_else() -> None:
    """Bytes overwritten at random, in every format: pixels of the right shape or `UndecodableImage`, nothing else."""
    rng = np.random.default_rng(0)
    small = FACE.resize((44, 54))
    kinds = [encoded(small, kind, exif=exif(6)) for kind in ("JPEG", "PNG", "WEBP", "TIFF")]
    kinds += [encoded(small, kind) for kind in ("GIF", "BMP", "JPEG2000")]
    kinds += [encoded(small.convert("CMYK")), half_clear("P"), half_clear("RGBA")]
    kinds += [encoded(small, kind, icc_profile=SWAPPED) for kind in ("JPEG", "WEBP")]
    for data in kinds:
        for _ in range(60):
            changed = bytearray(data)
            for at in rng.integers(0, min(len(data), rng.choice([100, 400, len(data)])), 4):
                changed[at] = rng.integers(256)
            with suppress(UndecodableImage):
                assert decode(bytes(changed), 20, 20).shape == (20, 20, 3)
            with suppress(UndecodableImage):
                assert min(decode_whole(bytes(changed), 20).shape[:2]) == 20


def test_threads_do_not_disturb_each_other() -> None:
    kinds = [JPEG, PNG, encoded(FACE, exif=exif(6)), encoded(FACE.convert("CMYK")), encoded(FACE, "WEBP")]
    kinds += [encoded(FACE, icc_profile=SWAPPED)]
    alone = [(decode(data, 50, 40), decode_whole(data, 40)) for data in kinds]
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: (decode(data, 50, 40), decode_whole(data, 40)), kinds * 20))
    assert warnings.filters == before
    for index, both in enumerate(together):
        for pixels, expected in zip(both, alone[index % len(kinds)], strict=True):
            np.testing.assert_array_equal(pixels, expected)


def test_the_default_bound_is_what_the_jobs_promise() -> None:
    assert images.MAX_PIXELS == 64_000_000
