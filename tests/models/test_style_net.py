"""The network of several styles: what a style and a mixture are, what a pixel sees, and what tiles leave behind."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from celebvision.models import complete_arguments, create
from celebvision.models.cyclegan import CycleGAN, reflect
from celebvision.models.style_net import ConditionalNorm, StyleNet
from celebvision.models.stylizer import Stylizer, _filled

STYLES = ["night", "wave", "cafe"]


def made(**arguments: Any) -> StyleNet:
    """A network whose layers all matter, and whose styles differ."""
    torch.manual_seed(0)
    network = StyleNet(**{"styles": STYLES, "size": 16, "width": 8, "blocks": 2, **arguments})
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, ConditionalNorm):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
    return network.eval().requires_grad_(False)


def stylizer(network: StyleNet, tile: int = 1024) -> Stylizer:
    return Stylizer(network, tile=tile)  # type: ignore[arg-type]


def scene(height: int, width: int) -> Tensor:
    """Something with large shapes and fine noise, uint8 1 H W 3."""
    rng = np.random.default_rng(0)
    down, right = np.mgrid[:height, :width]
    waves = [np.sin(down / a + right / b) for a, b in ((19, 31), (40, -23), (-90, 60))]
    pixels = 128 + 70 * np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)[None])


def test_a_picture_of_any_size_keeps_its_shape_and_stays_in_range() -> None:
    network = made()
    for height, width in ((16, 16), (64, 64), (20, 100)):
        drawn = network(torch.rand(2, 3, height, width) * 2 - 1, torch.eye(3)[:2])
        assert drawn.shape == (2, 3, height, width)
        assert drawn.abs().max() <= 1


def test_a_style_costs_two_numbers_a_channel_of_each_norm() -> None:
    # 5 blocks, 32 channels. The first and the last convolution are 9x9; no biases where a norm follows.
    convolutions = 3 * 32 * 81 + 32 * 64 * 9 + 64 * 128 * 9 + 10 * 128 * 128 * 9 + 128 * 64 * 9 + 64 * 32 * 9
    last, norms = 32 * 3 * 81 + 3, 2 * (32 + 64 + 128 + 10 * 128 + 64 + 32)
    network = create("style_net", **complete_arguments("style_net", styles=STYLES))
    assert sum(parameter.numel() for parameter in network.parameters()) == convolutions + last + 3 * norms


def test_one_style_is_the_generator_with_instance_normalisation() -> None:
    """With the same weights, but for the larger edge convolutions, it computes what a CycleGAN's generator does."""
    network, generator = made(styles=["night"]), CycleGAN(16, 8, 2).eval()
    generator.first.conv, generator.first.padding = network.first.conv, 4
    own = {name: value[0] if ".norm." in name else value for name, value in network.state_dict().items()}
    kept = {name: value for name, value in own.items() if not name.startswith("last.")}
    generator.load_state_dict(generator.state_dict() | kept)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    features, wanted = (
        one.up(one.blocks(one.down(one.first(images)))) for one in (_with_shares(network, torch.ones(2, 1)), generator)
    )
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("skip", [True, False])
def test_with_skip_the_way_up_is_given_half_the_size_once_more(skip: bool) -> None:
    network = made(skip=skip)
    for silenced in (network.up[0].block.norm.weight, network.up[0].block.norm.bias):
        silenced.zero_()
    network.choose([1, 0, 2])
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    halved = network.down[0](network.first(images))
    features = network.up[1](halved if skip else torch.zeros_like(halved))
    light = network.light(images.mean(1, keepdim=True).expand(-1, 3, -1, -1)) if skip else 0
    torch.testing.assert_close(network(images), torch.tanh(network.last(reflect(features, 4)) + light))


def test_with_skip_it_begins_with_the_light_of_the_picture_whatever_its_colours_are() -> None:
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    tinted = 0.5 * images + torch.tensor([0.4, -0.2, 0.1]).view(3, 1, 1)
    network = StyleNet(STYLES, 16, 8, 2, skip=True).eval()
    for style in torch.eye(3).split(1):
        drawn, of_tinted = (network(each, style.expand(2, -1)) for each in (images, tinted))
        torch.testing.assert_close(drawn, of_tinted, rtol=0, atol=1e-3)
        for picture, shown in zip(images, drawn, strict=True):
            light = picture.mean(0)
            wanted = torch.tanh(0.5 * (light - light.mean()) / light.std(correction=0))
            torch.testing.assert_close(shown, wanted.expand(3, -1, -1), rtol=0, atol=1e-3)


def _with_shares(network: StyleNet, shares: Tensor) -> StyleNet:
    for norm in network._norms():
        norm.shares = shares
    return network


def test_each_picture_of_a_batch_is_drawn_in_its_own_style() -> None:
    network = made()
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    together = network(image.expand(3, -1, -1, -1), torch.eye(3))
    alone = torch.cat([network(image, torch.eye(3)[style : style + 1]) for style in range(3)])
    torch.testing.assert_close(together, alone)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (alone[one] - alone[other]).abs().mean() > 0.05


def test_a_mixture_mixes_scales_and_offsets() -> None:
    network = made()
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    network.choose([1, 0, 3])  # shares of their sum
    mixed = network(images)
    torch.testing.assert_close(mixed, network(images, torch.tensor([[0.25, 0, 0.75]]).expand(2, -1)))
    by_hand = made()
    for norm in by_hand._norms():
        norm.weight[0] = 0.25 * norm.weight[0] + 0.75 * norm.weight[2]
        norm.bias[0] = 0.25 * norm.bias[0] + 0.75 * norm.bias[2]
    torch.testing.assert_close(mixed, by_hand(images, torch.eye(3)[:1].expand(2, -1)))


def test_a_style_is_chosen_once_and_forms_no_part_of_the_weights() -> None:
    network, names = made(), set(made().state_dict())
    with pytest.raises(ValueError, match="choose a style first"):
        network(torch.zeros(1, 3, 16, 16))
    network.choose([0, 1, 0])
    assert set(network.state_dict()) == names
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(network(images), network(images, torch.eye(3)[1:2]))
    made(styles=["night"])(torch.zeros(1, 3, 16, 16))  # of one there is nothing to choose


@pytest.mark.parametrize("shares", [[1, 1], [0, 0, 0], [1, -1, 1]])
def test_what_is_no_mixture_is_refused(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="shares: one for each of night, wave, cafe"):
        made().choose(shares)


@pytest.mark.parametrize(
    "arguments",
    [{"size": 10}, {"size": 12}, {"width": 0}, {"blocks": 0}]
    + [{"styles": names} for names in ([], [""], ["a", "a"], ["a.b"], ["a/b"])],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"size|width|styles"):
        StyleNet(**{"styles": STYLES, **arguments})


@pytest.mark.parametrize(("blocks", "skip"), [(1, False), (3, False), (3, True)])
def test_a_pixel_depends_on_no_more_than_its_reach(blocks: int, skip: bool) -> None:
    network = made(width=4, blocks=blocks, skip=skip)
    for norm in network._norms():  # which see everything
        channels = norm.weight.shape[1]
        norm.kept = torch.zeros(channels), torch.ones(channels)
    network.choose([1, 0, 0])
    images = torch.rand(1, 3, 256, 256, requires_grad=True)
    network(images)[0, :, 128, 128].sum().backward()
    assert images.grad is not None
    rows = (images.grad[0].abs().sum(0) > 0).any(1).nonzero()
    furthest = max(128 - int(rows.min()), int(rows.max()) - 128)
    assert network.reach - 16 <= furthest <= network.reach


@pytest.mark.parametrize(("styles", "skip"), [(STYLES, False), (STYLES, True), (["night"], False)])
def test_tiles_give_what_the_whole_gives(styles: list[str], skip: bool) -> None:
    network, picture = made(styles=styles, skip=skip), scene(310, 457)
    if len(styles) > 1:
        network.choose([1, 1, 0])
    tiled, wide = stylizer(network, tile=144), stylizer(network)
    tiled.autocast = wide.autocast = False
    pixels = _filled(picture)
    with torch.inference_mode(), tiled._statistics_of(pixels):
        whole = tiled._forward(pixels)[:, :310, :457]
    assert (tiled.draw(picture).int() - whole.int()).abs().max() <= 1  # a rounding apart
    assert wide.draw(picture).shape == picture.shape


def test_bfloat16_draws_nearly_what_float32_draws() -> None:
    network = made()
    network.choose([1, 0, 1])
    drawing = stylizer(network)
    if not drawing.autocast:
        pytest.skip("this device does not compute in bfloat16")
    picture = scene(64, 64)
    coarse = drawing.draw(picture).int()
    drawing.autocast = False
    assert (coarse - drawing.draw(picture).int()).abs().float().mean() < 6
