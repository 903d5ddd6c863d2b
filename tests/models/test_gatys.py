"""The optimisation of pixels: its optimisers against plain ones, each picture for itself, and what is given."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from celebvision.models.gatys import (
    LUMA,
    SMALLEST,
    WINDOW,
    Drawn,
    Gatys,
    Style,
    covering,
    resized,
    shares,
    shorter_side,
    styles_of,
    with_colours_of,
)
from celebvision.models.perceptual import Losses, Maps, Perceptual
from celebvision.models.vgg import VGG


def made_vgg() -> VGG:
    """Two blocks with weights that keep the signal's size."""
    vgg, generator = VGG("vgg16", ["conv1_1", "conv2_1"]), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in vgg.parameters():
            inputs = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / inputs) ** 0.5)
    return vgg


@pytest.fixture(scope="module")
def losses() -> Perceptual:
    return Perceptual(made_vgg(), ["conv2_1"], ["conv1_1", "conv2_1"], content_weight=1.0, style_weight=10.0)


def pictures(count: int, seed: int = 1, height: int = 32, width: int = 40) -> Tensor:
    """Soft patches, uint8 N H W 3."""
    small = torch.rand(count, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    return (resized(small, (height, width)).permute(0, 2, 3, 1) * 255).round().to(torch.uint8)


def floats(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 255


def gatys(losses: Perceptual, scales: int = 1, side: int = 32, **words: Any) -> Gatys:
    return Gatys(losses, styles_of(losses, [pictures(1, seed=9)], [1.0], side, scales), **{"steps": 12, **words})


def path_of(drawing: Gatys, pixels: Tensor) -> tuple[Drawn, list[tuple[int, Tensor]]]:
    """What became of pictures, and what was told on the way."""
    told: list[tuple[int, Tensor]] = []
    drawn = drawing.draw(pixels, lambda step, images: told.append((step, images.clone())))
    return drawn, told


class Towards(Perceptual):
    """The squared distance of each picture's pixels from its target; a number until `breaks` for those that are marked.

    The target is white where the picture is dark, and the picture itself where it is bright.
    """

    def __init__(self, breaks: int = 10**9) -> None:
        super().__init__(made_vgg(), [], [])
        self.breaks, self.batches = breaks, list[int]()

    def content(self, images: Tensor) -> dict[str, Tensor]:
        return {"pixels": images}

    def style(self, images: Tensor) -> dict[str, Tensor]:
        return {}

    def losses(self, images: Tensor, content: Maps, style: Maps) -> Losses:
        self.batches.append(len(images))
        wanted = torch.where(content["pixels"] < 0.5, 1.0, content["pixels"])
        found = (images - wanted).square().mean((1, 2, 3))
        marked = content["pixels"].mean((1, 2, 3)) == 0
        found = torch.where(marked & (len(self.batches) >= self.breaks), torch.nan, found)
        return Losses(found, found, found, found)


DONE, BLACK, GREY = 220, 0, 100


def plain(*brightness: int) -> Tensor:
    """Pictures of one brightness each, uint8 N 32 32 3."""
    return torch.tensor(brightness, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 32, 32, 3).contiguous()


def towards(measure: Towards, **words: Any) -> Gatys:
    return Gatys(measure, [Style({}, torch.zeros(1, 3, 32, 32))], **words)


def test_what_is_given_is_the_average_and_the_path_is_the_same(losses: Perceptual) -> None:
    words = {"optimizer": "adam", "steps": 5}
    _, path = path_of(gatys(losses, **words), pictures(2))
    drawn, averages = path_of(gatys(losses, ema_decay=0.6, **words), pictures(2))
    total, weight = torch.zeros_like(path[0][1]), 0.0
    for (_, images), (_, average) in zip(path, averages, strict=True):
        total, weight = 0.6 * total + 0.4 * images, 0.6 * weight + 0.4
        torch.testing.assert_close(average, total / weight)
    assert torch.equal(drawn.pictures, (averages[-1][1] * 255).round().to(torch.uint8).permute(0, 2, 3, 1))


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_pictures_come_nearer_to_the_style_and_stay_pictures(losses: Perceptual, optimizer: str) -> None:
    pixels = pictures(2, height=40, width=32)
    drawing = gatys(losses, optimizer=optimizer, steps=40)
    before = losses.losses(floats(pixels), losses.content(floats(pixels)), drawing.styles[0].statistics)
    drawn, told = path_of(drawing, pixels)
    assert drawn.pictures.dtype == torch.uint8
    assert drawn.pictures.shape == pixels.shape
    assert (drawn.style_loss < 0.2 * before.style).all()
    assert (drawn.content_loss < 1).all()
    for _, images in told:
        assert 0 <= float(images.min()) <= float(images.max()) <= 1


def test_losses_are_of_the_pictures_that_are_given(losses: Perceptual) -> None:
    pixels, drawing = pictures(2), gatys(losses, original_colours=True)
    drawn = drawing.draw(pixels)
    found = losses.losses(floats(drawn.pictures), losses.content(floats(pixels)), drawing.styles[-1].statistics)
    torch.testing.assert_close(drawn.content_loss, found.content, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(drawn.style_loss, found.style, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("words", [{"optimizer": "lbfgs"}, {"optimizer": "adam"}, {"start": "noise"}])
def test_the_same_call_gives_the_same_bytes(losses: Perceptual, words: dict[str, Any]) -> None:
    drawing = gatys(losses, scales=2, side=64, **words)
    pixels = pictures(2, height=64, width=72)
    assert torch.equal(drawing.draw(pixels).pictures, drawing.draw(pixels).pictures)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_what_becomes_of_a_picture_does_not_hang_on_the_others(losses: Perceptual, optimizer: str) -> None:
    # By no more than rounding: some processors' kernels round a row by where it lies in memory.
    drawing = gatys(losses, optimizer=optimizer, steps=6)
    pixels = pictures(3)
    drawn = drawing.draw(pixels).pictures[0].int()
    assert (drawn - pixels[0].int()).abs().float().mean() > 10
    for others in (torch.cat([pixels[:1], pictures(2, seed=5)]), pixels[:1]):
        assert (drawing.draw(others).pictures[0].int() - drawn).abs().max() <= 1


def test_a_picture_that_is_done_leaves_the_batch_and_is_changed_no_more() -> None:
    measure = Towards()
    drawn, told = path_of(towards(measure, optimizer="adam", steps=25, tolerance=0.01), plain(GREY, DONE, GREY))
    assert drawn.steps.tolist() == [25, WINDOW + 1, 25]
    assert measure.batches == [3] * (WINDOW + 1) + [2] * (25 - WINDOW - 1) + [3]  # the last is of what is given
    assert torch.equal(drawn.pictures[1], plain(DONE)[0])
    for step, images in told:
        assert torch.equal(images[1], floats(plain(DONE))[0]), step
    assert all(not torch.equal(one[0], other[0]) for (_, one), (_, other) in pairwise(told))
    alone = towards(Towards(), optimizer="adam", steps=25).draw(plain(GREY))
    assert torch.equal(drawn.pictures[0], alone.pictures[0])
    assert torch.equal(drawn.pictures[2], alone.pictures[0])


def test_an_average_leaves_with_its_picture() -> None:
    words = {"optimizer": "adam", "steps": 25, "ema_decay": 0.7}
    drawn = towards(Towards(), tolerance=0.01, **words).draw(plain(DONE, GREY))
    assert drawn.steps.tolist() == [WINDOW + 1, 25]
    assert torch.equal(drawn.pictures[1], towards(Towards(), **words).draw(plain(GREY)).pictures[0])


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_once_all_are_done_no_more_steps_are_taken(optimizer: str) -> None:
    measure = Towards()
    drawn = towards(measure, optimizer=optimizer, steps=500, tolerance=0.1).draw(plain(DONE, DONE + 10))
    assert drawn.steps.tolist() == [WINDOW + 1] * 2
    assert len(measure.batches) == WINDOW + 2


def test_without_a_tolerance_all_steps_are_taken() -> None:
    assert towards(Towards(), steps=25).draw(plain(DONE, GREY)).steps.tolist() == [25, 25]


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
def test_a_loss_that_is_no_number_stops_that_picture_alone(optimizer: str, tolerance: float) -> None:
    words = {"optimizer": optimizer, "steps": 9, "tolerance": tolerance}
    drawn = towards(Towards(breaks=4), **words).draw(plain(GREY, BLACK, GREY + 20))
    assert drawn.steps.tolist() == [9, 4, 9]
    assert drawn.content_loss.isfinite().tolist() == [True, False, True]
    sound = towards(Towards(), **words).draw(plain(GREY, GREY + 20))
    assert torch.equal(drawn.pictures[[0, 2]], sound.pictures)
    assert torch.equal(drawn.content_loss[[0, 2]], sound.content_loss)


def test_each_step_is_told_with_its_number_on_its_scale(losses: Perceptual) -> None:
    drawn, told = path_of(gatys(losses, scales=2, side=64, steps=7), pictures(2, height=64, width=80))
    assert [step for step, _ in told] == list(range(1, 8))
    assert [tuple(images.shape) for _, images in told] == [(2, 3, 32, 40)] * 3 + [(2, 3, 64, 80)] * 4
    assert torch.equal(drawn.pictures, (told[-1][1] * 255).round().to(torch.uint8).permute(0, 2, 3, 1))
    assert drawn.steps.tolist() == [7, 7]


def test_a_finer_scale_begins_with_what_the_coarser_one_drew(losses: Perceptual) -> None:
    _, told = path_of(gatys(losses, scales=2, side=64, steps=16), pictures(1, height=64, width=64))
    coarse, fine = told[7][1], told[8][1]
    assert (resized(coarse, (64, 64)) - fine).abs().mean() < 0.011  # a first step changes pixels by a hundredth
    assert (floats(pictures(1, height=64, width=64)) - fine).abs().mean() > 0.03


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7, 100, 300])
@pytest.mark.parametrize("scales", [1, 2, 3, 6])
def test_all_steps_are_shared_and_half_of_them_at_least_are_the_finest_scales(steps: int, scales: int) -> None:
    found = shares(steps, scales)
    assert len(found) == scales
    assert sum(found) == steps
    assert len(set(found[:-1])) <= 1
    assert found[-1] >= steps / 2
    assert min(found) >= 0


def test_shares_of_round_numbers() -> None:
    assert shares(300, 1) == [300]
    assert shares(300, 2) == [150, 150]
    assert shares(300, 4) == [50, 50, 50, 150]
    assert shares(1, 3) == [0, 0, 1]


def test_so_few_steps_that_a_scale_has_none_still_draw(losses: Perceptual) -> None:
    drawn, told = path_of(gatys(losses, scales=3, side=128, steps=1), pictures(1, height=128, width=128))
    assert drawn.steps.tolist() == [1]
    assert [(step, images.shape[2]) for step, images in told] == [(1, 128)]


def test_a_style_is_measured_on_each_scale_and_mixed(losses: Perceptual) -> None:
    given = [pictures(1, seed=3, height=80, width=160), pictures(1, seed=4, height=200, width=100)]
    found = styles_of(losses, given, [3.0, 1.0], size=96, scales=3)
    assert [tuple(style.picture.shape) for style in found] == [(1, 3, 32, 64), (1, 3, 48, 96), (1, 3, 96, 192)]
    for style, side in zip(found, (32, 48, 96), strict=True):
        one, two = (losses.style(shorter_side(floats(picture), side)) for picture in given)
        for layer, channels in (("conv1_1", 64), ("conv2_1", 128)):
            assert style.statistics[layer].shape == (1, channels, channels)
            torch.testing.assert_close(style.statistics[layer], 0.75 * one[layer] + 0.25 * two[layer])


def test_content_starts_as_the_picture(losses: Perceptual) -> None:
    assert first_of(losses, start="content").sub(floats(pictures(2))).abs().mean() < 0.011


def test_style_starts_as_the_style_picture_that_covers_the_picture(losses: Perceptual) -> None:
    expected = covering(shorter_side(floats(pictures(1, seed=9)), 32), (32, 40))
    assert first_of(losses, start="style").sub(expected).abs().mean() < 0.011


def test_noise_starts_as_the_same_noise_for_each_picture(losses: Perceptual) -> None:
    expected = torch.rand(3, 32, 40, generator=torch.Generator().manual_seed(5))
    assert first_of(losses, start="noise", seed=5).sub(expected).abs().mean() < 0.011
    assert first_of(losses, start="noise", seed=6).sub(expected).abs().mean() > 0.2


def first_of(losses: Perceptual, **words: Any) -> Tensor:
    """Pictures after a first step, which changes pixels by a hundredth of their range on average."""
    _, told = path_of(gatys(losses, steps=1, **words), pictures(2))
    return told[0][1]


def chroma(images: Tensor) -> Tensor:
    """Red and blue less the luminance, N 2 H W."""
    luma = (images * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return (images - luma)[:, ::2]


def test_original_colours_are_another_brightness_of_the_same_colour() -> None:
    contents, images = (0.3 + 0.4 * floats(pictures(2, seed)) for seed in (1, 2))
    found = with_colours_of(contents, images)
    torch.testing.assert_close(chroma(found), chroma(contents))
    luma = torch.tensor(LUMA).view(1, 3, 1, 1)
    torch.testing.assert_close((found * luma).sum(1), (images * luma).sum(1))
    assert sum(LUMA) == pytest.approx(1)
    harsh = with_colours_of(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8).round())
    assert 0 <= float(harsh.min()) <= float(harsh.max()) <= 1


def test_a_drawing_in_original_colours_is_drawn_in_them(losses: Perceptual) -> None:
    pixels = (pictures(2).float() * 0.4 + 80).round().to(torch.uint8)
    plain_, coloured = (gatys(losses, original_colours=keep).draw(pixels).pictures for keep in (False, True))
    sound = ((coloured > 0) & (coloured < 255)).all(3)[:, None].expand(-1, 2, -1, -1)
    assert sound.float().mean() > 0.9
    away = (chroma(floats(coloured)) - chroma(floats(pixels))).abs()[sound]
    assert float(away.max()) < 1.5 / 255
    assert float((chroma(floats(plain_)) - chroma(floats(pixels))).abs().mean()) > 3 / 255


@pytest.mark.parametrize(
    ("height", "width", "side", "expected"),
    [
        (40, 60, 20, (20, 30)),
        (60, 40, 20, (30, 20)),
        (40, 61, 80, (80, 122)),
        (33, 33, 33, (33, 33)),
        (7, 90, 14, (14, 180)),
    ],
)
def test_the_shorter_side_is_as_long_as_wanted(height: int, width: int, side: int, expected: tuple[int, int]) -> None:
    images = shorter_side(torch.rand(2, 3, height, width), side)
    assert images.shape == (2, 3, *expected)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1


@pytest.mark.parametrize("size", [(32, 32), (10, 70), (70, 10), (64, 48), (31, 47), (1, 1)])
def test_a_covering_picture_has_the_size_that_is_to_be_covered(size: tuple[int, int]) -> None:
    assert covering(torch.rand(1, 3, 48, 64), size).shape == (1, 3, *size)


def test_a_covering_picture_is_cut_in_the_middle_and_not_stretched() -> None:
    images = torch.rand(1, 3, 10, 20)
    assert torch.equal(covering(images, (10, 10)), images[..., 5:15])
    assert torch.equal(covering(images, (6, 20)), images[:, :, 2:8])
    assert torch.equal(covering(images, (20, 20)), resized(images, (20, 40))[..., 10:30])


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        (torch.zeros(1, SMALLEST - 1, 200, 3, dtype=torch.uint8), r"200×31 pixels; to be drawn by VGG a side has 32"),
        (torch.zeros(1, 200, 5, 3, dtype=torch.uint8), r"5×200 pixels"),
        (torch.zeros(1, 64, 64, 3), r"expected uint8 pictures, B H W 3; got torch.float32 \[1, 64, 64, 3\]"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), r"expected uint8 pictures, B H W 3; got torch.uint8 \[1, 3"),
        (torch.zeros(64, 64, 3, dtype=torch.uint8), r"expected uint8 pictures"),
    ],
)
def test_what_cannot_be_drawn_is_refused(losses: Perceptual, pixels: Tensor, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        gatys(losses).draw(pixels)


def test_no_scale_is_smaller_than_vgg_can_use(losses: Perceptual) -> None:
    pixels = pictures(1, height=SMALLEST, width=3 * SMALLEST)
    drawn, told = path_of(gatys(losses, scales=3, steps=4), pixels)
    assert [tuple(images.shape[2:]) for _, images in told] == [(32, 96)] * 4  # the shape is kept
    assert drawn.pictures.shape == pixels.shape
