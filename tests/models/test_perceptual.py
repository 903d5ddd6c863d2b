"""Losses worked by hand, their gradients against finite differences, and each picture for itself."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from celebvision.models.perceptual import Losses, Perceptual, distance, gram, mixed, total_variation
from celebvision.models.vgg import VGG

LAYERS = ["conv1_1", "conv2_1"]


def vgg() -> VGG:
    """Two blocks with weights that keep the signal's size."""
    made, generator = VGG("vgg16", LAYERS), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            inputs = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / inputs) ** 0.5)
    return made


def pictures(count: int, seed: int, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def losses() -> Perceptual:
    return Perceptual(vgg(), ["conv2_1"], LAYERS, content_weight=1.0, style_weight=5.0, variation_weight=0.1)


def test_a_gram_matrix_worked_by_hand() -> None:
    """Two channels at two places: (1, 2) and (3, -1). Their products' means are 5/2, 1/2 and 10/2."""
    features = torch.tensor([[1.0, 2.0], [3.0, -1.0]]).view(1, 2, 2, 1)
    expected = torch.tensor([[[2.5, 0.5], [0.5, 5.0]]])
    torch.testing.assert_close(gram(features), expected)
    torch.testing.assert_close(gram(features.reshape(1, 2, 1, 2)), expected)


def test_a_gram_matrix_knows_no_place_and_no_size() -> None:
    features = torch.randn(2, 5, 4, 6)
    shuffled = features.flatten(2)[:, :, torch.randperm(24)].view(2, 5, 8, 3)
    torch.testing.assert_close(gram(shuffled), gram(features))
    torch.testing.assert_close(gram(features.repeat(1, 1, 2, 3)), gram(features))


def test_a_distance_is_a_share_of_what_is_wanted() -> None:
    wanted = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    found = torch.tensor([[3.0, 5.0], [1.0, 0.0]])
    torch.testing.assert_close(distance(found, wanted), torch.tensor([1 / 25, 5 / 4]))
    torch.testing.assert_close(distance(torch.zeros(2, 2), wanted), torch.ones(2))
    torch.testing.assert_close(distance(found * 7, wanted * 7), distance(found, wanted))
    assert torch.isfinite(distance(found, torch.zeros(2, 2))).all()


def test_total_variation_worked_by_hand() -> None:
    picture = torch.tensor([[0.0, 1.0], [2.0, 4.0]]).view(1, 1, 2, 2)
    down, right = (2**2 + 3**2) / 2, (1**2 + 2**2) / 2
    torch.testing.assert_close(total_variation(picture), torch.tensor([down + right]))
    assert float(total_variation(torch.full((1, 3, 4, 5), 0.3))) == 0


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single_and_double_stays_double(half: torch.dtype) -> None:
    features = torch.rand(1, 4, 8, 8)
    assert gram(features.to(half)).dtype == distance(features.to(half), features).dtype == torch.float32
    assert gram(features.double()).dtype == distance(features.double(), features.double()).dtype == torch.float64
    many = torch.full((1, 4096), 0.1)  # a sum that bfloat16 itself would stop at 0.1 * 256
    torch.testing.assert_close(distance(2 * many.to(half), many.to(half)), torch.ones(1))


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (gram, [(2, 3, 4, 5)]),
        (distance, [(2, 3, 4), (2, 3, 4)]),
        (distance, [(2, 3, 4), (1, 3, 4)]),
        (total_variation, [(2, 3, 4, 5)]),
    ],
)
def test_gradients_are_those_of_finite_differences(
    function: Callable[..., Tensor], shapes: list[tuple[int, ...]]
) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(function, inputs)


def test_gradients_of_all_losses_are_those_of_finite_differences() -> None:
    measure = Perceptual(vgg().double(), ["conv2_1"], LAYERS, 1.0, 5.0, 0.1)
    images = pictures(2, seed=1, side=6).double().requires_grad_()
    content, style = measure.content(pictures(2, 2, 6).double()), measure.style(pictures(1, 3, 8).double())

    def of(images: Tensor) -> tuple[Tensor, ...]:
        found = measure.losses(images, content, style)
        return found.content, found.style, found.variation, found.total

    assert torch.autograd.gradcheck(of, [images])


def test_the_same_picture_is_at_no_distance_from_itself(losses: Perceptual) -> None:
    images = pictures(3, seed=1)
    found = losses.losses(images, losses.content(images), losses.style(images))
    assert torch.equal(found.content, torch.zeros(3))
    assert torch.equal(found.style, torch.zeros(3))
    torch.testing.assert_close(found.total, 0.1 * total_variation(images))


def test_losses_are_means_over_layers_and_the_total_is_their_weighted_sum(losses: Perceptual) -> None:
    images, like = pictures(2, seed=1), pictures(2, seed=2)
    found = losses.losses(images, losses.content(like), losses.style(like))
    ours, theirs = losses.vgg(images), losses.vgg(like)
    content = (ours["conv2_1"] - theirs["conv2_1"]).square().sum((1, 2, 3)) / theirs["conv2_1"].square().sum((1, 2, 3))
    style = torch.zeros(2)
    for layer in LAYERS:
        a, b = (
            torch.einsum("bcyx,bdyx->bcd", maps[layer], maps[layer]) / maps[layer][0, 0].numel()
            for maps in (ours, theirs)
        )
        style += (a - b).square().sum((1, 2)) / b.square().sum((1, 2)) / len(LAYERS)
    torch.testing.assert_close(found.content, content)
    torch.testing.assert_close(found.style, style)
    torch.testing.assert_close(found.variation, total_variation(images))
    torch.testing.assert_close(found.total, content + 5 * style + 0.1 * total_variation(images))
    assert found.by_name == {"content_loss": found.content, "style_loss": found.style}


def test_what_weighs_nothing_need_not_be_measured() -> None:
    images = pictures(2, seed=1)
    of_style = Perceptual(vgg(), [], LAYERS)
    found = of_style.losses(images, of_style.content(images), of_style.style(pictures(1, seed=2)))
    assert torch.equal(found.content, torch.zeros(2))
    assert torch.equal(found.variation, torch.zeros(2))
    torch.testing.assert_close(found.total, found.style)


def test_a_pictures_loss_and_gradient_are_its_own(losses: Perceptual) -> None:
    """Whatever its neighbours in the batch are, even such as are no numbers."""
    style = losses.style(pictures(1, seed=9))

    def of(images: Tensor) -> tuple[Losses, Tensor]:
        images = images.clone().requires_grad_()
        found = losses.losses(images, losses.content(pictures(len(images), seed=2)), style)
        (gradient,) = torch.autograd.grad(found.total.sum(), images)
        return found, gradient

    images = pictures(3, seed=1)
    others = torch.cat([images[:1], 1 - images[1:2], torch.full_like(images[2:], torch.nan)])
    (found, gradient), (besides, besides_gradient) = of(images), of(others)
    assert torch.equal(found.total[0], besides.total[0])
    assert torch.equal(gradient[0], besides_gradient[0])
    assert not torch.equal(found.total[1], besides.total[1])
    alone, alone_gradient = of(images[:1])
    torch.testing.assert_close(found.total[:1], alone.total)
    torch.testing.assert_close(gradient[:1], alone_gradient)


def test_one_style_is_held_against_every_picture(losses: Perceptual) -> None:
    images = pictures(3, seed=1)
    content, style = losses.content(images), losses.style(pictures(1, seed=9, side=40))
    once = losses.losses(images, content, style)
    each = losses.losses(images, content, {layer: value.expand(3, -1, -1) for layer, value in style.items()})
    assert style["conv1_1"].shape == (1, 64, 64)
    assert torch.equal(once.total, each.total)


def test_to_be_near_a_mixture_is_to_be_near_its_parts(losses: Perceptual) -> None:
    """Squared distances, weighted and summed, are those from the mixture but for a constant: gradients are equal."""
    styles, weights = [losses.style(pictures(1, seed)) for seed in (7, 8, 9)], [3.0, 1.0, 0.5]
    mixture = mixed(styles, weights)

    def square(images: Tensor, style: dict[str, Tensor], layer: str) -> Tensor:
        """The squared distance that `distance` gives a share of, of both pictures."""
        found = gram(losses.vgg(images)[layer])
        return distance(found, style[layer]) * style[layer].square().mean()

    for layer in LAYERS:
        images = pictures(2, seed=1).requires_grad_()
        parts = sum(
            (square(images, style, layer) * w / 4.5 for style, w in zip(styles, weights, strict=True)), torch.zeros(2)
        )
        whole = square(images, mixture, layer)
        constants = (parts - whole).detach()
        torch.testing.assert_close(constants[0], constants[1], rtol=1e-3, atol=1e-6)
        gradients = [torch.autograd.grad(sums.sum(), images, retain_graph=True)[0] for sums in (parts, whole)]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-3 * float(gradients[0].abs().max()))


def test_a_mixture_is_of_shares_and_of_one_style_that_style() -> None:
    one, two = {"conv1_1": torch.tensor([[[1.0]]])}, {"conv1_1": torch.tensor([[[5.0]]])}
    assert float(mixed([one, two], [30, 10])["conv1_1"]) == pytest.approx(2.0)
    assert float(mixed([one, two], [0.0, 0.2])["conv1_1"]) == pytest.approx(5.0)
    assert torch.equal(mixed([one], [3.0])["conv1_1"], one["conv1_1"])


def test_a_measure_keeps_no_graph(losses: Perceptual) -> None:
    images = pictures(1, seed=1).requires_grad_()
    assert not any(value.requires_grad for value in [*losses.content(images).values(), *losses.style(images).values()])
