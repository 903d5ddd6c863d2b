"""A discriminator that sees what a pretrained network sees instead of pixels (Sauer et al. 2021, arXiv:2111.01007)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from celebvision.models.cyclegan import initialise
from celebvision.models.vgg import VGG

BATCH = 16
LEAST = 0.3  # of a layer's mean deviation: a channel that styles hardly rouse would be nothing but loud


class Projection:
    """What VGG sees in pictures, each channel brought to one scale. It is frozen; pictures get gradients through it.

    Args:
        vgg: gives the layers that are named, on the device where the pictures are.
        pictures: uint8 B H W 3; each channel's mean and deviation over these and all places of them become 0 and 1.
    """

    def __init__(self, vgg: VGG, pictures: Tensor) -> None:
        self.vgg = vgg.to(memory_format=torch.channels_last)
        device = next(vgg.parameters()).device
        with torch.no_grad():
            parts = [vgg(part.to(device).permute(0, 3, 1, 2).float() / 255) for part in pictures.split(BATCH)]
            maps = {layer: torch.cat([part[layer] for part in parts]).float() for layer in vgg.layers}
        self.means = {layer: seen.mean((0, 2, 3), keepdim=True) for layer, seen in maps.items()}
        deviations = {layer: seen.std((0, 2, 3), keepdim=True) for layer, seen in maps.items()}
        self.units = {layer: units.clamp_min(float(LEAST * units.mean())) for layer, units in deviations.items()}

    @property
    def channels(self) -> dict[str, int]:
        """Of each layer's map."""
        return {layer: units.shape[1] for layer, units in self.units.items()}

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps, B C h w by layer, of `images`, float32, B 3 H W, -1..1."""
        maps = self.vgg((images + 1) / 2)
        return {layer: (seen - self.means[layer]) / self.units[layer] for layer, seen in maps.items()}


class ProjectedGAN(nn.Module):
    """A small head for each feature map, which says of each place of it how real it looks.

    Departure from the paper: heads see VGG's maps as they are, without random mixing of channels and scales.

    Args:
        channels: of the map of each layer.
        width: channels between a head's two convolutions.
    """

    def __init__(self, channels: Mapping[str, int], width: int = 64) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                layer: nn.Sequential(
                    nn.Conv2d(count, width, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 3, padding=1)
                )
                for layer, count in channels.items()
            }
        )
        self.apply(initialise)

    def forward(self, maps: Mapping[str, Tensor]) -> list[Tensor]:
        """Judge maps, B C h w by layer: B 1 h w of each, about 1 where a place looks real and 0 where it does not."""
        return [head(maps[layer]) for layer, head in self.heads.items()]
