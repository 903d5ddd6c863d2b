"""KID and FID against plain formulations, and the features they are of against real weights."""

import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from celebvision import images
from celebvision.models.features import fid, kid, make_features

DATA = os.environ.get("CELEBVISION_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="CELEBVISION_TEST_DATA names no folder with real weights")


def sets(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ours = torch.randn(9, 5, generator=generator)
    return ours, torch.randn(7, 5, generator=generator) * 2 + 1


def test_kid_is_the_mean_over_all_pairs() -> None:
    ours, theirs = sets()

    def kernel(x: Tensor, y: Tensor) -> float:
        return float(x.double() @ y.double() / 5 + 1) ** 3

    within = [
        np.mean([kernel(a, b) for (i, a), (j, b) in product(enumerate(some), repeat=2) if i != j])
        for some in (ours, theirs)
    ]
    across = np.mean([kernel(a, b) for a, b in product(ours, theirs)])
    assert kid(ours, theirs) == pytest.approx(within[0] + within[1] - 2 * across)


def test_fid_is_the_distance_of_two_gaussians() -> None:
    ours, theirs = (z.double() for z in sets())
    s, t = torch.cov(ours.T), torch.cov(theirs.T)
    values, vectors = torch.linalg.eigh(s)
    root = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ t @ root).clamp_min(0).sqrt().sum()  # trace of (S T)^½
    means = (ours.mean(0) - theirs.mean(0)).square().sum()
    assert fid(ours, theirs) == pytest.approx(float(means + s.trace() + t.trace() - 2 * cross))


def test_sets_of_one_kind_are_near_and_of_two_are_far() -> None:
    generator = torch.Generator().manual_seed(1)
    some, more, other = (torch.randn(400, 8, generator=generator) + shift for shift in (0, 0, 1))
    assert abs(kid(some, more)) < 0.05 < kid(some, other)
    assert fid(some, some) == pytest.approx(0, abs=1e-6)
    assert fid(some, more) < fid(some, other)


def test_standardised_features_do_not_hang_on_their_scale() -> None:
    ours, theirs = sets()
    scale = torch.tensor([1.0, 10.0, 100.0, 0.1, 7.0])
    for distance in (kid, fid):
        plain, scaled = distance(ours, theirs, True), distance(ours * scale, theirs * scale, True)
        assert plain == pytest.approx(scaled, rel=1e-4)


@pytest.mark.parametrize("name", ["vgg19:relu4_3", "vgg16:relu6_1", "vgg16:relu1_3", "resnet"])
def test_unknown_features_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"there are|has 2 layers"):
        make_features(name)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="not vgg16's weights: missing"):
        make_features("vgg16:relu2_2").load({"conv1.weight": torch.zeros(1)})


@needs_data
def test_real_photos_are_further_from_sketches_than_grey_ones_are() -> None:
    features = make_features("vgg16:relu4_3")
    features.load(safetensors.torch.load_file(f"{DATA}/weights/vgg16_features.safetensors"))

    def read(folder: str) -> Tensor:
        files = sorted(Path(f"{DATA}/data/{folder}").glob("*.jpg"))[:40]
        return torch.from_numpy(np.stack([images.decode(file.read_bytes(), 64, 64) for file in files]))

    photos, sketches = read("pairs/photo"), read("styles/sketch")
    grey = photos.float().mean(3, keepdim=True).expand(-1, -1, -1, 3).to(torch.uint8)
    of_photos, of_grey, of_sketches = (features.of(pictures) for pictures in (photos, grey, sketches))
    assert of_photos.shape == (40, 1024)
    far, nearer = (kid(some, of_sketches, standardise=True) for some in (of_photos, of_grey))
    assert 0.3 < nearer / far < 0.7


@needs_data
def test_inception_takes_torchvisions_names_without_the_head() -> None:
    features = make_features("inception_v3")
    weights = safetensors.torch.load_file(f"{DATA}/weights/inception_v3_backbone.safetensors")
    features.load({name: weight.float() for name, weight in weights.items()})
    pictures = torch.randint(0, 255, (2, 40, 50, 3), dtype=torch.uint8)
    assert features.of(pictures).shape == (2, 2048)
