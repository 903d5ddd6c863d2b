"""Pictures in one style, for training a network that redraws photos in it: decoded once, cropped anew at each step."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from celebvision import images
from celebvision.celeba.shards import DataSet, row_groups
from celebvision.job import JobFailed
from celebvision.storage import open_store

GIB = 2**30
NEARLY_WHOLE = 0.9  # share of the shorter side from which on crops of one picture are alike
FIXED_SEED = 0

Picture = NDArray[np.uint8]  # H W 3, RGB, upright
Batch = NDArray[np.uint8]  # B H W 3


class StylePictures:
    """The pictures of a style set, decoded, and random square crops of them.

    Of a set that does not fit in `most_bytes` a part is held, another for each seed.
    """

    def __init__(self, uri: str, size: int, crop: tuple[float, float], most_bytes: int = GIB) -> None:
        """`size`: side of the crops in pixels; `crop`: least and largest side of a crop, as a share of the picture's
        shorter side. (0.9, 1.0) suits faces; (0.2, 0.6) suits large paintings, of which there may be only a few.
        """
        if not 0 < crop[0] <= crop[1] <= 1:
            raise ValueError(f"crop is {crop}: should be two shares above 0 and up to 1, the smaller one first")
        self.uri, self.size, self.crop, self.most_bytes = uri, size, crop, most_bytes
        self.shorter_side = math.ceil(size / crop[0])  # then the smallest crop has as many pixels as are wanted of it
        self.pictures: list[Picture] = []
        self.is_whole = False

    def load(self, seed: int) -> None:
        """Read the set, or as much of it as `most_bytes` allow, one picture at least; what is whole stays as it is.

        A part is drawn by `seed`: row groups in random order, and the rows of each, so that over many seeds every
        picture is seen.

        Raises:
            JobFailed: it is no style set, it is empty, or a picture in it cannot be decoded.
            StorageError: a shard cannot be had.
        """
        if self.is_whole:
            return
        self.pictures = []  # before the next ones come
        kept: list[tuple[tuple[int, int], Picture]] = []
        room = self.most_bytes
        for place, picture in self._read(np.random.default_rng(seed).permutation):
            room -= picture.nbytes
            if room < 0 and kept:
                break
            kept.append((place, picture))
        else:
            self.is_whole = True
        kept.sort(key=itemgetter(0))  # what `draw` gives must not hang on the seed of a set that is whole
        self.pictures = [picture for _, picture in kept]

    def draw(self, count: int, generator: torch.Generator | np.random.Generator) -> Batch:
        """Crops of pictures drawn at random from those that are loaded, each at a random place and of a random size.

        Half of them are mirrored. The same state of the generator gives the same crops.

        Returns:
            uint8, count size size 3.
        """
        if not self.pictures:
            raise ValueError("no pictures are loaded: call load first")
        crops = np.empty((count, self.size, self.size, 3), np.uint8)
        for crop, shares in zip(crops, _uniform(generator, (count, 5)), strict=True):
            picture = self.pictures[int(shares[0] * len(self.pictures))]
            crop[:] = self._resized(self._part(picture, shares[1:4]), mirrored=shares[4] < 0.5)
        return crops

    def fixed(self, count: int) -> Batch:
        """The same crops each time and on every worker, whatever is loaded: for validation and for people to look at.

        Pictures come in the order of the shards. Where all crops are nearly whole pictures (`crop` from 0.9 on), each
        picture gives one, its centre with the whole shorter side, so that there are at most as many as pictures.
        Otherwise each gives a random crop, not mirrored, and after the last picture the first gives another.

        They are made anew with each call; a caller who needs them again keeps them.

        Returns:
            uint8, B size size 3, with B at most `count`.

        Raises:
            as `load`.
        """
        generator = np.random.default_rng(FIXED_SEED)
        centred = self.crop[0] >= NEARLY_WHOLE
        crops: list[Picture] = []
        while len(crops) < count:
            for picture in self._in_order():
                part = _centre(picture) if centred else self._part(picture, generator.random(3))
                crops.append(self._resized(part))
                if len(crops) == count:
                    break
            if centred:
                break
        return np.stack(crops) if crops else np.empty((0, self.size, self.size, 3), np.uint8)

    def _in_order(self) -> Iterator[Picture]:
        return iter(self.pictures) if self.is_whole else (picture for _, picture in self._read(range))

    def _read(self, order: Callable[[int], Iterable[int]]) -> Iterator[tuple[tuple[int, int], Picture]]:
        """Pictures with their place in the set (row group, row); `order` arranges row groups, and the rows of each."""
        data_set, store = DataSet.load(self.uri), open_store(self.uri)
        if not data_set.rows("train"):
            raise JobFailed(f"{self.uri}: holds no pictures")
        if data_set.positives("train"):
            raise JobFailed(f"{self.uri}: holds labelled faces and no style; take what ingest --style_folder wrote")
        groups = row_groups(data_set, "train")
        for group in order(len(groups)):
            with store.open(groups[group].path) as stream:
                table = pq.ParquetFile(stream).read_row_group(groups[group].number, ["image_id", "image"])
            for row in order(len(table)):
                try:
                    picture = _decoded(table["image"][row].as_py(), self.shorter_side)
                except images.UndecodableImage as error:
                    name = f"{table['image_id'][row]} in {groups[group].path}"
                    raise JobFailed(f"{self.uri}: {name} cannot be decoded: {error}; run ingest again") from None
                yield (group, row), picture

    def _part(self, picture: Picture, shares: NDArray[np.float64]) -> Picture:
        """The square that three shares 0..1 describe: its side, from the least to the largest, and its place (x, y)."""
        height, width, _ = picture.shape
        least, largest = self.crop
        side = max(1, round((least + shares[0] * (largest - least)) * min(height, width)))
        left, top = int(shares[1] * (width - side + 1)), int(shares[2] * (height - side + 1))
        return picture[top : top + side, left : left + side]

    def _resized(self, part: Picture, mirrored: bool = False) -> Picture:
        image = Image.fromarray(part).resize((self.size, self.size), Image.Resampling.BICUBIC)
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(image, dtype=np.uint8)


def _centre(picture: Picture) -> Picture:
    """The largest square in the middle."""
    height, width, _ = picture.shape
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return picture[top : top + side, left : left + side]


def _uniform(generator: torch.Generator | np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Random numbers from 0 up to but without 1."""
    if isinstance(generator, np.random.Generator):
        return generator.random(shape)
    numbers: NDArray[np.float64] = torch.rand(shape, generator=generator, dtype=torch.float64).numpy()
    return numbers


def _decoded(data: bytes, shorter_side: int) -> Picture:
    """The whole picture, shrunk so that its shorter side is `shorter_side`; a smaller one stays as it is."""
    try:
        with Image.open(io.BytesIO(data), formats=images.FORMATS) as header:
            own_side = min(header.size)
    except OSError as error:
        raise images.UndecodableImage(f"broken: {error}") from None
    return images.decode_whole(data, min(shorter_side, own_side))
