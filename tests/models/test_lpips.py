"""LPIPS against torchmetrics' own, with the learnt weights that it brings and a VGG-16 that nobody trained."""

from collections.abc import Callable
from functools import partial
from importlib.resources import files

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import lpips as reference
from torchvision.models import vgg16

from celebvision.models.lpips import LPIPS

Pair = tuple[LPIPS, Callable[[Tensor, Tensor], Tensor]]


@pytest.fixture(scope="module")
def both() -> Pair:
    """Ours and theirs over the same VGG-16, whose convolutions keep the scale of what they are given."""
    torch.manual_seed(0)
    features = vgg16(weights=None, init_weights=False).features
    for part in features:
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "_get_tv_model_features", lambda net, pretrained: features)
        theirs = reference._NoTrainLpips(net="vgg")
    ours = LPIPS()
    ours.load({f"features.{name}": value for name, value in features.state_dict().items()}, learnt())
    return ours, partial(theirs, normalize=True)


def learnt() -> dict[str, Tensor]:
    file = files("torchmetrics") / "functional" / "image" / "lpips_models" / "vgg.pth"
    with file.open("rb") as stream:
        return dict(torch.load(stream, weights_only=True, map_location="cpu"))


def pictures(seed: int, height: int = 48, width: int = 40) -> Tensor:
    """Coarse patches with some noise, 3 3 H W."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(3, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (smooth + 0.1 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("size", [(48, 40), (33, 64)])
def test_it_is_what_torchmetrics_finds(both: Pair, size: tuple[int, int]) -> None:
    ours, theirs = both
    one, other = pictures(1, *size), pictures(2, *size)
    found = ours(one, other)
    assert found.shape == (3,)
    assert found.min() > 0.1
    torch.testing.assert_close(found, theirs(one, other).flatten(), atol=1e-4, rtol=0)


def test_a_picture_is_at_no_distance_from_itself_and_nearer_to_one_with_little_noise(both: Pair) -> None:
    ours, _ = both
    one = pictures(1)
    noise = torch.randn(one.shape, generator=torch.Generator().manual_seed(3))
    assert ours(one, one).tolist() == [0, 0, 0]
    little, much = (ours(one, (one + share * noise).clamp(0, 1)) for share in (0.01, 0.1))
    assert (little < much).all()


def test_a_pair_does_not_hang_on_its_neighbours(both: Pair) -> None:
    ours, _ = both
    one, other = pictures(1), pictures(2)
    alone = torch.cat([ours(one[at : at + 1], other[at : at + 1]) for at in range(3)])
    torch.testing.assert_close(ours(one, other), alone)


def test_weights_of_another_network_are_refused(both: Pair) -> None:
    backbone = both[0].vgg.state_dict()
    with pytest.raises(ValueError, match="not vgg16's weights"):
        LPIPS().load({"conv1.weight": torch.zeros(1)}, learnt())
    with pytest.raises(ValueError, match=r"lin3\.model\.1\.weight is nothing"):
        LPIPS().load(backbone, {name: value for name, value in learnt().items() if "lin3" not in name})
    with pytest.raises(ValueError, match=r"lin0\.model\.1\.weight is \[1, 128, 1, 1\], expected \[1, 64, 1, 1\]"):
        LPIPS().load(backbone, learnt() | {"lin0.model.1.weight": learnt()["lin1.model.1.weight"]})
