"""A classifier's card: what it says was measured, and on the pictures that it says."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from trainings import drawn_shards, recipe_of

from celebvision.celeba.shards import DataSet
from celebvision.evaluation.groups import Group, groups
from celebvision.evaluation.predict import predict
from celebvision.models.classifier import Classifier
from celebvision.registry import resolve
from celebvision.storage import open_store
from celebvision.training.calibration import Calibration, logits_of
from celebvision.training.classification import network
from celebvision.training.classifier_card import card


def group(attribute: str, side: bool, pictures: int, errors: int, proxy: str | None = None) -> Group:
    few = pictures < 20
    return Group(attribute, side, pictures, errors, errors / pictures, 0.01, 0.5, few, proxy)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    return drawn_shards(tmp_path_factory.mktemp("celeba"), 200)


def text(shards: str, groups: list[Group]) -> str:
    recipe = recipe_of(shards, Path(shards))
    calibrations = {target: Calibration(1.5, 0.4, 0.3, 0.1, 0.05) for target in recipe.targets}
    return card(
        recipe.settings,
        recipe.data,
        recipe.targets,
        {"epoch": 3.0},
        calibrations,
        dict.fromkeys(recipe.targets, groups),
        20,
    )


def test_the_card_names_data_seed_labels_and_what_the_model_is_not_for(shards: str) -> None:
    words = text(shards, [])
    data = DataSet.load(shards)
    assert f"{data.rows('train')} pictures of" in words
    assert data.digest[:12] in words
    assert "seed 0" in words
    assert "an annotator's yes or no" in words
    assert "Some are wrong" in words
    assert "more than once" in words
    assert "Decisions about a person" in words
    share = data.positives("train")["Male"] / data.rows("train")
    assert f"Male {share:.1%}" in words


def test_the_worst_groups_come_first_and_those_of_a_few_pictures_not_at_all(shards: str) -> None:
    found = [group("Bald", True, 40, 20, "age"), group("Young", False, 100, 10), group("Wearing_Hat", True, 19, 19)]
    words = text(shards, found)
    assert "| Bald | 40 | 50.0% (1.0% to 50.0%) | age |" in words
    assert "| not Young | 100 | 10.0%" in words
    assert words.index("| Bald") < words.index("| not Young")
    assert "Wearing_Hat" not in words
    assert "no other attribute has a group of that size" in text(shards, found[2:])


def test_a_published_card_has_the_group_errors_of_the_validation_pictures(shards: str, tmp_path: Path) -> None:
    recipe = recipe_of(shards, tmp_path)
    torch.manual_seed(0)
    made: nn.Module = network(recipe.settings, recipe.targets)
    version = recipe.publish(dict(made.state_dict()), {"epoch": 0.0})["cnn"]
    words = open_store(str(tmp_path)).get(f"cnn/{version}/card.md").decode()
    model, data = resolve(str(tmp_path), f"cnn@{version}"), recipe.data
    table = predict(shards, data, "valid", str(tmp_path), model, 32, list(data.positives("valid")))
    worst = [one for one in groups(table, "Male", list(data.positives("valid"))) if not one.too_few]
    assert worst
    assert worst[0].error_rate
    for one in worst[:8]:
        name = one.attribute if one.side else f"not {one.attribute}"
        assert f"| {name} | {one.pictures} | {one.error_rate:.1%} (" in words


def test_logits_come_with_the_labels_of_every_known_attribute(shards: str, tmp_path: Path) -> None:
    recipe = recipe_of(shards, tmp_path)
    made = network(recipe.settings, recipe.targets).eval()
    read = recipe._read_all()
    _, labels = logits_of(Classifier(made, recipe.targets), recipe.data, "valid", read)
    rows = pq.read_table(f"{shards}/{recipe.data.of('valid')[0].path}")
    assert read.targets[:2] == ("Male", "Young")
    assert len(read.targets) == 40
    for at, name in enumerate(read.targets):
        assert labels[:, at].bool().tolist() == rows[name].to_pylist(), name
