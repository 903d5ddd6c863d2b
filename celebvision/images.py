"""From the bytes of a picture to pixels: one way for ingest, training, batch jobs and the page.

JPEGs are decoded by libjpeg-turbo at the smallest DCT scale that still covers the wanted size; everything else, and
JPEGs with four inks or an unusual header, goes through Pillow.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 64_000_000

# What photos come in. Pillow knows more formats; one of them, EPS, would run Ghostscript on what a stranger wrote.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
EXIF_ORIENTATION = 0x0112
JPEG_START = b"\xff\xd8\xff"
EXIF_MARK = b"Exif\0\0"
EXIF_WITHIN = 256 * 1024  # bytes of a JPEG in which its EXIF segment must begin; segments are at most 64 KiB each
FOUR_INKS = ("CMYK", "YCCK")
JPEG_DAMAGE = ("Corrupt JPEG data", "Premature end of JPEG file")  # libjpeg's warnings when it makes pixels up

# Our own bound is checked instead. For good and not around each call: `catch_warnings` is not safe between threads.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class UndecodableImage(Exception):
    """Not a picture that can be shown: empty, damaged, of no known format, or too large; the message says which."""


def decode(data: bytes, height: int, width: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode a picture so that it covers `height` × `width`, and cut off what stands over at the sides.

    Returns:
        uint8 array, height width 3, RGB, upright (EXIF orientation applied). Transparency is laid on white, 16 bits
        become 8, and of an animation the first frame is taken.

    Raises:
        UndecodableImage: for anything else; the message says what was wrong.
    """
    if not data:
        raise UndecodableImage("empty: 0 bytes")
    pixels = _decode_jpeg(data, height, width, max_pixels) if data.startswith(JPEG_START) else None
    if pixels is not None:
        return pixels
    image, orientation = _decode_with_pillow(data, height, width, max_pixels)
    return _upright(_cover(image, *_as_stored(height, width, orientation)), orientation)


def check(data: bytes, max_pixels: int = MAX_PIXELS) -> None:
    """Decode the whole picture, for its errors alone.

    Raises:
        UndecodableImage: as `decode`.
    """
    if not data:
        raise UndecodableImage("empty: 0 bytes")
    pixels = _decode_jpeg(data, 0, 0, max_pixels) if data.startswith(JPEG_START) else None
    if pixels is None:
        _decode_with_pillow(data, 0, 0, max_pixels)


def _decode_jpeg(data: bytes, height: int, width: int, max_pixels: int) -> NDArray[np.uint8] | None:
    """The picture upright, covering `height` × `width` (0: whole, as stored), or None where Pillow must try."""
    try:
        full_height, full_width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _refuse_large(full_height, full_width, max_pixels)
        if colours in FOUR_INKS:
            return None
        if not height:
            whole: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
            return whole
        orientation = _jpeg_orientation(data)
        height, width = _as_stored(height, width, orientation)
        # Whole numbers: a product of floats may come out a hair too large, and then the next larger scale is taken.
        least_height = max(height, -(-full_height * width // full_width))
        least_width = max(width, -(-full_width * height // full_height))
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", min_height=least_height, min_width=least_width)
    except ValueError as error:
        if any(words in str(error) for words in JPEG_DAMAGE):
            raise UndecodableImage(f"not a whole JPEG: {error}") from None
        return None  # a header that is unusual, as some cameras write, or worse
    if pixels.shape[:2] != (height, width):
        pixels = _cover(Image.fromarray(pixels), height, width)
    return _upright(pixels, orientation)


def _decode_with_pillow(data: bytes, height: int, width: int, max_pixels: int) -> tuple[Image.Image, int]:
    """The picture as RGB, as stored, of a JPEG no more than covers `height` × `width` (0: whole); its orientation."""
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        _refuse_large(image.height, image.width, max_pixels)
        if height and image.format == "JPEG":
            least_height, least_width = _as_stored(height, width, _orientation(image))
            image.draft(None, (least_width, least_height))
        if image.format == "PNG":  # whose checksums `load` does not look at
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        image.load()
        return _to_rgb(image), _orientation(image)  # asked for after `load`, which turns TIFFs upright itself
    except UndecodableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UndecodableImage(f"too large: {error}") from None
    except UnidentifiedImageError:
        raise UndecodableImage(f"of no known format: begins with {data[:12]!r}") from None
    # Pillow's decoders raise whatever a broken file drives them to; all of it means the same here.
    except Exception as error:  # noqa: BLE001
        raise UndecodableImage(f"broken: {type(error).__name__}: {error}") from None


def _refuse_large(height: int, width: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UndecodableImage(f"too large: {width}×{height} pixels, at most {max_pixels} are allowed")


def _jpeg_orientation(data: bytes) -> int:
    if data.find(EXIF_MARK, 0, EXIF_WITHIN) < 0:
        return 1
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
    except Exception:  # noqa: BLE001 - what is wrong with the pixels, decoding them will tell
        return 1
    return _orientation(image)


def _orientation(image: Image.Image) -> int:
    """As EXIF has it, 1 to 8; and 1, upright, where EXIF is missing or broken, which does not cost the picture."""
    try:
        value = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - Pillow raises whatever broken EXIF drives it to
        return 1
    return int(value) if value in range(1, 9) else 1


def _as_stored(height: int, width: int, orientation: int) -> tuple[int, int]:
    """The sides that a picture of `height` × `width` has before it is turned upright."""
    return (width, height) if orientation > 4 else (height, width)


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo how the camera was held, as EXIF counts the eight ways."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        return Image.fromarray((np.asarray(image, dtype=np.int32) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _cover(image: Image.Image, height: int, width: int) -> NDArray[np.uint8]:
    scale = max(height / image.height, width / image.width)
    box_height, box_width = min(height / scale, image.height), min(width / scale, image.width)
    left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    resized = image.resize((width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    return np.asarray(resized, dtype=np.uint8)
