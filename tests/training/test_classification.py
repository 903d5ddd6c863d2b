"""The classification task alone, in this process: phases, schedule, average, losses, and going on from a state."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from celebvision.config import Augment, Phase, TrainSettings
from celebvision.job import JobFailed
from celebvision.training.average import Average
from celebvision.training.classification import Classification

NO_AUGMENT = Augment(flip=0, shift=0, scale=0, rotation_deg=0, brightness=0, contrast=0, saturation=0, erase=0)


def settings(**words: Any) -> TrainSettings:
    return TrainSettings(data="d", registry="r", **{"arguments": {"width": 8}, **words})


def task(targets: tuple[str, ...] = ("Male",), **words: Any) -> Classification:
    return Classification(settings(**words), targets, torch.device("cpu"), parallel=lambda network: network)


def batch(rows: int = 8, targets: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """Bright pictures are 1 in every target, dark ones 0."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (rows, targets), generator=draw).float()
    noise = torch.randint(100, (rows, 109, 89, 3), generator=draw)
    return {"image": (noise + 120 * labels[:, :1, None, None]).to(torch.uint8), "label": labels}


def parameters(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_it_learns_and_the_loss_falls() -> None:
    made = task(phases=[Phase(epochs=1, learning_rate=3e-3)], schedule="cosine", augment=NO_AUGMENT)
    made.start_epoch(0)
    losses = [float(made.step(batch(32, seed=step), step / 40)["loss"]) for step in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    figures = made.validate([batch(64, seed=100)])
    assert figures["valid_accuracy"] == figures["score"] > 0.9


def test_one_cycle_rises_to_the_peak_and_falls_to_nothing() -> None:
    made = task(schedule="one_cycle", warmup=0.25)
    rates = [made._schedule(share) for share in (0.0, 0.125, 0.25, 0.625, 1.0)]
    assert rates == pytest.approx([0.04, 0.52, 1.0, 0.5, 0.0])


def test_cosine_falls_from_the_peak_to_nothing() -> None:
    made = task(schedule="cosine")
    assert [made._schedule(share) for share in (0.0, 1 / 3, 0.5, 1.0)] == pytest.approx([1.0, 0.75, 0.5, 0.0])


def test_the_rate_of_a_step_follows_its_phase() -> None:
    phases = [Phase(epochs=2, learning_rate=1.0), Phase(epochs=1, learning_rate=0.5)]
    made = task(phases=phases, schedule="cosine")
    rates = []
    for epoch in range(3):
        made.start_epoch(epoch)
        made.step(batch(), 0.5)
        rates.append(made.optimizer.param_groups[0]["lr"])
    wanted = [(1 + math.cos(math.pi * share)) / 2 for share in (0.25, 0.75, 0.5)]
    assert rates == pytest.approx([wanted[0], wanted[1], 0.5 * wanted[2]])


def test_a_frozen_layer_keeps_its_weights_and_its_statistics() -> None:
    made = task(phases=[Phase(epochs=1, learning_rate=0.01, trainable=["fc"]), Phase(epochs=1, learning_rate=0.01)])
    before = parameters(made.network)
    made.start_epoch(0)
    made.step(batch(), 0.5)
    after = parameters(made.network)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}
    made.start_epoch(1)
    made.step(batch(), 0.5)
    last = parameters(made.network)
    assert not torch.equal(last["stem.0.conv.weight"], before["stem.0.conv.weight"])
    assert not torch.equal(last["stem.0.bn.running_mean"], before["stem.0.bn.running_mean"])


def test_a_phase_in_which_nothing_learns_is_refused() -> None:
    made = task(phases=[Phase(epochs=1, learning_rate=1, trainable=["head"])])
    with pytest.raises(JobFailed, match=r"phases\.0\.trainable.*head"):
        made.start_epoch(0)


def test_only_matrices_and_filters_decay() -> None:
    made = task()
    made.start_epoch(0)
    for group in made.optimizer.param_groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] > 0}


def test_the_average_is_the_exponential_one_with_a_short_memory_first() -> None:
    average, values = [torch.zeros(())], [1.0, 2.0, 4.0]
    for count, value in enumerate(values):
        Average(0.2)(average, [torch.tensor(value)], count)
    by_hand = 0.0
    for decay, value in zip([0.1, 2 / 11, 0.2], values, strict=True):
        by_hand = decay * by_hand + (1 - decay) * value
    assert float(average[0]) == pytest.approx(by_hand)


def test_label_smoothing_is_in_the_loss() -> None:
    made = task(label_smoothing=0.2, augment=NO_AUGMENT, arguments={"width": 8, "dropout": 0.0})
    made.start_epoch(0)
    for parameter in made.network.fc.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(made.network.fc.bias, 2.0)  # every logit is 2
    given = batch()
    loss = float(made.step(given, 0.0)["loss"])
    smooth = given["label"] * 0.8 + 0.1
    probability = 1 / (1 + math.exp(-2.0))
    by_hand = -(smooth * math.log(probability) + (1 - smooth) * math.log(1 - probability)).mean()
    assert loss == pytest.approx(float(by_hand), abs=1e-3)


def test_going_on_from_a_state_gives_what_going_on_would_have_given() -> None:
    def epoch(made: Classification, number: int) -> None:
        torch.manual_seed(number)  # as the loop does
        made.start_epoch(number)
        for step in range(3):
            made.step(batch(seed=10 * number + step), step / 3)

    words = {"phases": [Phase(epochs=3, learning_rate=0.01)], "seed": 3}
    whole, cut = task(**words), task(**words)
    for number in range(2):
        epoch(whole, number)
        epoch(cut, number)
    resumed = task(**{**words, "seed": 3})
    resumed.load_state(cut.state())
    epoch(whole, 2)
    epoch(resumed, 2)
    for name, value in parameters(whole.network).items():
        assert torch.equal(value, parameters(resumed.network)[name]), name
    for name, value in whole.weights().items():
        assert torch.equal(value, resumed.weights()[name]), name


def test_forty_attributes_are_learnt_at_once() -> None:
    made = task(targets=tuple(f"t{number}" for number in range(40)))
    made.start_epoch(0)
    made.step(batch(targets=40), 0.0)
    assert made.weights()["fc.weight"].shape[0] == 40


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"arguments": {"depth": 3}}, "arguments: .*refused by cnn"),
        ({"weights": "s3://b/w.safetensors"}, "cnn takes no pretrained weights"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(words: dict[str, Any], told: str) -> None:
    with pytest.raises(JobFailed, match=told):
        task(**words)
