"""Generator and discriminator: what they compute, what one of their pixels sees, and what tiles leave behind."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from celebvision.models import complete_arguments, create
from celebvision.models.cyclegan import CycleGAN, InstanceNorm, PatchGAN, Up, blur_down
from celebvision.models.stylizer import Stylizer, _filled


def made(**arguments: object) -> CycleGAN:
    """A generator whose layers all matter: the first weights are so small that tanh would be nearly 0 everywhere."""
    torch.manual_seed(0)
    network = CycleGAN(**{"size": 16, "width": 8, "blocks": 2, **arguments})  # type: ignore[arg-type]
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network


def scene(height: int, width: int, seed: int = 0) -> Tensor:
    """Something with large shapes and fine noise, uint8 1 H W 3."""
    rng = np.random.default_rng(seed)
    down, right = np.mgrid[:height, :width]
    waves = [np.sin(down / a + right / b) for a, b in ((19, 31), (40, -23), (-90, 60))]
    pixels = 128 + 70 * np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)[None])


@pytest.mark.parametrize("arguments", [{}, {"antialias": True}, {"skip": True}])
def test_a_picture_of_any_size_keeps_its_shape_and_stays_in_range(arguments: dict[str, bool]) -> None:
    network = made(**arguments)
    for height, width in ((16, 16), (64, 64), (20, 100)):
        drawn = network(torch.rand(2, 3, height, width) * 2 - 1)
        assert drawn.shape == (2, 3, height, width)
        assert drawn.abs().max() <= 1


def test_the_paper_generator_has_the_parameters_of_the_paper() -> None:
    # 9 blocks, 64 channels. Convolutions as in the paper, but 3x3 ones without stride on the way up; no biases where
    # a norm follows, and two numbers a channel in each norm.
    convolutions = 3 * 64 * 49 + 64 * 128 * 9 + 128 * 256 * 9 + 18 * 256 * 256 * 9 + 256 * 128 * 9 + 128 * 64 * 9
    last, norms = 64 * 3 * 49 + 3, 2 * (64 + 128 + 256 + 18 * 256 + 128 + 64)
    network = create("cyclegan", **complete_arguments("cyclegan"))
    assert sum(parameter.numel() for parameter in network.parameters()) == convolutions + last + norms


def test_with_a_skip_what_is_drawn_is_added_to_the_picture() -> None:
    torch.manual_seed(0)
    network = CycleGAN(size=16, width=8, blocks=1, skip=True)
    images = torch.rand(2, 3, 20, 24) * 2 - 1
    assert (network(images) - images).abs().mean() < 0.3, "a network that learnt nothing draws something else"
    nn.init.zeros_(network.last.weight)
    torch.testing.assert_close(network(images), images, rtol=0, atol=0.021)  # black and white are tanh's limits
    network(images).square().mean().backward()
    assert network.last.weight.grad is not None
    assert network.last.weight.grad.any()


@pytest.mark.parametrize("arguments", [{"size": 10}, {"size": 12}, {"width": 0}, {"blocks": 0}])
def test_impossible_arguments_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"size|width"):
        CycleGAN(**arguments)  # type: ignore[arg-type]


def seen_by_the_middle(network: nn.Module, side: int) -> Tensor:
    """Where the input matters to the output's middle place; the norms are switched off, since they see everything."""
    for module in network.modules():
        if isinstance(module, InstanceNorm):
            module.kept = torch.zeros(len(module.weight)), torch.ones(len(module.weight))
    images = torch.rand(1, 3, side, side, requires_grad=True)
    judged = network(images)
    judged[0, :, judged.shape[2] // 2, judged.shape[3] // 2].sum().backward()
    assert images.grad is not None
    return images.grad[0].abs().sum(0) > 0


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_verdict_is_of_a_patch(layers: int, patch: int) -> None:
    seen = seen_by_the_middle(PatchGAN(width=4, layers=layers), 256)
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    assert int(rows.max() - rows.min()) + 1 == patch
    assert int(columns.max() - columns.min()) + 1 == patch


@pytest.mark.parametrize(("blocks", "antialias"), [(1, False), (3, False), (3, True)])
def test_a_pixel_depends_on_no_more_than_its_reach(blocks: int, antialias: bool) -> None:
    network = made(width=4, blocks=blocks, antialias=antialias)
    rows = seen_by_the_middle(network, 256).any(1).nonzero()
    furthest = max(128 - int(rows.min()), int(rows.max()) - 128)
    assert network.reach - 16 <= furthest <= network.reach


def test_instance_normalisation_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = InstanceNorm(6), nn.InstanceNorm2d(6, affine=True)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.arange(6) + 1.0)
            norm.bias.copy_(torch.arange(6) - 2.0)
    features = torch.randn(3, 6, 9, 7).contiguous(memory_format=torch.channels_last)
    inputs = [features.clone().requires_grad_() for _ in range(2)]
    outputs = [norm(given) for norm, given in zip((ours, theirs), inputs, strict=True)]
    torch.testing.assert_close(*outputs)
    assert outputs[0].is_contiguous(memory_format=torch.channels_last)
    weights = torch.randn_like(outputs[0])
    for output in outputs:
        (output * weights).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


def test_growing_leaves_no_checkerboard() -> None:
    torch.manual_seed(0)
    grown = Up(4, 4)
    for module in grown.modules():
        if isinstance(module, InstanceNorm):
            module.kept = torch.zeros(4), torch.ones(4)
    flat = torch.rand(1, 4, 1, 1).expand(1, 4, 8, 8)
    assert float(grown(flat).detach().std(dim=(2, 3)).max()) < 1e-6
    torn = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1)  # what the paper has
    assert float(torn(flat).detach().std(dim=(2, 3)).max()) > 1e-3


def test_the_blur_takes_away_what_a_smaller_picture_cannot_show() -> None:
    stripes = torch.tensor([1.0, -1.0]).repeat(16).expand(1, 2, 32, 32)
    assert float(blur_down(stripes)[..., 1:].abs().max()) < 1e-6
    assert float(blur_down(torch.ones(1, 2, 32, 32)).sub(1).abs().max()) < 1e-6


def test_statistics_from_outside_last_for_a_block() -> None:
    network = made().eval()
    images, others = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32) / 2
    before = network(others)
    with network.statistics_of(images):
        torch.testing.assert_close(network(images), network(images))
        assert not torch.allclose(network(others), before)
    torch.testing.assert_close(network(others), before)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (3, 17), (16, 16), (21, 100), (64, 64)])
def test_pictures_of_any_size_are_drawn(height: int, width: int) -> None:
    pictures = torch.cat([scene(height, width, seed) for seed in range(3)])
    stylizer = Stylizer(made())
    drawn = stylizer.draw(pictures)
    assert drawn.shape == pictures.shape
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn, stylizer.draw(pictures))


def test_what_is_no_batch_of_pictures_is_refused() -> None:
    stylizer = Stylizer(made())
    byte = torch.uint8
    for wrong in (torch.zeros(4, 4, 3, dtype=byte), torch.zeros(1, 4, 4, 3), torch.zeros(0, 4, 4, 3, dtype=byte)):
        with pytest.raises(ValueError, match="expected uint8 pictures"):
            stylizer.draw(wrong)
    with pytest.raises(ValueError, match="tile"):
        Stylizer(made(), tile=64)


@pytest.mark.parametrize("skip", [False, True])
def test_tiles_give_what_the_whole_gives(skip: bool) -> None:
    picture = scene(310, 457)
    tiled, wide = Stylizer(made(skip=skip), tile=144), Stylizer(made(skip=skip), tile=1024)
    tiled.autocast = wide.autocast = False
    pixels = _filled(picture)
    with torch.inference_mode(), tiled._statistics_of(pixels):
        whole = tiled._forward(pixels)[:, :310, :457]
    difference = (tiled.draw(picture).int() - whole.int()).abs()
    assert difference.max() <= 1  # a rounding apart, where kernels sum in another order


def test_tiles_leave_no_seam() -> None:
    picture = scene(400, 400)
    stylizer = Stylizer(made(), tile=144)
    drawn = stylizer.draw(picture)[0].numpy().astype(float)
    steps = np.abs(np.diff(drawn, axis=1)).mean(axis=(0, 2))  # between neighbouring columns
    step = 144 - 2 * stylizer.margin
    seams = np.arange(step - 1, 399, step)
    others = np.delete(steps, seams)
    assert len(seams) > 3
    assert steps[seams].mean() < others.mean() * 1.1
    assert steps[seams].max() <= others.max()


def test_bfloat16_draws_nearly_what_float32_draws() -> None:
    stylizer = Stylizer(made())
    if not stylizer.autocast:
        pytest.skip("this device does not compute in bfloat16")
    picture = scene(64, 64)
    coarse = stylizer.draw(picture).int()
    stylizer.autocast = False
    assert (coarse - stylizer.draw(picture).int()).abs().float().mean() < 6
