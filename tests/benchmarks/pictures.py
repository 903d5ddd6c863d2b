"""The pictures that all contestants label: drawn by code, the same bytes each time, kept in the work folder.

Faces are CelebA's 178×218 at quality 95. Photos are one and two megapixels of the very same shape, so that a plain
`Resize((109, 89))`, as a documentation has it, and our own covering crop show the network the same picture.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageChops

from celebvision.celeba.drawn import draw_attributes
from celebvision.celeba.face import HEIGHT, WIDTH, draw_face
from celebvision.storage import open_store

PHOTO_SIZES = ((5 * WIDTH, 5 * HEIGHT), (7 * WIDTH, 7 * HEIGHT))  # 1.0 and 1.9 megapixels
GRAIN = 6.0  # standard deviation of what makes an enlarged drawing as heavy as a photo
SEED = 0


def face(index: int) -> bytes:
    rng = np.random.default_rng([SEED, index])
    return jpeg(draw_face(rng, draw_attributes(rng, male=bool(index % 2))), quality=95)


def photo(index: int) -> bytes:
    rng = np.random.default_rng([SEED, 1, index])
    drawn = draw_face(rng, draw_attributes(rng, male=bool(index % 2)))
    enlarged = drawn.resize(PHOTO_SIZES[index % 2], Image.Resampling.BICUBIC)
    tile = np.tile((128 + rng.normal(0, GRAIN, (128, 128))).clip(0, 255).astype(np.uint8), (12, 10))
    grain = Image.fromarray(tile[: enlarged.height, : enlarged.width])
    return jpeg(ImageChops.add(enlarged, Image.merge("RGB", [grain] * 3), offset=-128), quality=80)


def folder_of(work: Path, kind: str, count: int) -> Path:
    """`count` pictures of a kind, `faces` or `photos`, drawn if they are not there yet."""
    folder = work / f"{kind}-{count}"
    if not folder.exists():
        half_done = folder.with_suffix(".part")
        shutil.rmtree(half_done, ignore_errors=True)
        half_done.mkdir(parents=True)
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            draw = face if kind == "faces" else photo
            for _ in pool.map(partial(_write, draw, half_done), range(count), chunksize=50):
                pass
        half_done.rename(folder)
    return folder


def many_times(folder: Path, times: int) -> Path:
    """The same files under `times` names each: as many keys, and no more bytes on disk."""
    many = folder.with_name(f"{folder.name}-times-{times}")
    if not many.exists():
        half_done = many.with_suffix(".part")
        shutil.rmtree(half_done, ignore_errors=True)
        half_done.mkdir()
        for file in folder.iterdir():
            for number in range(times):
                (half_done / f"{file.stem}-{number:03}.jpg").hardlink_to(file)
        half_done.rename(many)
    return many


def uploaded(folder: Path, uri: str) -> str:
    """Where the pictures lie under the S3 URI, put there if they are missing."""
    target = f"{uri.rstrip('/')}/{folder.name}"
    store = open_store(target)
    missing = {file.name for file in folder.iterdir()} - {stat.key for stat in store.list()}
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(lambda name: store.put(name, (folder / name).read_bytes()), sorted(missing)):
            pass
    return target


def mean_bytes(folder: Path) -> int:
    sizes = [file.stat().st_size for file in folder.iterdir()]
    return round(sum(sizes) / len(sizes))


def batches(folder: Path, size: int) -> Iterator[list[bytes]]:
    files = sorted(folder.iterdir())
    for first in range(0, len(files), size):
        yield [file.read_bytes() for file in files[first : first + size]]


def _write(draw: Callable[[int], bytes], folder: Path, index: int) -> None:
    (folder / f"{index:06}.jpg").write_bytes(draw(index))


def jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def noise(count: int, height: int, width: int) -> torch.Tensor:
    """Pixels that stand for pictures where only time counts: uint8, COUNT H W 3."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8))
