"""From the bytes of a picture to pixels: one way for ingest, training, batch jobs and the page.

JPEGs are decoded by libjpeg-turbo at the smallest DCT scale that still covers the wanted size; everything else, and
JPEGs with a turn or four inks, goes through Pillow.
"""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 64_000_000

EXIF_ORIENTATION = 0x0112
JPEG_START = b"\xff\xd8\xff"
EXIF_MARK = b"Exif\0\0"
EXIF_WITHIN = 256 * 1024  # bytes of a JPEG in which its EXIF segment must begin; segments are at most 64 KiB each
FOUR_INKS = ("CMYK", "YCCK")


class UndecodableImage(Exception):
    """Not a picture that can be shown: empty, truncated, of no known format, or too large; the message says which."""


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
    if data.startswith(JPEG_START) and EXIF_MARK not in data[:EXIF_WITHIN]:
        pixels = _decode_jpeg(data, height, width, max_pixels)
        if pixels is not None:
            return pixels
    return _cover(_open_with_pillow(data, height, width, max_pixels), height, width)


def check(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Decode the whole picture, and return its height and width as stored.

    Raises:
        UndecodableImage: as `decode`.
    """
    if not data:
        raise UndecodableImage("empty: 0 bytes")
    pixels = _decode_jpeg(data, 0, 0, max_pixels) if data.startswith(JPEG_START) else None
    if pixels is not None:
        return pixels.shape[0], pixels.shape[1]
    image = _open_with_pillow(data, 0, 0, max_pixels)
    return image.height, image.width


def _decode_jpeg(data: bytes, height: int, width: int, max_pixels: int) -> NDArray[np.uint8] | None:
    """The picture covering `height` × `width` (0: whole), or None where Pillow knows better (four inks)."""
    try:
        full_height, full_width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _refuse_large(full_width, full_height, max_pixels)
        if colours in FOUR_INKS:
            return None
        if not height:
            whole: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
            return whole
        scale = max(height / full_height, width / full_width)
        least_height, least_width = math.ceil(full_height * scale), math.ceil(full_width * scale)
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", min_height=least_height, min_width=least_width)
    except ValueError as error:
        raise UndecodableImage(f"not a whole JPEG: {error}") from None
    return pixels if pixels.shape[:2] == (height, width) else _cover(Image.fromarray(pixels), height, width)


def _open_with_pillow(data: bytes, height: int, width: int, max_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound is checked below
            image: Image.Image = Image.open(io.BytesIO(data))
        _refuse_large(image.width, image.height, max_pixels)
        if height and image.format == "JPEG":
            turned = image.getexif().get(EXIF_ORIENTATION, 1) > 4
            image.draft(None, (height, width) if turned else (width, height))
        image.load()
    except UndecodableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UndecodableImage(f"too large: {error}") from None
    except UnidentifiedImageError:
        raise UndecodableImage(f"of no known format: begins with {data[:12]!r}") from None
    # Pillow's decoders raise whatever a broken file drives them to; all of it means the same here.
    except Exception as error:  # noqa: BLE001
        raise UndecodableImage(f"broken: {type(error).__name__}: {error}") from None
    return _to_rgb(ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        return Image.fromarray((np.asarray(image, dtype=np.uint32) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
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


def _refuse_large(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UndecodableImage(f"too large: {width}×{height} pixels, at most {max_pixels} are allowed")
