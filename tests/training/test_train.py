"""`train` on a real Ray cluster: it publishes, goes on without a killed worker, and does nothing twice."""

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from trainings import KilledWorker, drawn_shards, history

from celebvision import registry
from celebvision.config import Phase, TrainSettings
from celebvision.job import JobFailed
from celebvision.storage import open_store
from celebvision.storage.client import client
from celebvision.training.run import train

EPOCHS = 6


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    return drawn_shards(tmp_path_factory.mktemp("celeba"), 320)


def words(shards: str, home: str, **more: Any) -> TrainSettings:
    given = {
        "data": shards,
        "registry": home,
        "arguments": {"width": 8},
        "phases": [Phase(epochs=2, learning_rate=2e-3)],
        "batch_size": 32,
        "ema_decay": 0.9,
        "workers": 2,
    }
    return TrainSettings(**{**given, **more})


@dataclass(frozen=True)
class Trained:
    """A training that lost a worker in its third epoch, and the registry that it published to."""

    home: str
    summary: dict[str, Any]
    killed: KilledWorker


@pytest.fixture(scope="module")
def trained(shards: str, s3_endpoint: str) -> Trained:
    client().create_bucket(Bucket="test-trained")
    home = "s3://test-trained"
    with KilledWorker(home) as killed:
        outcome = train(words(shards, home, phases=[Phase(epochs=EPOCHS, learning_rate=2e-3)]))
    return Trained(home, outcome.summary, killed)


def test_it_publishes_a_version_that_becomes_production(trained: Trained) -> None:
    model = registry.resolve(trained.home, "cnn")
    assert trained.summary["model"] == f"cnn@{model.version}"
    assert model.targets == ["Male"]
    assert model.classes == {"Male": ("female", "male")}
    assert model.arguments["width"] == 8
    assert "dropout" in model.arguments, "what was left to its default must be kept too: defaults change"
    registry.assemble(model, registry.load_state(trained.home, model))
    sheet = open_store(trained.home).get(f"cnn/{model.version}/samples/validation.png")
    assert Image.open(io.BytesIO(sheet)).height > 0
    rows = history(trained.summary["run"])
    assert {"loss", "valid_loss", "valid_accuracy", "images_per_s", "wait_share"} <= set(rows.columns)
    best = rows.loc[rows["score"].idxmax()]
    assert model.metrics["valid_accuracy"] == pytest.approx(best["valid_accuracy"])
    names = [stat.key for stat in open_store(trained.summary["run"]).list("tensorboard/")]
    assert any("tfevents" in name for name in names)


def test_a_killed_worker_costs_no_more_than_its_epoch(trained: Trained) -> None:
    trained.killed.check(trained.summary["run"], EPOCHS)


def test_a_second_model_waits_until_it_is_promoted_and_the_same_words_train_nothing(
    trained: Trained, shards: str, tmp_path: Path
) -> None:
    home, first = str(tmp_path), trained.summary["model"]
    published = open_store(trained.home)
    for stat in published.list("cnn/"):
        open_store(home).put(stat.key, published.get(stat.key))
    once = {"phases": [Phase(epochs=1, learning_rate=2e-3)], "workers": 1, "seed": 1}
    second = train(words(shards, home, **once)).summary["model"]
    assert f"cnn@{registry.production(home, 'cnn')}" == first != second
    started = time.monotonic()
    assert train(words(shards, home, promote=True, **once)).summary["model"] == second
    assert time.monotonic() - started < 5
    assert len(registry.versions(home, "cnn")) == 2
    assert f"cnn@{registry.production(home, 'cnn')}" == second


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"targets": ["Man"]}, "targets: Man: each should be one of 5_o_Clock_Shadow"),
        ({"batch_size": 4096}, "batch_size: 4096 is more than the 2"),
        ({"data": "nowhere"}, "holds no dataset.json"),
        ({"arguments": {"depth": 1}}, "refused by cnn"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(
    more: dict[str, Any], told: str, shards: str, tmp_path: Path
) -> None:
    with pytest.raises(JobFailed, match=told):
        train(words(shards, str(tmp_path), **more))
    assert not list(tmp_path.iterdir())
