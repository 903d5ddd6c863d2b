"""Changes before judging: random, each image by itself, and open to the generator's gradient."""

import pytest
import torch

from celebvision.models.diffaugment import Kind, diff_augment

KINDS: list[Kind] = ["colour", "translation", "cutout"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_kinds_nothing_changes() -> None:
    images = torch.randn(3, 3, 16, 16)
    assert torch.equal(diff_augment(images, [], seeded()), images)


def test_the_same_seed_gives_the_same_changes_and_each_image_its_own() -> None:
    images = torch.randn(1, 3, 16, 16).repeat(4, 1, 1, 1)
    changed = diff_augment(images, KINDS, seeded())
    assert torch.equal(changed, diff_augment(images, KINDS, seeded()))
    assert not torch.equal(changed, diff_augment(images, KINDS, seeded(1)))
    assert not torch.equal(changed[0], changed[1])
    assert changed.shape == images.shape


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_flows_through(kind: Kind) -> None:
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    diff_augment(images, [kind], seeded()).square().sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert (images.grad != 0).float().mean() > 0.5


def test_a_shift_is_of_at_most_an_eighth_and_leaves_the_rest_as_it_is() -> None:
    images = torch.arange(16.0 * 16).view(1, 1, 16, 16).expand(40, 3, 16, 16) + 1
    shifted = diff_augment(images, ["translation"], seeded())
    middles = shifted[:, 0, 8, 8] - images[:, 0, 8, 8]
    assert set(middles.tolist()) <= {16.0 * down + right for down in range(-2, 3) for right in range(-2, 3)}
    assert len(set(middles.tolist())) > 10


def test_a_cut_takes_up_to_a_quarter() -> None:
    cut = diff_augment(torch.ones(60, 3, 16, 16), ["cutout"], seeded())
    shares = (cut == 0).float().mean((1, 2, 3))
    assert float(shares.max()) == 0.25
    assert float(shares.min()) > 0.05


def test_colours_change_by_so_much() -> None:
    images = torch.zeros(200, 3, 4, 4)
    images[:, 0] = 1.0
    changed = diff_augment(images, ["colour"], seeded())
    mean = changed.mean((1, 2, 3))
    assert float((mean - 1 / 3).abs().max()) <= 0.5
    spread = changed[:, 0, 0, 0] - changed[:, 1, 0, 0]  # of red above green: saturation 0..2 times contrast ½..1½
    assert 0 <= float(spread.min()) < 0.2
    assert 2 < float(spread.max()) <= 3
