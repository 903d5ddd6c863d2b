"""How different two pictures look: LPIPS of VGG-16 (Zhang et al. 2018, arXiv:1801.03924)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from celebvision.models.vgg import VGG

ARCH = "vgg16"
LAYERS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")
CHANNELS = (64, 128, 256, 512, 512)
SMALLEST = 16  # pixels of a side, which VGG-16 halves four times
EPSILON = 1e-10


class LPIPS(nn.Module):
    """The distance of VGG-16's features in five layers, each channel weighed as people's answers taught it.

    Features are brought to length one at every place; the squared difference in each channel counts by a learnt
    weight, places count alike, and layers are added (equation 1). 0: the same picture. Nothing here learns.
    """

    def __init__(self) -> None:
        super().__init__()
        # The published input scaling, of -1..1, is ImageNet's, of 0..1, but for rounding to three digits.
        self.vgg = VGG(ARCH, LAYERS)
        for number, channels in enumerate(CHANNELS):
            self.register_buffer(f"weight{number}", torch.zeros(channels))  # C

    @torch.no_grad()
    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """The distance of each pair, float32 B, of float32 B 3 H W, 0..1, both sides 16 pixels at least."""
        ours, theirs = self.vgg(images), self.vgg(others)
        found = images.new_zeros(len(images))
        for number, layer in enumerate(LAYERS):
            one, other = (functional.normalize(maps[layer].float(), dim=1, eps=EPSILON) for maps in (ours, theirs))
            weighed = (one - other).square() * self.get_buffer(f"weight{number}").view(1, -1, 1, 1)
            found = found + weighed.sum(1).mean((1, 2))
        return found

    def load(self, backbone: Mapping[str, Tensor], linear: Mapping[str, Tensor]) -> None:
        """Load VGG-16 by torchvision's key names, and the learnt weights by those of the authors' file.

        Args:
            linear: `lin0.model.1.weight` to `lin4.model.1.weight`, 1 C 1 1 each.

        Raises:
            ValueError: a tensor is missing, or of another shape; the message says which.
        """
        self.vgg.load(backbone)
        for number, channels in enumerate(CHANNELS):
            key = f"lin{number}.model.1.weight"
            if key not in linear or linear[key].numel() != channels:
                found = list(linear[key].shape) if key in linear else "nothing"
                raise ValueError(
                    f"not the weights of LPIPS over VGG-16: {key} is {found}, expected [1, {channels}, 1, 1]"
                )
            self.get_buffer(f"weight{number}").copy_(linear[key].flatten())
