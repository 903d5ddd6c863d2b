"""How a decoded picture becomes a network's input."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor

IN_CACHE = 4  # images


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input; stored with every model version.

    height, width: the network's input size in pixels.
    mean, std: per channel (RGB), of pixels scaled to 0..1.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalise(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Turn pixels into a network's input: ``(images / 255 - mean) / std``.

        Args:
            images: uint8, B H W 3, RGB, on the device where the result is wanted. Send uint8 over and normalise
                there: a quarter of the bytes of float32.
            dtype: of the result; it is computed in float32 whatever it is.

        Returns:
            `dtype`, B 3 H W, with channels_last strides: a view of the product, nothing is permuted in memory.

        Raises:
            ValueError: not uint8, or not of this height and width.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (self.height, self.width, 3):
            raise ValueError(
                f"expected uint8 images of shape [B, {self.height}, {self.width}, 3], "
                f"got {images.dtype} {list(images.shape)}"
            )
        scale, offset = _factors(self, images.device)
        normal = torch.empty(images.shape, dtype=dtype, device=images.device)
        # A few at a time, as many as a processor's cache holds in float32; a GPU takes all at once.
        step = IN_CACHE if images.device.type == "cpu" else max(1, len(images))
        for some, pixels in zip(normal.flatten(1).split(step), images.flatten(1).split(step), strict=True):
            some.copy_(torch.addcmul(offset, pixels.float(), scale))
        return normal.permute(0, 3, 1, 2)

    def to_json(self) -> dict[str, Any]:
        """Give a plain dict that `json.dumps` takes."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Make it again from what `to_json` gave.

        Raises:
            ValueError: a field is missing, unknown or of the wrong length.
        """
        expected = {"height", "width", "mean", "std"}
        if set(fields) != expected:
            raise ValueError(f"preprocessing needs the fields {sorted(expected)}, got {sorted(fields)}")
        mean, std = (tuple(float(value) for value in fields[name]) for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean and std need three values each, std above 0; got mean={mean} std={std}")
        return cls(height=int(fields["height"]), width=int(fields["width"]), mean=mean, std=std)


@lru_cache(maxsize=8)
def _factors(size: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """What each value of an image is multiplied by, and what is then added, both of the image's length.

    (x / 255 - mean) / std = x * (1 / (255 std)) - mean / std. A vector as long as an image is added faster than one of
    three values.
    """
    with torch.inference_mode(False):  # a training may take them as well
        std, mean = (torch.tensor(values, device=device) for values in (size.std, size.mean))
        places = size.height * size.width
        return (1 / (255 * std)).repeat(places), (-mean / std).repeat(places)
