"""Temperature scaling: probabilities become as often right as they say, and no answer changes."""

import json
import math
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from labelling import published
from torch import Tensor, nn
from trainings import drawn_shards, recipe_of

from celebvision import registry
from celebvision.celeba.shards import ReadRowGroup
from celebvision.models.classifier import Classifier
from celebvision.models.preprocessing import Preprocessing
from celebvision.storage import open_store
from celebvision.training import calibration
from celebvision.training.calibration import LEAST, MOST, calibrate, figures_of, fit, logits_of, table_of
from celebvision.training.classification import network

RIGHT = math.log(9)  # the logit of 0.9


def right_nine_times_of_ten(logit: float) -> tuple[Tensor, Tensor]:
    """A hundred answers of true and a hundred of false, all equally sure, of which ten each are wrong."""
    logits = torch.tensor([logit, -logit]).repeat_interleave(100)
    labels = torch.tensor([1.0] * 90 + [0.0] * 10 + [0.0] * 90 + [1.0] * 10)
    return logits, labels


@pytest.mark.parametrize("sure", [0.3, 1.0, 2.5, 8.0])
def test_what_is_right_nine_times_of_ten_is_said_with_nine_tenths(sure: float) -> None:
    found = fit(*right_nine_times_of_ten(RIGHT * sure))
    assert found.temperature == pytest.approx(sure, rel=1e-3)
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert found.nll_after == pytest.approx(entropy, rel=1e-4)
    assert found.ece_after == pytest.approx(0, abs=1e-3)
    assert found.ece_before == pytest.approx(abs(1 / (1 + math.exp(-RIGHT * sure)) - 0.9), abs=1e-4)
    assert found.nll_before >= found.nll_after - 1e-9
    assert found.remark == ""


@pytest.mark.parametrize(
    ("labels", "remark"),
    [([1, 1, 1, 1], "all 4 pictures are of one class"), ([1, 1, 0, 0], "all 4 pictures are answered rightly")],
)
def test_where_there_is_nothing_to_fit_the_temperature_stays_one_and_it_is_said(labels: list[int], remark: str) -> None:
    found = fit(torch.tensor([3.0, 1.0, -0.5, -2.0]), torch.tensor(labels).float())
    assert (found.temperature, found.remark) == (1.0, remark)
    assert found.nll_after == found.nll_before


def test_answers_that_are_worth_nothing_are_taken_back_as_far_as_the_bound_and_it_is_said() -> None:
    logits, labels = right_nine_times_of_ten(RIGHT)
    found = fit(-logits, labels)
    assert found.temperature == pytest.approx(MOST, rel=1e-3)
    assert f"outside {LEAST:g}..{MOST:g}" in found.remark
    assert found.nll_after < found.nll_before


def test_figures_are_means_over_the_targets_and_the_table_has_a_line_for_each() -> None:
    found = {"Male": fit(*right_nine_times_of_ten(RIGHT * 2)), "Young": fit(torch.ones(3), torch.ones(3))}
    figures = figures_of(found)
    assert figures.keys() == {"valid_nll_before", "valid_nll_after", "valid_ece_before", "valid_ece_after"}
    assert figures["valid_nll_before"] == pytest.approx((found["Male"].nll_before + found["Young"].nll_before) / 2)
    *_, male, young = table_of(found).splitlines()
    assert male.startswith("| Male | 2.000 |")
    assert "of one class" in young


# ---- in a classifier ----


def test_a_version_with_temperatures_gives_other_probabilities_and_the_same_answers(tmp_path: Path) -> None:
    made = published(str(tmp_path), seed=1)
    plain = registry.assemble(made, registry.load_state(str(tmp_path), made))
    changed = json.loads(made.to_json()) | {"temperatures": {"Male": 0.25}}
    cooled = registry.assemble(
        registry.ModelVersion.from_json(json.dumps(changed)), registry.load_state(str(tmp_path), made)
    )
    size = cast(Preprocessing, plain.preprocessing)
    pictures = torch.randint(256, (16, size.height, size.width, 3), dtype=torch.uint8)
    before, after = (Classifier(one, ("Male",)) for one in (plain, cooled))
    torch.testing.assert_close(before.logits(pictures), after.logits(pictures))
    torch.testing.assert_close(after.probabilities(pictures), (before.logits(pictures) / 0.25).sigmoid())
    assert torch.equal(before.probabilities(pictures) > 0.5, after.probabilities(pictures) > 0.5)
    assert not torch.equal(before.probabilities(pictures), after.probabilities(pictures))


def test_each_class_has_its_own_temperature() -> None:
    class Says(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([[2.0, 2.0]]).expand(len(images), 2)

    says = Says()
    setattr(says, "preprocessing", Preprocessing(4, 4, (0.5,) * 3, (0.5,) * 3))  # noqa: B010
    setattr(says, "temperatures", [1.0, 4.0])  # noqa: B010
    found = Classifier(says, ("Male", "Young")).probabilities(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.5]]).sigmoid())


def test_a_version_that_was_published_before_there_were_temperatures_has_none(tmp_path: Path) -> None:
    made = published(str(tmp_path), seed=1)
    description = json.loads(made.to_json())
    del description["temperatures"]
    open_store(str(tmp_path)).put(f"cnn/{made.version}/model.json", json.dumps(description).encode())
    found = registry.resolve(str(tmp_path), f"cnn@{made.version}")
    assert found.temperatures == {}
    network = registry.assemble(found, registry.load_state(str(tmp_path), found))
    assert Classifier(network, ("Male",)).temperatures.tolist() == [1]


@pytest.mark.parametrize(
    ("temperatures", "told"),
    [
        ({"Male": 0.0}, "finite and above 0: Male 0.0"),
        ({"Male": math.inf}, "finite and above 0: Male inf"),
        ({"Male": math.nan}, "finite and above 0: Male nan"),
        ({"Man": 1.0}, "has temperatures for Man"),
    ],
)
def test_temperatures_that_cannot_be_are_not_published(
    temperatures: dict[str, float], told: str, tmp_path: Path
) -> None:
    made = published(str(tmp_path), seed=1)
    names = ("architecture", "arguments", "preprocessing", "targets", "classes", "metrics", "data_digest")
    words = {name: getattr(made, name) for name in (*names, "code_version", "seed")}
    with pytest.raises(registry.RegistryError, match=told):
        registry.publish(str(tmp_path), "cnn", state={}, card="", samples={}, temperatures=temperatures, **words)
    assert registry.versions(str(tmp_path), "cnn") == [made.version]


# ---- of a training ----


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    return drawn_shards(tmp_path_factory.mktemp("celeba"), 120)


def test_logits_are_those_of_the_splits_first_pictures_beside_their_labels(
    shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "ROWS", 7)
    recipe = recipe_of(shards, Path(shards))
    made = network(recipe.settings, recipe.targets).eval()
    logits, labels = logits_of(Classifier(made, recipe.targets), recipe.data, "train", recipe.read)
    whole = ReadRowGroup(shards, recipe.targets, recipe.read.height, recipe.read.width)
    first = recipe.data.of("train")[0].path
    batch = next(whole({"path": np.array([first]), "number": np.array([0])}))
    assert logits.shape == labels.shape == (7, 2)
    assert labels.tolist() == batch["label"][:7].tolist()
    expected = made(recipe.preprocessing.normalise(torch.from_numpy(batch["image"][:7]))).detach()
    torch.testing.assert_close(logits, expected, atol=0.05, rtol=0.05)


def test_a_training_publishes_its_temperatures_and_says_on_the_card_what_they_changed(
    shards: str, tmp_path: Path
) -> None:
    recipe = recipe_of(shards, tmp_path)
    torch.manual_seed(0)
    made = network(recipe.settings, recipe.targets).eval()
    weights = {name: value * (30 if name.startswith("fc.") else 1) for name, value in made.state_dict().items()}
    version = recipe.publish(weights, {"epoch": 0.0})["cnn"]
    model = registry.resolve(str(tmp_path), f"cnn@{version}")
    assert model.temperatures.keys() == {"Male", "Young"}
    card = open_store(str(tmp_path)).get(f"cnn/{version}/card.md").decode()
    for target, temperature in model.temperatures.items():
        assert f"| {target} | {temperature:.3f} |" in card
    assert "| valid_ece_before |" in card
    assert model.metrics["valid_nll_after"] < model.metrics["valid_nll_before"]
    loaded = registry.assemble(model, registry.load_state(str(tmp_path), model))
    again = calibrate(*logits_of(Classifier(loaded, recipe.targets), recipe.data, "valid", recipe.read), recipe.targets)
    assert {name: one.temperature for name, one in again.items()} == pytest.approx(model.temperatures, rel=1e-3)
