from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from celebvision.models.augment import Augmentation, augment

NONE = Augmentation(**dict.fromkeys(asdict(Augmentation()), 0.0))


def faces(batch: int = 8) -> Tensor:
    pixels = torch.rand(batch, 109, 89, 3, generator=torch.Generator().manual_seed(1))
    return (2 * pixels - 1).permute(0, 3, 1, 2)


def run(images: Tensor, strength: Augmentation, seed: int = 0) -> Tensor:
    return augment(images, torch.Generator().manual_seed(seed), strength)


def test_shape_type_and_range_are_kept_and_the_input_too() -> None:
    images = faces()
    before = images.clone()
    result = run(images, Augmentation())
    assert result.shape == images.shape
    assert result.dtype == images.dtype
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.abs().max() < 2.2
    assert torch.equal(images, before)


def test_a_seed_gives_the_same_images_and_another_seed_others() -> None:
    assert torch.equal(run(faces(), Augmentation()), run(faces(), Augmentation()))
    assert not torch.equal(run(faces(), Augmentation()), run(faces(), Augmentation(), seed=1))


def test_autocast_does_not_coarsen_it() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = run(faces(), Augmentation())
    assert torch.equal(coarse, run(faces(), Augmentation()))


def test_without_strength_nothing_changes() -> None:
    torch.testing.assert_close(run(faces(), NONE), faces(), atol=1e-4, rtol=0)


def test_a_flip_is_exact_and_strikes_about_its_share() -> None:
    images = faces(200)
    result = run(images, Augmentation(**asdict(NONE) | {"flip": 0.5}))
    kept = (result - images).abs().amax(dim=(1, 2, 3)) < 1e-3
    flipped = (result - images.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-3
    assert bool((kept ^ flipped).all())
    assert 70 < int(flipped.sum()) < 130


def test_a_rotation_keeps_a_disc_round() -> None:
    """The axes of the sampling grid are scaled by the sides; a sheared disc would move its pixels by several."""
    rows, columns = torch.meshgrid(torch.arange(109) - 54.0, torch.arange(89) - 44.0, indexing="ij")
    disc = ((rows**2 + columns**2).sqrt() < 30).float().expand(4, 3, -1, -1)
    result = run(disc, Augmentation(**asdict(NONE) | {"rotation_deg": 45.0}))
    assert (result - disc).abs().mean() < 0.01


@pytest.mark.parametrize("kind", ["shift", "scale", "rotation_deg", "brightness", "contrast", "saturation", "erase"])
def test_each_kind_changes_each_image_differently(kind: str) -> None:
    amount = {"rotation_deg": 10.0, "erase": 1.0}.get(kind, 0.2)
    images = faces(1).expand(2, -1, -1, -1)
    result = run(images, Augmentation(**asdict(NONE) | {kind: amount}))
    assert not torch.allclose(result[0], images[0], atol=1e-3)
    assert not torch.allclose(result[0], result[1], atol=1e-3)


def test_erasing_blanks_one_rectangle_of_the_stated_size() -> None:
    result = run(torch.ones(50, 3, 109, 89), Augmentation(**asdict(NONE) | {"erase": 1.0}))
    for image in result:
        hole = (image[0] == 0).nonzero()
        height, width = (hole.amax(dim=0) - hole.amin(dim=0) + 1).tolist()
        assert len(hole) == height * width
        assert 0.08 < height / 109 < 0.47
        assert 0.08 < width / 89 < 0.47
