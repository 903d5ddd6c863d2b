"""A training whose number of workers may change begins with those there is room for, and says how many they are."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from trainings import drawn_shards, history

from celebvision import registry
from celebvision.config import Phase, TrainSettings
from celebvision.training.run import train


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    return drawn_shards(tmp_path_factory.mktemp("celeba"), 320)


def words(shards: str, home: str, **more: Any) -> TrainSettings:
    given = {"data": shards, "registry": home, "arguments": {"width": 8}, "batch_size": 32, "workers": 2}
    return TrainSettings(**{**given, **more})


def test_it_begins_with_the_workers_there_is_room_for_learns_all_attributes_and_stops_when_nothing_gets_better(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phases = [Phase(epochs=9, learning_rate=1e-12)]  # so small that no epoch is better than the first
    given = {"phases": phases, "patience": 2, "targets": ["all"]}
    outcome = train(words(shards, str(tmp_path), min_workers=1, **given))  # the tests' cluster is one node
    assert "begins with 1 of 2 workers" in capsys.readouterr().err
    rows = history(outcome.summary["run"])
    assert (rows["epoch"].tolist(), rows["workers"].tolist()) == ([0, 1, 2], [1, 1, 1])
    model = registry.resolve(str(tmp_path), "cnn")
    assert outcome.summary["model"] == f"cnn@{model.version}"
    assert len(model.targets) == len(model.classes) == 40
    assert model.metrics["epoch"] == 0
    fixed = train(words(shards, str(tmp_path), **given))
    assert fixed.summary["run"] == outcome.summary["run"], "how few are enough is no part of what is learnt"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"min_workers": 3}, "min_workers: 3 is more than the 2 of workers"),
        ({"batch_size": 3, "workers": 4}, "batch_size: 3 is less than an image for each of 4 workers"),
    ],
)
def test_numbers_that_cannot_be_are_refused(more: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        words("shards", "models", **more)
