"""Judging pictures by what a pretrained network sees of them."""

import pytest
import torch

from celebvision.models.projected import ProjectedGAN, Projection
from celebvision.models.vgg import VGG


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.randint(256, (20, 16, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_each_channel_has_one_unit_whatever_the_scale_of_the_weights(pictures: torch.Tensor) -> None:
    torch.manual_seed(0)
    vgg = VGG("vgg16", ["conv1_1", "conv2_2"])
    vgg.features[0].weight.data *= 50
    projection = Projection(vgg, pictures)
    assert projection.channels == {"conv1_1": 64, "conv2_2": 128}
    maps = projection(pictures.permute(0, 3, 1, 2) / 127.5 - 1)
    assert {layer: tuple(seen.shape) for layer, seen in maps.items()} == {
        "conv1_1": (20, 64, 16, 24),
        "conv2_2": (20, 128, 8, 12),
    }
    for layer, seen in maps.items():
        deviations = projection.units[layer].flatten()
        assert deviations.min() > 0.2 * deviations.mean(), "a channel that is nearly dead is made loud"
        alive = deviations > deviations.min()
        assert alive.sum() > 16
        torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(len(deviations)), rtol=0, atol=1e-3)
        torch.testing.assert_close(seen.std((0, 2, 3))[alive], torch.ones(int(alive.sum())), rtol=1e-3, atol=0)


def test_a_verdict_is_of_each_place_and_pictures_learn_from_it_but_vgg_does_not(pictures: torch.Tensor) -> None:
    vgg = VGG("vgg16", ["conv1_2", "conv3_1"])
    projection = Projection(vgg, pictures)
    judge = ProjectedGAN(projection.channels, width=8)
    images = torch.zeros(2, 3, 16, 24, requires_grad=True)
    verdicts = judge(projection(images))
    assert [tuple(verdict.shape) for verdict in verdicts] == [(2, 1, 16, 24), (2, 1, 4, 6)]
    sum(verdict.sum() for verdict in verdicts).backward()
    assert images.grad is not None
    assert images.grad.any()
    assert all(parameter.grad is None for parameter in vgg.parameters())
    assert all(parameter.grad is not None for parameter in judge.parameters())
