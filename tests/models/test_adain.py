"""AdaIN: what becomes of features, what a style is, what a pixel sees, and what tiles leave behind."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from celebvision.models import complete_arguments, create
from celebvision.models.adain import AdaIN
from celebvision.models.stylizer import Stylizer, _filled
from celebvision.models.vgg import VGG


def made(**arguments: Any) -> AdaIN:
    """A network whose layers all matter, VGG's and the decoder's."""
    torch.manual_seed(0)
    network = AdaIN(**{"arch": "vgg16", "size": 16, "width": 0.05, **arguments})
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    nn.init.normal_(network.decoder.parts[-1].conv.weight, 0, 0.02)
    return network.eval().requires_grad_(False)


def scene(height: int, width: int, seed: int = 0) -> Tensor:
    """Something with large shapes and fine noise, uint8 1 H W 3."""
    rng = np.random.default_rng(seed)
    down, right = np.mgrid[:height, :width]
    waves = [np.sin(down / a + right / b) for a, b in rng.uniform(10, 60, (3, 2))]
    pixels = 128 + 70 * np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)[None])


def chosen(network: AdaIN, *pictures: Tensor, weights: list[float] | None = None, alpha: float = 1.0) -> AdaIN:
    network.choose(network.statistics(pictures, weights or [1.0] * len(pictures)), alpha)
    return network


def stylizer(network: AdaIN, tile: int = 1024) -> Stylizer:
    drawing = Stylizer(network, tile=tile)  # type: ignore[arg-type]
    drawing.autocast = False
    return drawing


def test_the_decoder_mirrors_the_encoder() -> None:
    network = create("adain", **complete_arguments("adain"))
    assert isinstance(network, AdaIN)
    there = [module for module in network.encoder.modules() if isinstance(module, nn.Conv2d)]
    back = [module for module in network.decoder.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.in_channels, conv.out_channels) for conv in there] == [
        (conv.out_channels, conv.in_channels) for conv in reversed(back)
    ]
    narrow = AdaIN(width=0.25)
    assert sum(p.numel() for p in narrow.decoder.parameters()) < 0.15 * sum(
        p.numel() for p in network.decoder.parameters()
    )


def test_all_that_draws_is_among_the_weights_and_only_the_decoder_learns() -> None:
    network = AdaIN("vgg16", 16, 0.05)
    names = set(network.state_dict())
    assert {name for name in names if name.startswith("encoder.")} == {
        f"encoder.{name}" for name in VGG("vgg16", ["conv4_1"]).state_dict()
    }
    learn = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learn == {name for name in names if name.startswith("decoder.")}
    chosen(network, scene(16, 16))
    assert set(network.state_dict()) == names


def test_features_get_the_styles_mean_and_deviation() -> None:
    """Equation 8, written down once more."""
    network = made()
    photos, styles = (torch.rand(2, 3, 32, 40) * 2 - 1 for _ in range(2))
    x, y = network.encode(photos), network.encode(styles)
    mean, deviation = (
        (lambda z: z.mean((2, 3), keepdim=True)),
        (lambda z: (z.var((2, 3), False, keepdim=True) + 1e-5).sqrt()),
    )
    wanted = deviation(y) * (x - mean(x)) / deviation(x) + mean(y)
    torch.testing.assert_close(network.target(photos, styles), wanted, rtol=1e-3, atol=1e-3)


def test_a_chosen_style_is_that_of_training() -> None:
    network, photo, style = made(size=32), scene(32, 32, 1), scene(32, 32, 2)
    normal = [picture.permute(0, 3, 1, 2).float() / 127.5 - 1 for picture in (photo, style)]
    wanted = network.decoder(network.target(*normal))
    torch.testing.assert_close(chosen(network, style)(normal[0]), wanted, rtol=1e-3, atol=1e-4)


def test_a_mixture_is_the_weighted_mean_of_statistics() -> None:
    network, pictures = made(), [scene(30, 40, 1), scene(50, 20, 2)]
    one, other = (network.statistics([picture], [1.0]) for picture in pictures)
    mixed = network.statistics(pictures, [1, 3])
    for name in ("mean", "deviation"):
        torch.testing.assert_close(mixed[name], 0.25 * one[name] + 0.75 * other[name])
        assert not torch.allclose(one[name], other[name])


def test_alpha_draws_from_the_picture_itself_to_the_style() -> None:
    network, style = made(), scene(32, 32, 2)
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    features = network.encode(images)
    nothing, half, whole = (chosen(network, style, alpha=alpha)(images) for alpha in (0.0, 0.5, 1.0))
    torch.testing.assert_close(nothing, network.decoder(features))
    assert (nothing - half).abs().mean() < (nothing - whole).abs().mean()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 17), (16, 16), (21, 100), (64, 60)])
def test_pictures_of_any_size_are_drawn_and_styles_may_have_any(height: int, width: int) -> None:
    network = chosen(made(), scene(height, width, 4))
    pictures = torch.cat([scene(height, width, seed) for seed in range(2)])
    drawn = stylizer(network).draw(pictures)
    assert drawn.shape == pictures.shape
    assert drawn.dtype == torch.uint8


def test_without_a_style_nothing_is_drawn() -> None:
    network = made()
    with pytest.raises(ValueError, match="choose one first"):
        network(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="a picture at least"):
        network.statistics([], [])
    with pytest.raises(ValueError, match="a weight for each"):
        network.statistics([scene(16, 16)], [1, 2])
    with pytest.raises(ValueError, match="512 each"):
        network.choose({"mean": torch.zeros(4), "deviation": torch.zeros(4)})
    with pytest.raises(ValueError, match="alpha"):
        chosen(network, scene(16, 16), alpha=1.5)


@pytest.mark.parametrize("arguments", [{"size": 20}, {"size": 8}, {"width": 0}, {"width": 9}, {"arch": "resnet"}])
def test_impossible_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"size|width|arch"):
        AdaIN(**arguments)


@pytest.mark.parametrize("arch", ["vgg16", "vgg19"])
def test_a_pixel_depends_on_no_more_than_its_reach(arch: str) -> None:
    network = chosen(made(arch=arch), scene(16, 16))
    network.norm.kept = torch.zeros(512), torch.ones(512)  # else it sees everything
    images = torch.rand(1, 3, 256, 256, requires_grad=True)
    drawn = network(images)
    furthest = 0
    for middle in (128, 135):  # at both ends of a cell of the encoder's grid
        (gradient,) = torch.autograd.grad(drawn[0, :, middle, middle].sum(), images, retain_graph=True)
        rows = (gradient[0].abs().sum(0) > 0).any(1).nonzero()
        furthest = max(furthest, middle - int(rows.min()), int(rows.max()) - middle)
    assert network.reach - 16 <= furthest <= network.reach


def test_tiles_give_what_the_whole_gives() -> None:
    network, picture = chosen(made(), scene(30, 30, 3)), scene(308, 450)
    tiled = stylizer(network, tile=208)
    pixels = _filled(picture)
    with torch.inference_mode(), tiled._statistics_of(pixels):
        whole = tiled._forward(pixels)[:, :308, :450]
    assert (tiled.draw(picture).int() - whole.int()).abs().max() <= 1  # a rounding apart
    assert whole.float().std() > 10
