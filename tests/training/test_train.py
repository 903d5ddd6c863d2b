"""`train` on a real Ray cluster: it publishes, goes on after kills, and does nothing twice."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from trainings import KillInTheThirdEpoch, drawn_shards, history, wait_for_checkpoint

from celebvision import registry
from celebvision.config import Phase, TrainSettings
from celebvision.job import JobFailed
from celebvision.storage import open_store
from celebvision.training.run import train


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


def test_it_publishes_a_version_that_becomes_production(shards: str, bucket: str) -> None:
    outcome = train(words(shards, bucket))
    model = registry.resolve(bucket, "cnn")
    assert outcome.summary["model"] == f"cnn@{model.version}"
    assert model.targets == ["Male"]
    assert model.classes == {"Male": ("female", "male")}
    assert model.arguments["width"] == 8
    assert "dropout" in model.arguments, "what was left to its default must be kept too: defaults change"
    registry.assemble(model, registry.load_state(bucket, model))
    sheet = open_store(bucket).get(f"cnn/{model.version}/samples/validation.png")
    assert Image.open(io.BytesIO(sheet)).height > 0
    rows = history(outcome.summary["run"])
    assert rows["epoch"].tolist() == [0, 1]
    assert {"loss", "valid_loss", "valid_accuracy", "images_per_s", "wait_share"} <= set(rows.columns)
    best = rows.loc[rows["score"].idxmax()]
    assert model.metrics["valid_accuracy"] == pytest.approx(best["valid_accuracy"])
    names = [stat.key for stat in open_store(outcome.summary["run"]).list("tensorboard/")]
    assert any("tfevents" in name for name in names)


def test_the_same_words_again_train_nothing(shards: str, tmp_path: Path) -> None:
    settings = words(shards, str(tmp_path), phases=[Phase(epochs=1, learning_rate=2e-3)], workers=1)
    first = train(settings)
    started = time.monotonic()
    assert train(settings).summary["model"] == first.summary["model"]
    assert time.monotonic() - started < 5
    assert len(registry.versions(str(tmp_path), "cnn")) == 1


def test_it_stops_when_nothing_gets_better_and_learns_several_attributes_at_once(shards: str, tmp_path: Path) -> None:
    phases = [Phase(epochs=9, learning_rate=1e-12)]  # so small that no epoch is better than the first
    more = {"phases": phases, "patience": 2, "targets": ["all"], "workers": 1}
    outcome = train(words(shards, str(tmp_path), **more))
    assert history(outcome.summary["run"])["epoch"].tolist() == [0, 1, 2]
    model = registry.resolve(str(tmp_path), "cnn")
    assert len(model.targets) == len(model.classes) == 40
    assert model.metrics["epoch"] == 0


def test_a_second_model_waits_until_it_is_promoted(shards: str, tmp_path: Path) -> None:
    once = {"phases": [Phase(epochs=1, learning_rate=2e-3)], "workers": 1}
    first = train(words(shards, str(tmp_path), **once)).summary["model"]
    second = train(words(shards, str(tmp_path), seed=1, **once)).summary["model"]
    assert f"cnn@{registry.production(str(tmp_path), 'cnn')}" == first != second
    train(words(shards, str(tmp_path), seed=1, promote=True, **once))
    assert f"cnn@{registry.production(str(tmp_path), 'cnn')}" == second


def test_a_killed_worker_costs_no_more_than_its_epoch(
    shards: str, tmp_path: Path, at_once: Callable[[Callable[[], None]], None]
) -> None:
    kill = KillInTheThirdEpoch(str(tmp_path))
    at_once(kill)
    outcome = train(words(shards, str(tmp_path), phases=[Phase(epochs=6, learning_rate=2e-3)]))
    kill.check(outcome.summary["run"], epochs=6)


def test_a_killed_driver_goes_on_from_the_last_finished_epoch(shards: str, tmp_path: Path) -> None:
    phases = '[{"epochs": 6, "learning_rate": 0.002}]'
    home = str(tmp_path / "models")
    command = [str(Path(sys.executable).with_name("celebvision")), "train", "--data", shards, "--registry", home]
    command += ["--arguments", '{"width": 8}', "--phases", phases, "--batch_size", "32", "--json"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    run = wait_for_checkpoint(f"{home}/_training", 1)
    driver.kill()
    driver.wait()
    kept = history(run)
    assert len(kept) < 6, "the kill came too late to show anything"
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == run
    rows = history(run)
    assert rows["epoch"].tolist() == list(range(6))
    pd.testing.assert_frame_equal(rows.head(2), kept.head(2))
    assert len(registry.versions(home, "cnn")) == 1


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
