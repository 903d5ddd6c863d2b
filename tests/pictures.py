"""Pictures of every kind, good and broken, for the tests of what is made of them."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from celebvision.celeba.face import draw_face

ORIENTATION = 0x0112  # EXIF tag
FACE = draw_face(np.random.default_rng(3), {"Male": True})


def encoded(image: Image.Image, kind: str = "JPEG", **words: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **words)
    return stream.getvalue()


def exif(orientation: int) -> bytes:
    words = Image.Exif()
    words[ORIENTATION] = orientation
    return words.tobytes()


def pixels_of(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image.convert("RGB")).astype(np.int64)


def apart(one: Any, other: Any) -> float:
    """Mean difference of two pictures, of 255."""
    return float(abs(np.asarray(one, dtype=np.int64) - np.asarray(other, dtype=np.int64)).mean())


JPEG = encoded(FACE, quality=92)
PNG = encoded(FACE, "PNG")


def half_clear(mode: str) -> bytes:
    """Left half opaque red or grey, right half fully transparent black."""
    if mode == "P":
        image = Image.new("P", (20, 20), 1)
        image.putpalette([200, 0, 0, 0, 0, 0])
        image.paste(0, (0, 0, 10, 20))
        return encoded(image, "PNG", transparency=1)
    image = Image.new(mode, (20, 20))
    image.paste((200, 0, 0, 255) if mode == "RGBA" else (200, 255), (0, 0, 10, 20))
    return encoded(image, "PNG")
