"""`evaluate` of models that draw: one row for each, measured alike on the same pictures, and the same each time."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from labelling import _publish, command, published, published_style
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from celebvision import images, style_evaluation, styling
from celebvision.celeba.drawn import write_dataset
from celebvision.celeba.ingest import ingest
from celebvision.celeba.shards import DataSet
from celebvision.config import EvaluateSettings, IngestSettings, WordsError, parse
from celebvision.evaluation.run import evaluate
from celebvision.job import JobFailed
from celebvision.models.features import fid, kid, make_features
from celebvision.models.perceptual import distance, gram
from celebvision.models.vgg import VGG
from celebvision.registry import ModelVersion, load_state
from celebvision.sheet import boxes
from celebvision.storage import open_store, read_table
from celebvision.style_evaluation import GAP, HEAD, SHOWN, comparison, style_set_of

IMAGES, SIZE, BATCH = 10, 32, 4
FED = {"styles": ["wave", "zigzag"], "size": SIZE, "width": 4, "blocks": 1}
CONTENT, STYLE = "conv2_1", ("conv1_1", "conv2_1")
TIMES = {"ms", "ms_median", "pictures_per_min"}


@dataclass
class Studio:
    """Shards of faces, two style pictures and a style set, VGG-16 as nobody trained it, and models that draw."""

    home: Path
    sketch: ModelVersion
    fed: ModelVersion
    cnn: ModelVersion

    def at(self, name: str) -> str:
        return str(self.home / name)

    @property
    def titles(self) -> list[str]:
        return [f"{model.name}@{model.version}" for model in (self.sketch, self.fed)]

    @property
    def weights(self) -> str:
        return self.at("vgg16.safetensors")

    def words(self, output: str, **more: Any) -> dict[str, Any]:
        perceptual = {"content_layers": [CONTENT], "style_layers": list(STYLE)}
        own = {"registry": self.at("registry"), "data": self.at("shards"), "output": self.at(output), "split": "train"}
        weights = dict.fromkeys(("weights", "features_weights", "lpips_weights"), self.weights)
        of_style = {"style": [self.at("wave.png")], "arch": "vgg16", "perceptual": perceptual, "steps": 3}
        of_set = {"images": IMAGES, "size": SIZE, "batch_size": BATCH, "features": "vgg16:relu2_1"}
        return own | weights | of_style | of_set | {"model": [*self.titles, "vgg"]} | more

    def evaluate(self, output: str, **more: Any) -> dict[str, Any]:
        evaluate(EvaluateSettings(**self.words(output, **more)))
        found: dict[str, Any] = json.loads(open_store(self.at(output)).get("evaluation.json"))
        return found


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Studio:
    home = tmp_path_factory.mktemp("studio")
    for name, count in (("shards", 20), ("few", 10)):
        write_dataset(home / f"original_{name}", count, seed=1)
        ingest(IngestSettings(source=str(home / f"original_{name}"), output=str(home / name)))
    for name, step in (("wave", 3), ("zigzag", 7)):
        (home / f"{name}.png").write_bytes(images.encode(stripes(step), "png"))
    (home / "set").mkdir()
    for step in range(4):
        (home / "set" / f"{step}.png").write_bytes(images.encode(stripes(step + 2), "png"))
    ingest(IngestSettings(style_folder=str(home / "set"), output=str(home / "style_shards")))
    torch.manual_seed(0)
    vgg = VGG("vgg16", ["conv5_3"])
    for part in vgg.features:
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    safetensors.torch.save_file(vgg.state_dict(), home / "vgg16.safetensors")
    registry = str(home / "registry")
    fed = _publish(registry, "fed", "style_net", FED, {}, 2)
    return Studio(home, published_style(registry, 1, size=SIZE), fed, published(registry, 1))


@pytest.fixture(scope="module")
def evaluated(studio: Studio) -> dict[str, Any]:
    return studio.evaluate("evaluation")


def stripes(step: int) -> NDArray[np.uint8]:
    down, across = np.mgrid[:60, :80]
    return np.stack([step * down + across, step * across % 256, 5 * down + 0 * across], -1).astype(np.uint8)


def rows_of(studio: Studio, title: str, output: str = "evaluation") -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = read_table(open_store(studio.at(output)), f"predictions/{title}.parquet").to_pydict()
    return found


def test_every_model_has_its_figures_beside_the_photos(studio: Studio, evaluated: dict[str, Any]) -> None:
    photos, *titles, vgg = evaluated["models"]
    assert [photos, *titles, vgg.partition("@")[0]] == ["photos", *studio.titles, "vgg"]
    ids = rows_of(studio, "photos")["image_id"]
    for title, figures in evaluated["models"].items():
        rows = rows_of(studio, title)
        assert rows.pop("image_id") == ids, "the same pictures, in the same order"
        assert len(ids) == IMAGES
        for name, values in rows.items():
            assert figures[name] == pytest.approx(np.mean(values))
            assert figures[f"{name}_median"] == pytest.approx(np.median(values))
        assert figures["artfid"] == pytest.approx((1 + np.mean(rows["lpips"])) * (1 + figures["fid"]))
        for kind in ("content", "style"):
            optimum = np.mean(rows_of(studio, vgg)[f"{kind}_loss"])
            assert figures[f"{kind}_ratio"] == pytest.approx(np.mean(rows[f"{kind}_loss"]) / optimum)
        if title != "photos":
            assert figures["pictures_per_min"] == pytest.approx(60_000 / np.mean(rows["ms"]))
            assert min(rows["lpips"]) > 0


def test_photos_are_at_no_distance_from_themselves_and_the_optimum_is_one(evaluated: dict[str, Any]) -> None:
    photos, *_, vgg = evaluated["models"].values()
    assert (photos["content_loss"], photos["lpips"], photos["content_ratio"]) == (0, 0, 0)
    assert TIMES.isdisjoint(photos)
    assert (vgg["content_ratio"], vgg["style_ratio"]) == (1, 1)
    assert vgg["style_loss"] < photos["style_loss"], "three steps came nearer to the style"


def test_figures_are_those_of_the_pictures_as_they_were_drawn(studio: Studio, evaluated: dict[str, Any]) -> None:
    """Drawn and measured again here, each picture alone, by the equations."""
    weights = safetensors.torch.load_file(studio.weights)
    vgg = VGG("vgg16", STYLE)
    vgg.load(weights)
    settings = EvaluateSettings(**studio.words("evaluation"))
    words = settings.model_copy(update={"style": []})
    draws = styling.redraws(words, studio.sketch, load_state(studio.at("registry"), studio.sketch), "cpu")
    table = read_table(open_store(studio.at("shards")), DataSet.load(studio.at("shards")).of("train")[0].path)
    rows = rows_of(studio, studio.titles[0])
    assert rows["image_id"] == table["image_id"].to_pylist()[:IMAGES], "the first of the split"
    wave = styling.shown(studio.at("wave.png"))
    wave = torch.nn.functional.interpolate(_floats(wave), (32, 43), mode="bicubic", antialias=True).clamp(0, 1)
    wanted = {layer: gram(vgg(wave)[layer]) for layer in STYLE}
    parts = []
    for number in range(IMAGES):
        photo = torch.from_numpy(images.decode(table["image"][number].as_py(), SIZE, SIZE).copy())[None]
        drawn, _ = draws.draw(photo, lambda share, pictures: None)
        of_photo, of_drawn = vgg(_floats(photo)), vgg(_floats(drawn))
        content = distance(of_drawn[CONTENT], of_photo[CONTENT])
        style = sum(distance(gram(of_drawn[layer]), wanted[layer]) for layer in STYLE) / len(STYLE)
        # A picture drawn in another batch may differ from this by a step of 255.
        assert rows["content_loss"][number] == pytest.approx(float(content), rel=1e-2)
        assert rows["style_loss"][number] == pytest.approx(float(style), rel=1e-2)
        parts.append(drawn)
    features = make_features("vgg16:relu2_1")
    features.load(weights)
    ours = features.of(torch.cat(parts))
    theirs = features.of(torch.from_numpy(style_set_of(settings, [styling.shown(studio.at("wave.png"))], IMAGES)))
    figures = evaluated["models"][studio.titles[0]]
    assert figures["fid"] == pytest.approx(fid(ours, theirs, True), rel=1e-2)
    assert figures["kid"] == pytest.approx(kid(ours, theirs, True), rel=1e-2)


def _floats(pictures: Tensor) -> Tensor:
    return pictures.permute(0, 3, 1, 2).float() / 255


def test_the_same_words_give_the_same_figures(studio: Studio, evaluated: dict[str, Any]) -> None:
    again = studio.evaluate("again")
    assert without_times(again) == without_times(evaluated)
    for title in again["models"]:
        one, other = (rows_of(studio, title, output) for output in ("evaluation", "again"))
        assert one | {"ms": None} == other | {"ms": None}
    one, other = (open_store(studio.at(output)).get("comparison.png") for output in ("evaluation", "again"))
    assert one == other


def without_times(evaluation: dict[str, Any]) -> dict[str, Any]:
    models = {
        title: {name: value for name, value in figures.items() if name not in TIMES}
        for title, figures in evaluation["models"].items()
    }
    return evaluation | {"models": models}


def test_what_was_measured_by_is_said(studio: Studio, evaluated: dict[str, Any]) -> None:
    assert evaluated["style_set"] == {"of": "random crops of style", "seed": 0, "pictures": IMAGES}
    assert (evaluated["features"], evaluated["features_weights"]) == ("vgg16:relu2_1", studio.weights)
    assert (evaluated["arch"], evaluated["weights"], evaluated["lpips_weights"]) == ("vgg16", *[studio.weights] * 2)
    assert evaluated["lpips_layers"][0] == "vgg16:conv1_2"
    assert evaluated["perceptual"]["content_layers"] == [CONTENT]
    assert evaluated["style"] == [studio.at("wave.png")]
    assert (evaluated["images"], evaluated["size"], evaluated["batch_size"]) == (IMAGES, SIZE, BATCH)
    assert evaluated["data_digest"] == DataSet.load(studio.at("shards")).digest
    sheet = Image.open(io.BytesIO(open_store(studio.at("evaluation")).get("comparison.png")))
    assert sheet.size == (5 * (128 + GAP) - GAP, HEAD + SHOWN * (128 + GAP) - GAP)


def test_each_of_two_versions_of_a_model_has_its_box(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    plotted = []
    monkeypatch.setattr(style_evaluation, "boxes", lambda groups: plotted.append(groups) or boxes(groups))
    other = _publish(studio.at("registry"), "fed", "style_net", FED, {}, 3)
    titles = [studio.titles[1], f"fed@{other.version}"]
    studio.evaluate("versions", model=titles, images=2)
    for columns in plotted[0].values():
        assert list(columns) == ["photos", *[title.replace("@", "\n") for title in titles]]
        assert all(len(values) == 2 for values in columns.values())


def test_a_style_set_of_shards_takes_the_place_of_crops(studio: Studio) -> None:
    words = {"model": [studio.titles[0]], "style_data": studio.at("style_shards"), "style_crop": [1.0, 1.0]}
    found = studio.evaluate("of_set", **words)
    digest = DataSet.load(studio.at("style_shards")).digest
    assert found["style_set"] == {"of": "style_data", "digest": digest, "pictures": 4}
    assert list(found["models"]) == ["photos", studio.titles[0]]
    assert not {"content_ratio", "style_ratio"} & found["models"]["photos"].keys(), "there is no optimum to hold it to"


def test_a_mixture_is_measured_against_the_mixture(studio: Studio) -> None:
    """Crops come from both pictures in the shares of their weights, and the loss is to the mean of both."""
    both = [studio.at("wave.png"), studio.at("zigzag.png")]
    settings = EvaluateSettings(**studio.words("mixture", style=both, style_weights=[1, 3]))
    black, white = (torch.full((1, 50, 70, 3), value, dtype=torch.uint8) for value in (0, 255))
    crops = style_set_of(settings, [black, white], 200)
    assert crops.shape == (200, SIZE, SIZE, 3)
    assert crops.mean() / 255 == pytest.approx(0.75, abs=0.1)
    assert np.array_equal(crops, style_set_of(settings, [black, white], 200))
    mixture = {"model": [studio.titles[1]], "style": both, "images": 2}
    losses = {
        weights: studio.evaluate("mixture", **mixture, style_weights=list(weights))["models"]["photos"]["style_loss"]
        for weights in ((1, 0), (0, 1), (1, 1))
    }
    alone = studio.evaluate("mixture", **mixture | {"style": both[:1]})["models"]["photos"]["style_loss"]
    assert losses[1, 0] == pytest.approx(alone)
    assert len({round(loss, 6) for loss in losses.values()}) == 3


def test_the_command_prints_a_line_for_each_model(studio: Studio) -> None:
    yaml = studio.home / "words.yaml"
    yaml.write_text(json.dumps(studio.words("printed", images=3)))  # JSON is YAML
    status, stdout, stderr = command(["evaluate", "--config", str(yaml), "--json"])
    assert status == 0, stderr
    assert {"photos", *studio.titles} < json.loads(stdout)["models"].keys()
    lines = [line for line in stderr.splitlines() if "artfid" in line]
    assert [line.partition("@")[0].partition(":")[0] for line in lines] == ["photos", "sketch", "fed", "vgg"]
    assert "evaluate vgg@" in stderr, "it tells how far it is"
    assert "3 of 3 images" in stderr


@pytest.mark.parametrize(
    ("models", "more", "told"),
    [
        (["cnn", "sketch"], {}, "sketch draws pictures and cnn answers attributes"),
        (["cnn"], {}, "images, .*style.*: of models that draw; cnn@.* answers attributes"),
        (["sketch"], {"style": []}, "style: is missing; give --style"),
        (["sketch"], {"style": ["home/style_shards/dataset.json"]}, r"style: .*dataset\.json: "),
        (["fed"], {"style": ["home/set/0.png"]}, "has no 0; it has: wave, zigzag"),
        (["sketch"], {"features": "resnet"}, "features: 'resnet' is unknown"),
        (["sketch"], {"features": "vgg16:relu1_3"}, "features: vgg16 has no layer conv1_3"),
        (["sketch"], {"features_weights": "home/registry/other"}, "features_weights: .*not vgg16's weights"),
        (["sketch"], {"lpips_weights": "home/registry/other"}, "lpips_weights: .*not vgg16's weights"),
        (["sketch"], {"weights": "home/registry/other"}, "not vgg16's weights"),
        (["sketch"], {"style_data": "home/shards"}, "holds labelled faces and no style"),
        (["sketch"], {"data": "home/few", "split": "test"}, "the test split has 1 picture; at least 2 are needed"),
    ],
)
def test_what_cannot_be_compared_is_refused(models: list[str], more: dict[str, Any], told: str, studio: Studio) -> None:
    versions = {"cnn": studio.cnn, "sketch": studio.sketch, "fed": studio.fed}
    named = [f"{name}@{versions[name].version}" for name in models]
    other = f"{studio.sketch.name}/{studio.sketch.version}/model.safetensors"
    placed = json.loads(
        json.dumps(more).replace("registry/other", f"registry/{other}").replace("home/", f"{studio.home}/")
    )
    with pytest.raises(JobFailed, match=told):
        studio.evaluate("refused", model=named, **placed)
    assert not (studio.home / "refused").exists(), "nothing is written"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "vgg,sketch", "--style", "wave.png"], "registry: is missing; give --registry, unless every"),
        (["--model", "vgg"], "vgg needs --style"),
        (["--model", "vgg", "--style", "wave.png", "--images", "1"], "images: '1' is refused"),
        (["--model", "vgg", "--style", "wave.png", "--style_crop", "0.9,0.5"], "0 < least <= largest <= 1"),
    ],
)
def test_words_that_cannot_mean_an_evaluation_are_refused(words: list[str], told: str) -> None:
    with pytest.raises(WordsError) as refused:
        parse(EvaluateSettings, ["--data", "shards", "--output", "figures", *words], "celebvision evaluate")
    assert told in str(refused.value)


def test_the_sheet_shows_each_picture_under_its_models_name() -> None:
    red, blue, green = (torch.tensor(rgb, dtype=torch.uint8) for rgb in ((255, 0, 0), (0, 0, 255), (0, 255, 0)))
    shown = {
        "photos": red.expand(3, 32, 32, 3),
        "a-model-with-a-long-name@20260101T000000Z-0123": blue.expand(3, 32, 32, 3),
    }
    sheet = Image.open(io.BytesIO(comparison([green.expand(1, 40, 40, 3)], shown)))
    cell = 128 + GAP
    assert sheet.size == (3 * cell - GAP, HEAD + 3 * cell - GAP)
    colours = [
        [sheet.getpixel((column * cell + 64, HEAD + row * cell + 64)) for column in range(3)] for row in range(3)
    ]
    assert colours[0] == [(0, 255, 0), (255, 0, 0), (0, 0, 255)]
    assert colours[2] == [(255, 255, 255), (255, 0, 0), (0, 0, 255)]
    assert all(np.asarray(sheet)[:HEAD, at * cell : at * cell + 128].min() < 100 for at in range(3)), "names on top"
