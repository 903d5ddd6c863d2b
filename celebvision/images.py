"""From the bytes of a picture to pixels: one way for ingest, training, batch jobs and the page.

JPEGs are decoded by libjpeg-turbo at the smallest DCT scale that still covers the wanted size; everything else, and
JPEGs with four inks or an unusual header, goes through Pillow.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

MAX_PIXELS = 64_000_000

# What photos come in. Pillow knows more formats; one of them, EPS, would run Ghostscript on what a stranger wrote.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
EXIF_ORIENTATION = 0x0112
JPEG_START = b"\xff\xd8\xff"
EXIF_MARK = b"Exif\0\0"
EXIF_WITHIN = 256 * 1024  # bytes of a JPEG in which its EXIF segment must begin; segments are at most 64 KiB each
FOUR_INKS = ("CMYK", "YCCK")
JPEG_DAMAGE = ("Corrupt JPEG data", "Premature end of JPEG file")  # libjpeg's warnings when it makes pixels up
SRGB = ImageCms.createProfile("sRGB")
PROFILE_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # the colours a profile is of, as Pillow names them
LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383}  # pixels that the format holds
Format = Literal["jpeg", "png", "webp"]

# Our own bound is checked instead. For good and not around each call: `catch_warnings` is not safe between threads.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class UndecodableImage(Exception):
    """Not a picture that can be shown: empty, damaged, of no known format, or too large; the message says which."""


@dataclass(frozen=True)
class _Wanted:
    """What the stored picture shall become. Without `sides`: whole, and not turned."""

    sides: Callable[[int, int], tuple[int, int]] | None = None  # from height and width of the whole, both upright
    resampling: Image.Resampling = Image.Resampling.BILINEAR
    managed: bool = False  # four inks through their own colour profile


def decode(data: bytes, height: int, width: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode a picture so that it covers `height` × `width`, and cut off what stands over at the sides.

    Returns:
        uint8 array, height width 3, RGB, upright (EXIF orientation applied). Transparency is laid on white, 16 bits
        become 8, and of an animation the first frame is taken.

    Raises:
        UndecodableImage: for anything else; the message says what was wrong.
    """
    return _decode(data, _Wanted(lambda *_: (height, width)), max_pixels)


def decode_whole(data: bytes, size: int | None = None, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode all of a picture, as it is or so that its shorter side is `size`; the shape is kept.

    Returns:
        uint8 array, H W 3, sRGB by the colour profile that the picture brings, else as `decode`. A profile that is
        broken, or of other colours than the picture, does not cost the picture: it is taken to be sRGB.

    Raises:
        UndecodableImage: as `decode`, or more than `max_pixels` once it is enlarged.
    """

    def sides(height: int, width: int) -> tuple[int, int]:
        if size is None:
            return height, width
        shorter = min(height, width)
        height, width = (max(size, round(side * size / shorter)) for side in (height, width))
        _refuse_large(height, width, max_pixels)
        return height, width

    pixels = _decode(data, _Wanted(sides, Image.Resampling.BICUBIC, managed=True), max_pixels)
    return _to_srgb(pixels, _profile(data))


def encode(pixels: NDArray[np.uint8], form: Format, quality: int = 90) -> bytes:
    """A file of uint8 H W 3, sRGB, without metadata; the same pixels give the same bytes.

    Args:
        quality: 1 to 100, of JPEG and WebP; PNG is lossless.

    Raises:
        ValueError: a side is longer than the format holds.
    """
    height, width = pixels.shape[:2]
    if max(height, width) > LONGEST_SIDE.get(form, max(height, width)):
        raise ValueError(f"{width}×{height} pixels; no side of a {form} is longer than {LONGEST_SIDE[form]}")
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form, **({} if form == "png" else {"quality": quality}))
    return content.getvalue()


def check(data: bytes, max_pixels: int = MAX_PIXELS) -> None:
    """Decode the whole picture, for its errors alone.

    Raises:
        UndecodableImage: as `decode`.
    """
    _decode(data, _Wanted(), max_pixels)


def _decode(data: bytes, wanted: _Wanted, max_pixels: int) -> NDArray[np.uint8]:
    if not data:
        raise UndecodableImage("empty: 0 bytes")
    pixels = _decode_jpeg(data, wanted, max_pixels) if data.startswith(JPEG_START) else None
    return _decode_with_pillow(data, wanted, max_pixels) if pixels is None else pixels


def _decode_jpeg(data: bytes, wanted: _Wanted, max_pixels: int) -> NDArray[np.uint8] | None:
    """The picture as it is wanted, or None where Pillow must try."""
    try:
        full_height, full_width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _refuse_large(full_height, full_width, max_pixels)
        if colours in FOUR_INKS:
            return None
        if wanted.sides is None:
            whole: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
            return whole
        orientation = _jpeg_orientation(data)
        height, width = _stored_sides(wanted.sides, full_height, full_width, orientation)
        # Whole numbers: a product of floats may come out a hair too large, and then the next larger scale is taken.
        least_height = max(height, -(-full_height * width // full_width))
        least_width = max(width, -(-full_width * height // full_height))
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", min_height=least_height, min_width=least_width)
    except ValueError as error:
        if any(words in str(error) for words in JPEG_DAMAGE):
            raise UndecodableImage(f"not a whole JPEG: {error}") from None
        return None  # a header that is unusual, as some cameras write, or worse
    if pixels.shape[:2] != (height, width):
        pixels = _cover(Image.fromarray(pixels), height, width, wanted.resampling)
    return _upright(pixels, orientation)


def _decode_with_pillow(data: bytes, wanted: _Wanted, max_pixels: int) -> NDArray[np.uint8]:
    """The picture as it is wanted, of any format."""
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        full_height, full_width = image.height, image.width
        _refuse_large(full_height, full_width, max_pixels)
        if wanted.sides and image.format == "JPEG":
            least_height, least_width = _stored_sides(wanted.sides, full_height, full_width, _orientation(image))
            image.draft(None, (least_width, least_height))
        if image.format == "PNG":  # whose checksums `load` does not look at
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        image.load()
        orientation = _orientation(image)  # asked for after `load`, which turns TIFFs upright itself
        if image.format != "JPEG":  # of which `draft` may have left less than the whole
            full_height, full_width = image.height, image.width
        if wanted.managed and image.mode == "CMYK":
            image = _converted(image, image.info.get("icc_profile") or b"") or image
        rgb = _to_rgb(image)
    except UndecodableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UndecodableImage(f"too large: {error}") from None
    except UnidentifiedImageError:
        raise UndecodableImage(f"of no known format: begins with {data[:12]!r}") from None
    # Pillow's decoders raise whatever a broken file drives them to; all of it means the same here.
    except Exception as error:  # noqa: BLE001
        raise UndecodableImage(f"broken: {type(error).__name__}: {error}") from None
    if wanted.sides is None:
        return np.asarray(rgb)
    height, width = _stored_sides(wanted.sides, full_height, full_width, orientation)
    return _upright(_cover(rgb, height, width, wanted.resampling), orientation)


def _stored_sides(
    sides: Callable[[int, int], tuple[int, int]], height: int, width: int, orientation: int
) -> tuple[int, int]:
    """The sides that are wanted of a picture stored as `height` × `width`, before it is turned upright."""
    return _as_stored(*sides(*_as_stored(height, width, orientation)), orientation)


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
    """The sides that a picture of `height` × `width` has before it is turned upright; and the other way round."""
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


def _cover(image: Image.Image, height: int, width: int, resampling: Image.Resampling) -> NDArray[np.uint8]:
    scale = max(height / image.height, width / image.width)
    box_height, box_width = min(height / scale, image.height), min(width / scale, image.width)
    left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    resized = image.resize((width, height), resampling, box=box, reducing_gap=2.0)
    return np.asarray(resized, dtype=np.uint8)


def _profile(data: bytes) -> bytes:
    """The colour profile (ICC) of a picture, empty if it has none; that of four inks holds before they are mixed."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        return b"" if image.mode == "CMYK" else image.info.get("icc_profile") or b""
    except Exception:  # noqa: BLE001 - what is wrong with the pixels, decoding them has told
        return b""


def _to_srgb(pixels: NDArray[np.uint8], profile: bytes) -> NDArray[np.uint8]:
    """RGB pixels of these colours as sRGB. A profile of greys holds for a picture of greys alone."""
    if not profile:
        return pixels
    image = _converted(Image.fromarray(pixels), profile)
    if image is None and (pixels == pixels[..., :1]).all():
        image = _converted(Image.fromarray(pixels[..., 0]), profile)
    return pixels if image is None else np.asarray(image)


def _converted(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The picture in sRGB; None if that changes nothing, or if the profile is broken or of other colours."""
    transform = _transform(profile, image.mode) if profile else None
    return ImageCms.applyTransform(image, transform) if transform else None


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From the colours of a profile to sRGB; None if it is broken, or not of `mode`, or sRGB itself."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if PROFILE_MODES.get(source.profile.xcolor_space) != mode:
            return None
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        transform = ImageCms.buildTransform(source, SRGB, mode, "RGB", intent)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode == "RGB" and _is_neutral(transform):
        return None
    return transform


def _is_neutral(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether colours stay as they are but for rounding, as most photos' do: their profile says sRGB."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(9, -1, 3)
    converted = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform))
    return bool(abs(converted.astype(int) - colours).max() <= 1)
