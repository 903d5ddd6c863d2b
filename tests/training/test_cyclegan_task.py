"""The CycleGAN task alone, in this process: losses, pool, who learns from what, schedule, and going on from a state."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from celebvision.celeba.ingest import ingest
from celebvision.config import IngestSettings, TrainSettings
from celebvision.models.features import VGGStatistics
from celebvision.models.vgg import VGG
from celebvision.training.cyclegan import (
    CycleGANTask,
    ImagePool,
    Judged,
    absolute,
    discriminator_loss,
    grid,
    least_squares,
    linear_decay,
    random_crops,
    warnings_of,
)


def faces(count: int, seed: int, side: int = 20) -> np.ndarray:
    """Coloured pictures with a dark spot each, uint8 N side side 3."""
    rng = np.random.default_rng(seed)
    pixels = np.full((count, side, side, 3), 255) * rng.uniform(0.5, 1, (count, 1, 1, 3))
    for picture, (top, left) in zip(pixels, rng.integers(2, side - 8, (count, 2)), strict=True):
        picture[top : top + 6, left : left + 6] *= 0.2
    return pixels.astype(np.uint8)


@pytest.fixture(scope="module")
def styles(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    folder = tmp_path_factory.mktemp("styles")
    for number, picture in enumerate(faces(12, seed=9)):
        grey = picture.mean(axis=2).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
    ingest(IngestSettings(style_folder=str(folder), output=str(folder / "shards")))
    return str(folder / "shards")


MakeTask = Callable[..., CycleGANTask]


@pytest.fixture
def task(styles: str) -> MakeTask:
    def make(parallel: Callable[[nn.Module], nn.Module] = lambda network: network, **words: Any) -> CycleGANTask:
        more = {"discriminator_width": 4, "discriminator_layers": 1, "features": "vgg16:relu1_2", **words}
        settings = TrainSettings(
            data="d",
            registry="r",
            style_data=styles,
            architecture="cyclegan",
            arguments={"size": 16, "width": 4, "blocks": 1},
            phases=[{"epochs": 4, "learning_rate": 1e-3}],
            ema_decay=0.9,
            cyclegan=more,
        )
        torch.manual_seed(0)
        vgg = VGG("vgg16", more["projected"]) if more.get("projected") else None
        judged = Judged(faces(8, seed=1, side=16), faces(6, seed=2, side=16), VGGStatistics("relu1_2"), vgg)
        made = CycleGANTask(settings, judged, torch.device("cpu"), 0, 1, parallel)
        made.autocast = torch.autocast("cpu", torch.bfloat16, enabled=False)  # exact numbers
        torch.manual_seed(5)
        made.start_epoch(0)
        return made

    return make


def batch(seed: int = 3, count: int = 4) -> dict[str, Tensor]:
    return {"image": torch.from_numpy(faces(count, seed))}


def gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def parameters(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_the_losses_are_the_papers() -> None:
    verdict = torch.tensor([1.0, 0.5, -1.0])
    assert float(least_squares(verdict, 1.0)) == pytest.approx((0 + 0.25 + 4) / 3)
    real, drawn = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert float(discriminator_loss(real, drawn)) == pytest.approx(((0 + 1) / 2 + (0 + 4) / 2) / 2)
    assert float(discriminator_loss(torch.full((2, 2), 0.5), torch.full((2, 2), 0.5))) == 0.25  # what chance costs
    assert float(absolute(torch.tensor([1.0, -1.0]), torch.tensor([0.5, 1.0]))) == pytest.approx(1.25)


def test_the_rate_is_constant_for_one_half_and_falls_to_nothing_in_the_other() -> None:
    assert [linear_decay(share) for share in (0, 0.25, 0.5, 0.75, 1)] == [1, 1, 1, 0.5, 0]


def test_the_rate_of_a_step_follows_the_schedule(task: MakeTask) -> None:
    made, rates = task(), []
    for epoch in range(4):
        made.start_epoch(epoch)
        made.step(batch(), 0.5)
        rates.append([group["lr"] for group in made.generator_optimizer.param_groups])
    assert rates == [[1e-3], [1e-3], [0.75e-3], [0.25e-3]]
    assert made.discriminator_optimizer.param_groups[0]["lr"] == 0.25e-3


@pytest.mark.parametrize("layers", [[], ["conv1_2", "conv2_1"]])
def test_a_step_computes_the_gradient_of_the_papers_losses(task: MakeTask, layers: list[str]) -> None:
    """Against the paper's equations, written down once more and straightforwardly."""
    made = task(identity_weight=5.0, pool=0, projected=layers)
    photos, styles = (torch.randn(3, 3, 16, 16) for _ in range(2))
    losses, drawn = made._draw(photos, styles)
    losses["generator"].backward()
    found = gradients(made.generators)

    made.generators.zero_grad()
    g, f = made.generators.to_style, made.generators.to_photo
    d_style, d_photo = made.discriminators.of_styles, made.discriminators.of_photos
    by_layer = [
        lambda pictures, layer=layer: made.discriminators.of_maps.heads[layer](
            (made.projection.vgg(pictures / 2 + 0.5)[layer] - made.projection.means[layer])
            / made.projection.units[layer]
        )
        for layer in layers
    ]
    wanted = ((d_style(g(photos)) - 1) ** 2).mean() + ((d_photo(f(styles)) - 1) ** 2).mean()
    wanted = wanted + sum(((judge(g(photos)) - 1) ** 2).mean() for judge in by_layer)
    wanted = wanted + 10 * ((f(g(photos)) - photos).abs().mean() + (g(f(styles)) - styles).abs().mean())
    wanted = wanted + 5 * ((g(styles) - styles).abs().mean() + (f(photos) - photos).abs().mean())
    wanted.backward()
    torch.testing.assert_close(losses["generator"], wanted)
    torch.testing.assert_close(found, gradients(made.generators), rtol=1e-3, atol=1e-5)

    made.discriminators.zero_grad()
    loss = made._judge(photos, styles, *drawn)

    def halves(judge: Callable[[Tensor], Tensor], real: Tensor, made_up: Tensor) -> Tensor:
        return ((judge(real) - 1) ** 2).mean() / 2 + (judge(made_up) ** 2).mean() / 2

    of_styles = [halves(judge, styles, g(photos)) for judge in (d_style, *by_layer)]
    torch.testing.assert_close(loss, (sum(of_styles) / len(of_styles) + halves(d_photo, photos, f(styles))) / 2)


def test_without_identity_it_is_not_computed(task: MakeTask) -> None:
    assert "identity" not in task(identity_weight=0).step(batch(), 0)
    assert "identity" in task(identity_weight=1).step(batch(), 0)


@pytest.mark.parametrize("layers", [[], ["conv2_1"]])
def test_the_discriminators_gradient_never_reaches_the_generators_and_the_reverse(
    task: MakeTask, layers: list[str]
) -> None:
    made = task(projected=layers)
    pretrained = parameters(made.projection.vgg) if made.projection else []
    made.step(batch(), 0)  # so that old gradients are there to be mistaken for new ones
    of_generators: list[list[Tensor]] = []

    def generators_learn(step: Callable[[], Any] = made.generator_optimizer.step) -> None:
        assert all(parameter.grad is None or not parameter.grad.any() for parameter in fresh), "a discriminator got one"
        of_generators.append(gradients(made.generators))
        assert any(gradient.any() for gradient in of_generators[0])
        step()
        drawn_by.extend(parameters(made.generators))

    def discriminators_learn(step: Callable[[], Any] = made.discriminator_optimizer.step) -> None:
        torch.testing.assert_close(gradients(made.generators), of_generators[0], rtol=0, atol=0)
        torch.testing.assert_close(parameters(made.generators), drawn_by, rtol=0, atol=0)
        assert all(gradient.any() for gradient in gradients(made.discriminators.of_styles.parts[0]))
        step()

    drawn_by: list[Tensor] = []
    made.discriminators.zero_grad(set_to_none=True)
    fresh = list(made.discriminators.parameters())
    made.generator_optimizer.step = generators_learn  # type: ignore[method-assign]
    made.discriminator_optimizer.step = discriminators_learn  # type: ignore[method-assign]
    before = parameters(made.discriminators)
    made.step(batch(), 0)
    assert len(of_generators) == 1
    assert any(not torch.equal(*pair) for pair in zip(before, parameters(made.discriminators), strict=True))
    if made.projection:
        torch.testing.assert_close(parameters(made.projection.vgg), pretrained, rtol=0, atol=0)
        assert not gradients(made.projection.vgg)


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(task: MakeTask) -> None:
    found = []
    for parts in (1, 2):
        made = task(accumulate=parts, pool=0)
        made.step(batch(), 0)
        found.append((gradients(made.generators), parameters(made.discriminators)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-5)


def test_the_pool_gives_earlier_pictures_half_of_the_time() -> None:
    generator, pool = torch.Generator().manual_seed(0), ImagePool(50)
    first = torch.arange(50.0).view(50, 1, 1, 1)
    assert torch.equal(pool.swap(first, generator), first), "until it is full, what comes is given back"
    seen = [float(pool.swap(torch.full((1, 1, 1, 1), 1000.0 + number), generator)) for number in range(2000)]
    earlier = [value for number, value in enumerate(seen) if value != 1000 + number]
    assert 0.45 < len(earlier) / 2000 < 0.55
    assert len(set(earlier)) == len(earlier), "what left the pool was given a second time"
    assert len(pool.pictures) == 50
    assert {value for value in earlier if value < 1000} == {float(value) for value in range(50)}


def test_a_pool_of_none_keeps_none() -> None:
    images = torch.randn(4, 3, 2, 2)
    assert torch.equal(ImagePool(0).swap(images, torch.Generator()), images)


def test_crops_are_of_everywhere_and_mirrored_half_of_the_time() -> None:
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    images = torch.stack((rows, columns, columns)).expand(400, 3, 6, 6)
    crops = random_crops(images, 4, torch.Generator().manual_seed(0))
    assert crops.shape == (400, 3, 4, 4)
    tops, lefts = crops[:, 0, 0, 0], crops[:, 1].amin((1, 2))
    mirrored = crops[:, 1, 0, 0] > crops[:, 1, 0, 3]
    assert set(tops.tolist()) == set(lefts.tolist()) == {0, 1, 2}
    assert 0.4 < mirrored.float().mean() < 0.6


def test_it_learns_and_the_way_there_and_back_gets_shorter(task: MakeTask) -> None:
    made = task()
    losses = [float(made.step(batch(seed=step), 0)["cycle"]) for step in range(60)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    figures = made.validate([])
    assert {"kid", "fid", "kid_share", "kid_reverse", "cycle_l1", "variety", "score"} == set(figures)
    assert figures["score"] == -figures["kid"]
    assert 0 < figures["cycle_l1"] < 1


def test_it_goes_on_from_a_state_as_if_nothing_had_happened(task: MakeTask) -> None:
    made = task(diff_augment=["colour", "translation", "cutout"], pool=3, projected=["conv1_2"])
    for step in range(3):
        made.step(batch(seed=step), 0)
    written = io.BytesIO()
    torch.save(made.state(), written)
    written.seek(0)
    other = task(diff_augment=["colour", "translation", "cutout"], pool=3, projected=["conv1_2"])
    other.load_state(torch.load(written, weights_only=True))
    losses = []
    for one in (made, other):
        torch.manual_seed(7)
        one.start_epoch(1)
        losses.append([one.step(batch(seed=9), 0) for _ in range(2)])
    assert losses[0] == losses[1]
    assert all(torch.equal(value, other.weights()[name]) for name, value in made.weights().items())


def test_what_is_published_is_the_average(task: MakeTask) -> None:
    made = task()
    for step in range(3):
        made.step(batch(seed=step), 0)
    weights = made.weights()
    assert {name.partition(".")[0] for name in weights} == {"to_style", "to_photo"}
    name = "to_style.first.conv.weight"
    assert torch.equal(weights[name], made.average.module.state_dict()[name])
    assert not torch.equal(weights[name], made.generators.state_dict()[name])


def test_a_picture_is_shown_with_what_is_drawn_of_it_and_that_drawn_back(task: MakeTask) -> None:
    made = task(grid=3)
    shown = made.pictures()
    assert set(shown) == {"photo_to_style", "style_to_photo"}
    sheet = shown["photo_to_style"]
    assert sheet.shape == (3 * 18 - 2, 3 * 18 - 2, 3)
    assert np.array_equal(sheet[:16, 18:34], made.judged.photos[1])
    assert np.array_equal(grid([torch.from_numpy(made.judged.photos[:2])])[:, 18:], made.judged.photos[1])


def test_a_collapse_is_told_with_what_to_do(task: MakeTask) -> None:
    assert warnings_of(variety=0.8, discriminator=0.2) == []
    (same,) = warnings_of(variety=0.05, discriminator=0.2)
    assert "5% of the style set's variety" in same
    assert "diff_augment" in same
    (beaten,) = warnings_of(variety=0.8, discriminator=0.001)
    assert "discriminator_width" in beaten
    made = task()
    with torch.no_grad():
        for average in made.average.module.to_style.last.parameters():
            average.zero_()  # whatever it is shown, it draws grey
    made.step(batch(), 0)
    with torch.no_grad():
        for average in made.average.module.to_style.last.parameters():
            average.zero_()
    made.validate([])
    assert any("hardly differ" in words for words in made.warnings())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"targets": ["Male"]}, "cyclegan has no setting targets"),
        ({"style_data": None}, "cyclegan needs style_data"),
        ({"phases": [{"epochs": 1, "learning_rate": 1}] * 2}, "one phase"),
        ({"cyclegan": {"style_crop": (0.9, 0.1)}}, "two shares"),
        ({"architecture": "cnn"}, "cnn has no setting style_data"),
    ],
)
def test_words_that_do_not_fit_are_refused(words: dict[str, Any], told: str) -> None:
    given = {"data": "d", "registry": "r", "architecture": "cyclegan", "style_data": "s"}
    with pytest.raises(ValueError, match=told):
        TrainSettings(**{**given, **words})
