"""The tasks of feed-forward style networks alone, in this process: losses, who learns, and going on from a state."""

import io
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from celebvision.celeba.ingest import ingest
from celebvision.config import IngestSettings, TrainSettings
from celebvision.job import JobFailed
from celebvision.models.adain import AdaIN
from celebvision.models.style_net import StyleNet
from celebvision.models.vgg import VGG
from celebvision.training.cyclegan import random_crops
from celebvision.training.style import (
    AdaINLearner,
    Judged,
    StyleNetLearner,
    StyleTask,
    adain,
    balanced,
    loss_settings,
    normalised,
    style_net,
)

LAYERS = {
    "content_layers": ["conv2_1"],
    "style_layers": ["conv1_2", "conv2_2"],
    "content_weight": 0.5,
    "style_weight": 10.0,
}
NAMES = ["night", "wave", "cafe"]
CPU = torch.device("cpu")
GROUND: dict[str, Any] = {"data": "d", "registry": "r", "arch": "vgg16"}
PHASES = [{"epochs": 4, "learning_rate": 1e-3}]


def pictures(count: int, seed: int, height: int = 16, width: int = 16) -> np.ndarray:
    """Coloured pictures with a dark spot each, uint8 N H W 3."""
    rng = np.random.default_rng(seed)
    pixels = np.full((count, height, width, 3), 255) * rng.uniform(0.3, 1, (count, 1, 1, 3))
    for picture, (top, left) in zip(pixels, rng.integers(2, 8, (count, 2)), strict=True):
        picture[top : top + 6, left : left + 6] *= 0.2
    return pixels.astype(np.uint8)


def vgg_weights() -> dict[str, Tensor]:
    """Of a VGG that learnt nothing, but whose features are neither dead nor huge."""
    torch.manual_seed(1)
    vgg = VGG("vgg16", ["conv4_1"])
    for module in vgg.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)
    return vgg.state_dict()


def in_float32(layers: Iterable[str], weights: dict[str, Tensor]) -> VGG:
    vgg = VGG("vgg16", layers)
    vgg.load(weights)
    return vgg


def exact(task: StyleTask) -> StyleTask:
    """In float32 throughout, where bfloat16's rounding would hide what is compared."""
    learner = task.learner
    assert isinstance(learner, StyleNetLearner | AdaINLearner)
    learner.autocast = torch.autocast("cpu", torch.bfloat16, enabled=False)
    learner.losses_of.vgg = in_float32(learner.losses_of.vgg.layers, task.judged.vgg)
    if isinstance(learner, StyleNetLearner):
        learner.contents_of.vgg = in_float32(learner.contents_of.vgg.layers, task.judged.vgg)
        shown = [torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 for picture in learner.pictures]
        grams = [learner.losses_of.style(picture) for picture in shown]
        learner.grams = {layer: torch.cat([one[layer] for one in grams]) for layer in learner.grams}
    torch.manual_seed(5)
    task.start_epoch(0)
    return task


def of_names(parallel: Callable[[nn.Module], nn.Module] = lambda network: network, **words: Any) -> StyleTask:
    """A task of three named styles, of pictures of unlike shapes."""
    given = {
        "perceptual": LAYERS,
        "arguments": {"size": 16, "width": 4, "blocks": 1},
        "ema_decay": 0.9,
        "phases": PHASES,
        **words,
    }
    settings = TrainSettings(**GROUND, architecture="style_net", styles=dict.fromkeys(NAMES, "u"), **given)
    shapes = ((16, 16), (16, 24), (30, 16))
    styles = {name: pictures(1, 20 + n, *shape)[0] for n, (name, shape) in enumerate(zip(NAMES, shapes, strict=True))}
    return exact(StyleTask(settings, Judged(pictures(6, 1), styles, vgg_weights()), CPU, 0, 1, parallel))


@pytest.fixture(scope="module")
def style_data(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    folder = tmp_path_factory.mktemp("styles")
    for number, picture in enumerate(pictures(5, 9, 40, 36)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    ingest(IngestSettings(style_folder=str(folder), output=str(folder / "shards")))
    return str(folder / "shards")


def of_any(style_data: str, **words: Any) -> StyleTask:
    """A task of AdaIN."""
    losses = {name: value for name, value in LAYERS.items() if name != "content_layers"}
    given = {
        "perceptual": losses,
        "arguments": {"size": 16, "width": 0.05},
        "ema_decay": 0.9,
        "phases": PHASES,
        **words,
    }
    settings = TrainSettings(**GROUND, architecture="adain", style_data=style_data, **given)
    styles = {str(number): picture for number, picture in enumerate(pictures(4, 30))}
    judged = Judged(pictures(6, 1), styles, vgg_weights())
    return exact(StyleTask(settings, judged, CPU, 0, 1, lambda network: network))


Make = Callable[..., StyleTask]


@pytest.fixture(params=["style_net", "adain"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "style_net":
        return of_names
    place = request.getfixturevalue("style_data")
    return lambda **words: of_any(place, **words)


def batch(seed: int = 3, count: int = 4) -> dict[str, Tensor]:
    return {"image": torch.from_numpy(pictures(count, seed, 18, 18))}


def plain_loss(shown: Tensor, content: dict[str, Tensor], style: Tensor, vgg: VGG) -> Tensor:
    """The losses' equations once more, a picture at a time: shown and style 1 3 H W, 0..1."""

    def gram(maps: Tensor) -> Tensor:
        return torch.einsum("chw,dhw->cd", maps[0], maps[0]) / maps[0, 0].numel()

    def share(found: Tensor, wanted: Tensor) -> Tensor:
        return (found - wanted).pow(2).sum() / wanted.pow(2).sum()

    maps, of_style = vgg(shown), vgg(style)
    in_content = [share(maps[layer], wanted) for layer, wanted in content.items()]
    in_style = [share(gram(maps[layer]), gram(of_style[layer])) for layer in LAYERS["style_layers"]]  # type: ignore[attr-defined]
    return 0.5 * sum(in_content) / len(in_content) + 10 * sum(in_style) / len(in_style)  # type: ignore[return-value]


def test_a_named_style_is_learnt_by_the_losses_as_they_are_written() -> None:
    task = of_names()
    learner = task.learner
    assert isinstance(learner, StyleNetLearner)
    photos, styles = torch.rand(3, 3, 16, 16) * 2 - 1, torch.tensor([2, 0, 2])
    losses = learner.of(task.wrapped, photos, styles)
    losses.total.mean().backward()
    found = [parameter.grad.clone() for parameter in learner.network.parameters() if parameter.grad is not None]
    learner.network.zero_grad()

    vgg = in_float32(["conv1_2", "conv2_1", "conv2_2"], task.judged.vgg)
    wanted = []
    for photo, number in zip(photos.split(1), styles.tolist(), strict=True):
        drawn = (learner.network(photo, torch.eye(3)[number : number + 1]) + 1) / 2
        content = {"conv2_1": vgg((photo + 1) / 2)["conv2_1"]}
        style = torch.from_numpy(task.judged.styles[NAMES[number]]).permute(2, 0, 1)[None] / 255
        wanted.append(plain_loss(drawn, content, style, vgg))
    torch.testing.assert_close(losses.total, torch.stack(wanted), rtol=1e-4, atol=1e-4)
    torch.stack(wanted).mean().backward()
    for gradient, parameter in zip(found, learner.network.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-2, atol=1e-4)
    assert not learner.network.first.norm.weight.grad[1].any(), "a style that was not drawn learnt something"


def test_any_style_is_learnt_by_the_features_that_the_decoder_was_given(style_data: str) -> None:
    task = of_any(style_data)
    learner = task.learner
    assert isinstance(learner, AdaINLearner)
    photos, styles = torch.rand(2, 3, 16, 16) * 2 - 1, torch.from_numpy(pictures(2, 4))
    losses = learner.of(task.wrapped, photos, styles)
    vgg = in_float32(["conv1_2", "conv2_2", "conv4_1"], task.judged.vgg)
    for number, (photo, pixels) in enumerate(zip(photos.split(1), styles.split(1), strict=True)):
        style = pixels.permute(0, 3, 1, 2) / 255
        target = learner.network.target(photo, 2 * style - 1)
        drawn = (learner.network.decoder(target) + 1) / 2
        wanted = plain_loss(drawn, {"conv4_1": target}, style, vgg)
        torch.testing.assert_close(losses.total[number], wanted, rtol=1e-3, atol=1e-3)


def test_only_what_draws_learns(make: Make) -> None:
    task = make()
    learner = task.learner
    assert isinstance(learner, StyleNetLearner | AdaINLearner)
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    vgg = {name: value.clone() for name, value in learner.losses_of.vgg.state_dict().items()}
    task.step(batch(), 0)
    frozen = {name for name, parameter in learner.network.named_parameters() if parameter.grad is None}
    assert frozen == {name for name in before if name.startswith("encoder.")}
    for name, value in learner.network.state_dict().items():
        assert torch.equal(value, before[name]) == (name in frozen), name
    assert all(parameter.grad is None for parameter in learner.losses_of.vgg.parameters())
    assert all(torch.equal(value, vgg[name]) for name, value in learner.losses_of.vgg.state_dict().items())


def test_a_step_weighs_each_picture_by_what_is_left_of_it(make: Make) -> None:
    task, other = make(), make()
    told = task.step(batch(), 0)
    photos = random_crops(normalised(batch()["image"], CPU), other.size, other.generator)
    total = other.learner.losses(other.wrapped, photos, other.generator).total
    assert total.max() > 1.01 * total.min(), "pictures of unlike losses"
    assert told["loss"] == pytest.approx(total.mean().item(), rel=1e-5)
    torch.stack([one / one.detach() for one in total]).mean().backward()
    for parameter, of_other in zip(task.learner.learns.parameters(), other.learner.learns.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, of_other.grad, rtol=1e-3, atol=1e-5)


def test_it_learns(make: Make) -> None:
    task = make(phases=[{"epochs": 4, "learning_rate": 3e-3}])
    losses = [float(task.step(batch(seed=step), 0)["loss"]) for step in range(60)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5]), losses
    figures = task.validate([])
    assert figures["score"] == pytest.approx(-0.5 * figures["content_loss"] - 10 * figures["style_loss"], rel=1e-4)


def test_each_style_has_a_figure_and_becomes_another_picture() -> None:
    task = of_names(phases=[{"epochs": 4, "learning_rate": 3e-3}])
    for step in range(20):
        task.step(batch(seed=step), 0)
    figures = task.validate([])
    of_styles = [figures[f"style_loss_{name}"] for name in NAMES]
    assert figures["style_loss"] == pytest.approx(np.mean(of_styles))
    network = task.average.module
    assert isinstance(network, StyleNet)
    photo = torch.rand(1, 3, 16, 16)
    one, other = (network(photo, torch.eye(3)[number : number + 1]) for number in (0, 1))
    assert (one - other).abs().mean() > 0.01


def test_two_workers_judge_as_one_does(make: Make) -> None:
    alone, rows = make(), []
    for rank in (0, 1):
        task = make()
        task.rank, task.world = rank, 2
        task._gathered = lambda of_rank: rows.append(of_rank) or of_rank  # type: ignore[method-assign, func-returns-value]
        task.validate([])
    together = make()
    together._gathered = lambda _: torch.stack(rows, dim=1).flatten(0, 1)  # type: ignore[method-assign]
    wanted = alone.validate([])
    if isinstance(alone.learner, AdaINLearner):  # each photo is judged by another style picture
        alone.learner.pictures = alone.learner.pictures[:1]
        assert alone.validate([])["style_loss"] != pytest.approx(wanted["style_loss"], rel=1e-3)
    assert together.validate([]) == pytest.approx(wanted, rel=1e-5)
    assert len(rows[0]) == len(rows[1]) == 3


def test_a_batch_has_each_style_alike_often_and_in_another_order_each_time() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [balanced(8, 3, generator) for _ in range(300)]
    for numbers in drawn:
        counts = torch.bincount(numbers, minlength=3)
        assert counts.max() - counts.min() <= 1
    of_all = torch.bincount(torch.cat(drawn), minlength=3)
    assert (of_all / 800 - 1).abs().max() < 0.05
    assert len({tuple(numbers.tolist()) for numbers in drawn}) > 100


def test_it_goes_on_from_a_state_as_if_nothing_had_happened(make: Make) -> None:
    task, other = make(), make()
    for step in range(3):
        task.step(batch(seed=step), 0)
    written = io.BytesIO()
    torch.save(task.state(), written)
    written.seek(0)
    other.load_state(torch.load(written, weights_only=True))
    losses = []
    for one in (task, other):
        torch.manual_seed(7)
        one.start_epoch(1)
        losses.append([one.step(batch(seed=9), 0) for _ in range(2)])
    assert losses[0] == losses[1]
    assert all(torch.equal(value, other.weights()[name]) for name, value in task.weights().items())


def test_what_is_published_is_the_average_and_all_that_draws(make: Make) -> None:
    task = make()
    for step in range(3):
        task.step(batch(seed=step), 0)
    learner, weights = task.learner, task.weights()
    assert isinstance(learner, StyleNetLearner | AdaINLearner)
    network = style_net(task.settings) if isinstance(learner.network, StyleNet) else adain(task.settings)
    network.load_state_dict(weights)  # strictly
    name = "last.weight" if isinstance(network, StyleNet) else "decoder.parts.0.conv.weight"
    assert not torch.equal(weights[name], learner.network.state_dict()[name])
    averages = {
        f"{'decoder.' if isinstance(network, AdaIN) else ''}{n}": v for n, v in task.average.module.state_dict().items()
    }
    assert all(torch.equal(weights[key], value) for key, value in averages.items())


def test_an_epoch_shows_a_column_a_photo_and_a_row_a_style(make: Make) -> None:
    task = make()
    task.start_epoch(0)
    sheet = task.pictures()["styles"]
    rows = 3 if task.settings.architecture == "style_net" else 4
    assert sheet.shape == ((1 + rows) * 18 - 2, (1 + 6) * 18 - 2, 3)
    assert np.array_equal(sheet[:16, 18:34], task.judged.photos[0])
    assert np.array_equal(sheet[18:34, :16], next(iter(task.judged.styles.values())))
    assert task.warnings() == []


def test_the_rate_of_a_step_follows_the_schedule_and_is_higher_of_styles_and_hidden_layers(make: Make) -> None:
    task, rates = make(), []
    for epoch in range(4):
        task.start_epoch(epoch)
        task.step(batch(), 0.5)
        rates.append([group["lr"] for optimizer in task.optimizers for group in optimizer.param_groups])
    schedule = [1e-3, 1e-3, 0.75e-3, 0.25e-3]
    factors = [10, 1, 60] if task.settings.architecture == "style_net" else [1]
    np.testing.assert_allclose(rates, np.outer(schedule, factors))
    groups = [group["params"] for optimizer in task.optimizers for group in optimizer.param_groups]
    learn = [parameter for group in groups for parameter in group]
    assert len({id(one) for one in learn}) == len(learn) == len(list(task.learner.learns.parameters()))
    if task.settings.architecture == "style_net":
        assert all(one.ndim == 4 and 3 not in one.shape[:2] for one in groups[-1])
        assert not any(one.ndim == 4 and 3 not in one.shape[:2] for group in groups[:-1] for one in group)


def test_in_bfloat16_the_losses_are_nearly_those_of_float32() -> None:
    task = of_names()
    learner = task.learner
    assert isinstance(learner, StyleNetLearner)
    photos, styles = torch.rand(3, 3, 16, 16) * 2 - 1, torch.tensor([2, 0, 1])
    exactly = learner.of(task.wrapped, photos, styles).total
    for measure in (learner.losses_of, learner.contents_of):
        measure.vgg.bfloat16()
    learner.autocast = torch.autocast("cpu", torch.bfloat16)
    torch.testing.assert_close(learner.of(task.wrapped, photos, styles).total, exactly, rtol=0.05, atol=0.05)


def test_content_of_an_adain_is_what_its_decoder_draws_of() -> None:
    settings = TrainSettings(**GROUND, architecture="adain", style_data="s")
    assert loss_settings(settings).content_layers == ["conv4_1"]
    wrong = settings.model_copy(
        update={"perceptual": settings.perceptual.model_copy(update={"content_layers": ["conv3_1"]})}
    )
    with pytest.raises(JobFailed, match="content of an adain is conv4_1"):
        loss_settings(wrong)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"architecture": "style_net"}, "style_net needs styles"),
        ({"architecture": "adain"}, "adain needs style_data"),
        ({"architecture": "style_net", "styles": {"a": "u"}, "style_data": "s"}, "no setting style_data"),
        ({"architecture": "adain", "style_data": "s", "styles": {"a": "u"}}, "no setting styles"),
        ({"architecture": "cnn", "styles": {"a": "u"}}, "cnn has no setting styles"),
        ({"architecture": "cyclegan", "style_data": "s", "valid_images": 4}, "cyclegan has no setting valid_images"),
    ],
)
def test_words_that_do_not_fit_are_refused(words: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TrainSettings(data="d", registry="r", **words)
