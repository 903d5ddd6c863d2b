"""What sets of pictures are compared by: features of a pretrained network, and the distances KID and FID of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from celebvision.models.vgg import VGG

INCEPTION = "inception_v3"
VGG16 = re.compile(r"vgg16:(relu[1-5]_[1-3])")
INCEPTION_SIZE = 299
BATCH = 32
NAMES = "inception_v3, or vgg16:relu4_3 and the like"


class Features(nn.Module):
    """Maps pictures to vectors. `standardise`: each feature is to be brought to one scale before sets are compared."""

    name: str  # of the network
    standardise = False

    @torch.inference_mode()
    def of(self, pictures: Tensor) -> Tensor:
        """Features of `pictures`, uint8 B H W 3 of any size, on the network's device: float32 B F on the CPU."""
        device = next(self.parameters()).device
        parts = [self(part.to(device).permute(0, 3, 1, 2).float() / 255).cpu() for part in pictures.split(BATCH)]
        return torch.cat(parts).float()


class InceptionFeatures(Features):
    """The 2,048 pooled features of torchvision's InceptionV3.

    Its ImageNet weights are not those of the TensorFlow graph that published FIDs were measured with: compare figures
    with each other, not with papers.
    """

    name = INCEPTION

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models.inception import Inception3

        self.network = Inception3(aux_logits=False, transform_input=False, init_weights=False)
        self.network.fc = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Features, B 2048, of images, B 3 H W, 0..1."""
        size = (INCEPTION_SIZE, INCEPTION_SIZE)
        images = functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        features: Tensor = self.network(2 * images - 1)
        return features

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights by torchvision's key names, with or without head. Raises `ValueError` if they do not fit."""
        given = {key: value for key, value in weights.items() if not key.startswith(("fc.", "AuxLogits."))}
        _load(self.network, given, self.name)


class VGGStatistics(Features):
    """Each channel's mean and deviation over the places of a layer of VGG-16 (Simonyan and Zisserman 2014).

    What the statistics of feature maps tell of style, without where things stand (Li et al. 2017, arXiv:1701.01036).
    """

    name = "vgg16"
    standardise = True

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer.replace("relu", "conv")  # `VGG` gives each convolution behind its ReLU
        self.vgg = VGG(self.name, [self.layer])

    def forward(self, images: Tensor) -> Tensor:
        """Statistics, B 2C, of images, B 3 H W, 0..1."""
        maps = self.vgg(images)[self.layer]
        return torch.cat((maps.mean((2, 3)), maps.std((2, 3))), dim=1)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights by torchvision's key names; later layers' are ignored. Raises `ValueError` if they don't fit."""
        self.vgg.load(weights)


def make_features(name: str) -> InceptionFeatures | VGGStatistics:
    """The features that a setting names; their weights are to be loaded.

    Raises:
        ValueError: an unknown name, or no layer of VGG-16; the message lists what there is.
    """
    if name == INCEPTION:
        return InceptionFeatures()
    if match := VGG16.fullmatch(name):
        return VGGStatistics(match[1])
    raise ValueError(f"{name!r} is unknown; there are: {NAMES}")


def kid(ours: Tensor, theirs: Tensor, standardise: bool = False) -> float:
    """Kernel Inception Distance: the unbiased squared MMD with the kernel (x·y / F + 1)³ (Bińkowski et al. 2018).

    Args:
        ours, theirs: features, N F and M F, at least two of each.
        standardise: bring each feature to mean 0 and deviation 1 over both sets first.
    """
    x, y = _standardised(ours, theirs) if standardise else (ours.double(), theirs.double())
    xx, yy, xy = ((a @ b.T / a.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = sum((k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (xx, yy))
    return float(within - 2 * xy.mean())


def fid(ours: Tensor, theirs: Tensor, standardise: bool = False) -> float:
    """Fréchet distance of the Gaussians fitted to both sets (Heusel et al. 2017, arXiv:1706.08500).

    |m - n|² + tr(S + T - 2 (S T)^½). With fewer pictures than features it is biased upwards: compare equal counts.

    Args:
        ours, theirs, standardise: as `kid`.
    """
    x, y = _standardised(ours, theirs) if standardise else (ours.double(), theirs.double())
    # The trace of (S T)^½ is the sum of the singular values of A B' where S = A'A and T = B'B: no F by F matrix.
    a, b = ((z - z.mean(0)) / (len(z) - 1) ** 0.5 for z in (x, y))
    cross = torch.linalg.svdvals(a @ b.T).sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * cross)


def _standardised(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    both = torch.cat((ours, theirs)).double()
    mean, deviation = both.mean(0), both.std(0).clamp_min(1e-8)
    return (ours.double() - mean) / deviation, (theirs.double() - mean) / deviation


def _load(network: nn.Module, given: Mapping[str, Tensor], name: str) -> None:
    try:
        loaded = network.load_state_dict(dict(given), strict=False)
    except RuntimeError as error:
        raise ValueError(f"not {name}'s weights: {error}") from None
    missing = [key for key in loaded.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or loaded.unexpected_keys:
        raise ValueError(f"not {name}'s weights: missing {missing[:3]}, unknown {loaded.unexpected_keys[:3]}")
    network.eval().requires_grad_(False)
