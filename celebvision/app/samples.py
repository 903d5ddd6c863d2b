"""Pictures for who has none at hand: faces, and a painting, that are drawn by code."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from celebvision.celeba.face import draw_face

FACES = {
    "face 1": {"Male": True, "Smiling": True, "Black_Hair": True},
    "face 2": {"Smiling": True, "Blond_Hair": True, "Wearing_Lipstick": True},
    "face 3": {"Male": True, "Eyeglasses": True, "Gray_Hair": True, "Young": False},
    "face 4": {"Brown_Hair": True, "Bangs": True, "Wearing_Earrings": True},
}
SIDE = 256


def faces() -> dict[str, bytes]:
    """PNG files by name, the same each time."""
    return {
        f"{name}.png": _png(draw_face(np.random.default_rng(seed), attributes, (SIDE, SIDE)))
        for seed, (name, attributes) in enumerate(FACES.items())
    }


def painting() -> bytes:
    """A PNG of waves of colour, to paint after: the same each time."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    rng = np.random.default_rng(7)
    waves = sum(np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(-6, 6, (6, 3)))
    bands = np.floor(4 * (waves - waves.min()) / np.ptp(waves)).astype(int).clip(0, 3)
    colours = np.array([(20, 40, 120), (240, 190, 60), (70, 130, 180), (245, 240, 220)], dtype=np.uint8)
    return _png(Image.fromarray(colours[bands]))


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
