"""`train` with a CycleGAN on a real Ray cluster: both directions are published, and kills cost an epoch at most."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import safetensors.torch
import torch
from PIL import Image
from trainings import KilledWorker, history, wait_for_checkpoint

from celebvision import registry
from celebvision.celeba.drawn import write_dataset
from celebvision.celeba.ingest import ingest
from celebvision.config import EvaluateSettings, IngestSettings, TrainSettings
from celebvision.evaluation.run import evaluate
from celebvision.job import JobFailed
from celebvision.models.stylizer import Stylizer
from celebvision.models.vgg import VGG
from celebvision.storage import open_store
from celebvision.training.run import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> dict[str, str]:
    """Shards of photos and of their grey drawings, and weights to measure with, of a network that learnt nothing."""
    folder = tmp_path_factory.mktemp("cyclegan")
    write_dataset(folder / "original", 160, seed=1)
    ingest(IngestSettings(source=str(folder / "original"), output=str(folder / "shards")))
    pictures = sorted((folder / "original").rglob("*.jpg"))[:20]
    (folder / "styles").mkdir()
    for picture in pictures:
        Image.open(picture).convert("L").save(folder / "styles" / picture.name)
    ingest(IngestSettings(style_folder=str(folder / "styles"), output=str(folder / "style_shards")))
    torch.manual_seed(0)
    safetensors.torch.save_file(VGG("vgg16", ["conv2_1"]).state_dict(), folder / "vgg16.safetensors")
    places = {"data": "shards", "style_data": "style_shards", "weights": "vgg16.safetensors"}
    return {name: str(folder / place) for name, place in places.items()}


def given(data: dict[str, str], home: str, epochs: int = 2, **more: Any) -> dict[str, Any]:
    cyclegan = {
        "discriminator_width": 4,
        "discriminator_layers": 1,
        "diff_augment": ["colour", "translation", "cutout"],
        "projected": ["conv1_2", "conv2_1"],
        "features": "vgg16:relu2_1",
        "features_weights": data["weights"],
        "valid_images": 8,
        "grid": 4,
    }
    words = {
        "data": data["data"],
        "style_data": data["style_data"],
        "registry": home,
        "architecture": "cyclegan",
        "name": "cyclegan-grey",
        "arguments": {"size": 16, "width": 4, "blocks": 1},
        "phases": [{"epochs": epochs, "learning_rate": 1e-3}],
        "batch_size": 8,
        "epoch_images": 48,
        "ema_decay": 0.9,
        "workers": 2,
    }
    return {**words, **more, "cyclegan": {**cyclegan, **more.get("cyclegan", {})}}


def test_both_directions_are_published_and_an_epoch_shows_its_pictures(data: dict[str, str], bucket: str) -> None:
    outcome = train(TrainSettings(**given(data, bucket)))
    for name, does in (("cyclegan-grey", "photos in the manner of"), ("cyclegan-grey-reverse", "photos of pictures")):
        model = registry.resolve(bucket, name)  # the first version is in production
        assert model.targets == []
        assert model.arguments == {"size": 16, "width": 4, "blocks": 1, "antialias": False, "skip": False}
        card = open_store(bucket).get(f"{name}/{model.version}/card.md").decode()
        assert does in card
        assert "judged by conv1_2, conv2_1 of VGG-16 too" in card
        assert open_store(bucket).get(f"{name}/{model.version}/samples/before-after.png")
        network = registry.assemble(model, registry.load_state(bucket, model))
        assert Stylizer(network).draw(torch.zeros(1, 20, 24, 3, dtype=torch.uint8)).shape == (1, 20, 24, 3)  # type: ignore[arg-type]
    assert outcome.summary["model"].startswith("cyclegan-grey@")
    assert outcome.summary["reverse"].startswith("cyclegan-grey-reverse@")
    run = open_store(outcome.summary["run"])
    shown = [stat.key for stat in run.list("pictures/")]
    assert shown == [
        f"pictures/epoch-000{epoch}-{way}.png" for epoch in (1, 2) for way in ("photo_to_style", "style_to_photo")
    ]
    assert Image.open(io.BytesIO(run.get(shown[-1]))).size == (4 * 18 - 2, 3 * 18 - 2)
    rows = history(outcome.summary["run"])
    losses = {"generator", "adversarial", "cycle", "identity", "discriminator"}
    figures = {"kid", "kid_share", "kid_reverse", "fid", "cycle_l1", "variety", "images_per_s"}
    assert losses | figures <= set(rows.columns)
    best = rows.loc[rows["kid"].idxmin()]
    assert registry.resolve(bucket, "cyclegan-grey").metrics["kid"] == pytest.approx(best["kid"])
    words = {"registry": bucket, "data": data["data"], "output": f"{bucket}/evaluation"}
    with pytest.raises(JobFailed, match="style: is missing; give --style"):  # it draws, and is measured against one
        evaluate(EvaluateSettings(model=["cyclegan-grey"], **words))


def test_a_killed_driver_and_a_killed_worker_cost_no_more_than_their_epochs(
    data: dict[str, str], tmp_path: Path
) -> None:
    home = str(tmp_path / "models")
    config = tmp_path / "words.yaml"
    config.write_text(json.dumps(given(data, home, epochs=10)))  # JSON is YAML
    command = [str(Path(sys.executable).with_name("celebvision")), "train", "--config", str(config)]
    driver = subprocess.Popen(command)
    run = wait_for_checkpoint(f"{home}/_training", 1)
    driver.kill()
    driver.wait()
    kept = history(run)
    assert len(kept) < 5, "the kill came too late for another"
    again = subprocess.Popen(command)
    with KilledWorker(home, of=again.pid) as killed:
        assert again.wait(timeout=300) == 0
    killed.check(run, epochs=10)
    pd.testing.assert_frame_equal(history(run).head(2), kept.head(2))
    assert len(registry.versions(home, "cyclegan-grey")) == len(registry.versions(home, "cyclegan-grey-reverse")) == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"style_data": "nowhere"}, "holds no dataset.json"),
        ({"arguments": {"size": 30}}, "refused by cyclegan"),
        ({"cyclegan": {"features": "resnet"}}, r"cyclegan\.features: .*there are"),
        ({"cyclegan": {"features": "inception_v3"}}, r"cyclegan\.projected: .* of inception_v3; give features: vgg16"),
        (
            {"cyclegan": {"features": "vgg16:relu1_1", "projected": ["relu9"]}},
            r"cyclegan\.projected: .* no layer relu9",
        ),
        ({"batch_size": 64}, "batch_size: 64 is more than the 48"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(
    more: dict[str, Any], told: str, data: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(JobFailed, match=told):
        train(TrainSettings(**given(data, str(tmp_path), **more)))
    assert not list(tmp_path.iterdir())
