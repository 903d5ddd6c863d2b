"""`train` with style networks on a real Ray cluster: a version that draws is published, and a kill costs an epoch."""

import io
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn
from trainings import KilledWorker, history

from celebvision import registry
from celebvision.celeba.drawn import write_dataset
from celebvision.celeba.ingest import ingest
from celebvision.celeba.shards import DataSet
from celebvision.config import IngestSettings, TrainSettings, parse
from celebvision.job import JobFailed
from celebvision.models.adain import AdaIN
from celebvision.models.style_net import StyleNet
from celebvision.models.stylizer import Stylizer
from celebvision.models.vgg import VGG
from celebvision.storage import open_store
from celebvision.training.run import train
from celebvision.training.style import adain, loss_settings, style_net
from celebvision.training.style_recipe import StyleRecipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> dict[str, str]:
    """Shards of photos and of style pictures, two style pictures, and weights of a VGG that learnt nothing."""
    folder = tmp_path_factory.mktemp("style")
    write_dataset(folder / "original", 120, seed=1)
    ingest(IngestSettings(source=str(folder / "original"), output=str(folder / "shards")))
    (folder / "styles").mkdir()
    for number, picture in enumerate(sorted((folder / "original").rglob("*.jpg"))[:6]):
        Image.open(picture).quantize(4).convert("RGB").save(folder / "styles" / f"{number}.png")
    ingest(IngestSettings(style_folder=str(folder / "styles"), output=str(folder / "style_shards")))
    torch.manual_seed(0)
    vgg = VGG("vgg16", ["conv4_1"])
    for module in vgg.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    safetensors.torch.save_file(vgg.state_dict(), folder / "vgg16.safetensors")
    places = {"data": "shards", "style_data": "style_shards", "weights": "vgg16.safetensors", "styles": "styles"}
    return {name: str(folder / place) for name, place in places.items()}


def given(data: dict[str, str], home: str, epochs: int = 2, **more: Any) -> dict[str, Any]:
    words = {
        "data": data["data"],
        "registry": home,
        "architecture": "style_net",
        "styles": {"few": f"{data['styles']}/0.png", "flat": f"{data['styles']}/1.png"},
        "arguments": {"size": 16, "width": 4, "blocks": 1, "skip": True},
        "arch": "vgg16",
        "weights": data["weights"],
        "perceptual": {"content_layers": ["conv2_1"], "style_layers": ["conv1_2", "conv2_1"]},
        "valid_images": 8,
        "phases": [{"epochs": epochs, "learning_rate": 1e-3}],
        "batch_size": 8,
        "epoch_images": 48,
        "ema_decay": 0.9,
        "workers": 2,
    }
    return {**words, **more}


def given_adain(data: dict[str, str], home: str, epochs: int = 2, **more: Any) -> dict[str, Any]:
    words = given(data, home, epochs, architecture="adain", style_data=data["style_data"])
    del words["styles"]
    return {
        **words,
        "arguments": {"size": 16, "width": 0.05},
        "perceptual": {"style_layers": ["conv1_2", "conv2_1"]},
        **more,
    }


def test_a_style_net_is_published_with_its_styles_to_look_at_and_a_killed_worker_costs_no_more_than_its_epoch(
    data: dict[str, str], bucket: str
) -> None:
    with KilledWorker(bucket) as killed:
        outcome = train(TrainSettings(**given(data, bucket, epochs=5)))
    killed.check(outcome.summary["run"], epochs=5)
    model = registry.resolve(bucket, "style_net")  # the first version is in production
    assert outcome.summary["model"] == f"style_net@{model.version}"
    assert model.arguments == {"styles": ["few", "flat"], "size": 16, "width": 4, "blocks": 1, "skip": True}
    store, below = open_store(bucket), f"style_net/{model.version}"
    card = store.get(f"{below}/card.md").decode()
    for words in (f"- `few`: `{data['styles']}/0.png`", "`vgg16`", data["weights"], "| style | conv1_2, conv2_1 |"):
        assert words in card
    sheet = Image.open(io.BytesIO(store.get(f"{below}/samples/before-after.png")))
    assert sheet.size == (9 * 18 - 2, 3 * 18 - 2)
    assert Image.open(io.BytesIO(store.get(f"{below}/samples/styles.png"))).height == 144
    network = registry.assemble(model, registry.load_state(bucket, model))
    assert isinstance(network, StyleNet)
    network.choose([1, 3])
    assert Stylizer(network).draw(torch.zeros(1, 20, 24, 3, dtype=torch.uint8)).shape == (1, 20, 24, 3)  # type: ignore[arg-type]
    run = open_store(outcome.summary["run"])
    shown = [stat.key for stat in run.list("pictures/")]
    assert shown == [f"pictures/epoch-000{epoch}-styles.png" for epoch in range(1, 6)]
    assert Image.open(io.BytesIO(run.get(shown[0]))).size == (7 * 18 - 2, 3 * 18 - 2)
    rows = history(outcome.summary["run"])
    figures = {"content_loss", "style_loss", "style_loss_few", "style_loss_flat"}
    assert {"loss", "content", "style", "images_per_s"} | figures <= set(rows.columns)
    best = rows.loc[rows["score"].idxmax()]
    assert {name: model.metrics[name] for name in figures} == pytest.approx({name: best[name] for name in figures})


def test_an_adain_is_published_whole_and_draws_after_any_picture(data: dict[str, str], bucket: str) -> None:
    train(TrainSettings(**given_adain(data, bucket, epochs=1, workers=1)))
    model = registry.resolve(bucket, "adain")
    assert model.arguments == {"arch": "vgg16", "size": 16, "width": 0.05}
    network = registry.assemble(model, registry.load_state(bucket, model))
    assert isinstance(network, AdaIN)
    vgg = safetensors.torch.load_file(data["weights"])
    assert all(torch.equal(value, vgg[name]) for name, value in network.encoder.state_dict().items())
    style = torch.randint(0, 255, (1, 40, 30, 3), dtype=torch.uint8)
    network.choose(network.statistics([style], [1.0]))
    assert Stylizer(network).draw(torch.zeros(1, 20, 25, 3, dtype=torch.uint8)).shape == (1, 20, 25, 3)  # type: ignore[arg-type]
    store, below = open_store(bucket), f"adain/{model.version}"
    assert "in the style of any picture" in store.get(f"{below}/card.md").decode()
    assert Image.open(io.BytesIO(store.get(f"{below}/samples/before-after.png"))).size == (9 * 18 - 2, 7 * 18 - 2)
    assert store.get(f"{below}/samples/styles.png")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"arguments": {"size": 30}}, "refused by style_net: size"),
        ({"arguments": {"styles": ["a"]}}, "refused by style_net: .*styles"),
        ({"styles": {"a b": "picture.png"}}, "refused by style_net: styles: names"),
        ({"perceptual": {"content_layers": ["conv9_1"]}}, "vgg16 has no layer conv9_1"),
        ({"perceptual": {"style_layers": ["conv5_1"]}}, "not vgg16's weights"),
        ({"batch_size": 64}, "batch_size: 64 is more than the 48"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(
    more: dict[str, Any], told: str, data: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(JobFailed, match=told):
        train(TrainSettings(**given(data, str(tmp_path), **more)))
    assert not list(tmp_path.iterdir())


def test_a_style_that_is_no_picture_is_named(data: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    styles = {"few": f"{data['styles']}/0.png", "odd": f"{tmp_path}/broken.png"}
    with pytest.raises(JobFailed, match=r"styles\.odd: .*broken\.png: of no known format"):
        train(TrainSettings(**given(data, str(tmp_path / "models"), styles=styles)))


def test_another_picture_of_a_style_is_another_training(data: dict[str, str], tmp_path: Path) -> None:
    """The run's folder hangs on what the pictures hold, not on their names alone."""
    words = TrainSettings(**given(data, str(tmp_path)))
    first = StyleRecipe(words, DataSet.load(words.data)).data_digest
    style = Path(words.styles["flat"])
    before = style.read_bytes()
    try:
        style.write_bytes((style.parent / "2.png").read_bytes())
        assert StyleRecipe(words, DataSet.load(words.data)).data_digest != first
    finally:
        style.write_bytes(before)
    assert StyleRecipe(words, DataSet.load(words.data)).data_digest == first


@pytest.mark.parametrize("config", ["style_net", "style_net_small", "adain"])
def test_the_configurations_that_are_shipped_are_whole(config: str) -> None:
    file = Path(__file__).parents[2] / "configs" / "train" / f"{config}.yaml"
    words = ["--config", str(file), "--data", "d", "--registry", "r"]
    settings = parse(TrainSettings, words + (["--style_data", "s"] if config == "adain" else []), "celebvision train")
    network = adain(settings) if config == "adain" else style_net(settings)
    assert network.preprocessing.height == settings.arguments["size"]
    VGG(settings.arch, [*loss_settings(settings).content_layers, *settings.perceptual.style_layers])
