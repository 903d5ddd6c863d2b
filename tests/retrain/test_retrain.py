"""`retrain` on a real Ray cluster: it promotes what is better, keeps what is not, and nothing is done twice."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from trainings import history, wait_for_checkpoint

from celebvision import lease as leases
from celebvision import registry
from celebvision.celeba.ingest import ingest
from celebvision.celeba.shards import DataSet
from celebvision.config import IngestSettings, Phase, PromoteSettings, RetrainSettings, WordsError, parse
from celebvision.job import JobFailed
from celebvision.lease import lease
from celebvision.models import complete_arguments, create
from celebvision.models.preprocessing import Preprocessing
from celebvision.retrain import run as run_module
from celebvision.retrain.landed import look
from celebvision.retrain.record import Record, find_records
from celebvision.retrain.run import retrain
from celebvision.storage import Store, open_store

ARGUMENTS = {"width": 8}


def drop(store: Store, count: int, seed: int, noise: bool = False) -> None:
    """Labelled pictures: men are bright, or of a noisy drop as often as not. The labels come last."""
    rng = np.random.default_rng(seed)
    men = rng.random(count) < 0.5
    rows = ["key,Male"]
    for number, male in enumerate(men):
        pixels = rng.integers(100, size=(27, 22, 3)) + 120 * bool(male)
        picture = pa.BufferOutputStream()
        Image.fromarray(pixels.astype(np.uint8)).save(picture, "JPEG")
        store.put(f"{seed}-{number}.jpg", picture.getvalue().to_pybytes())
        rows.append(f"{seed}-{number}.jpg,{int(rng.random() < 0.5 if noise else male)}")
    store.put("labels.csv", "\n".join(rows).encode())


def phases(epochs: int, learning_rate: float = 3e-3) -> list[Phase]:
    return [Phase(epochs=epochs, learning_rate=learning_rate)]


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """A base of 400 pictures in `data`, and in `models` a champion that has seen it and learnt nothing."""
    home = tmp_path_factory.mktemp("home")
    drop(open_store(str(home / "pictures")), 400, seed=1)
    ingest(IngestSettings(labelled=str(home / "pictures"), output=str(home / "data")))
    champion = publish(str(home / "models"), DataSet.load(str(home / "data")).digest)
    registry.promote(str(home / "models"), "cnn", champion.partition("@")[2])
    return home


def publish(models: str, data_digest: str, bias: float = 0.0) -> str:
    """NAME@VERSION of a network that gives the same answer to every picture."""
    network = create("cnn", outputs=1, **ARGUMENTS)
    state = network.state_dict()
    state["fc.weight"].zero_()
    state["fc.bias"].fill_(bias)
    model = registry.publish(
        models,
        "cnn",
        state=state,
        architecture="cnn",
        arguments=complete_arguments("cnn", outputs=1, **ARGUMENTS),
        preprocessing=cast(Preprocessing, network.preprocessing).to_json(),
        targets=["Male"],
        classes={"Male": ("female", "male")},
        metrics={},
        data_digest=data_digest,
        code_version="",
        seed=0,
        card="",
        samples={},
    )
    return f"cnn@{model.version}"


class Place:
    """A base with its champion in a bucket, to land things in."""

    def __init__(self, uri: str) -> None:
        self.data, self.models = f"{uri}/data", f"{uri}/models"

    def words(self, **more: Any) -> RetrainSettings:
        given = {"data": self.data, "registry": self.models, "arguments": ARGUMENTS, "phases": phases(2)}
        return RetrainSettings(**{**given, "ema_decay": 0.9, **more})

    def land(self, name: str, count: int = 300, seed: int = 2, noise: bool = False) -> None:
        drop(open_store(f"{self.data}/{name}"), count, seed, noise)

    @property
    def production(self) -> str:
        return f"cnn@{registry.production(self.models, 'cnn')}"

    @property
    def versions(self) -> list[str]:
        return registry.versions(self.models, "cnn")

    @property
    def records(self) -> list[Record]:
        return find_records(open_store(f"{self.models}/_retrain/cnn"))


@pytest.fixture
def place(untaught: Path, bucket: str) -> Place:
    place = Place(bucket)
    for name, uri in {"data": place.data, "models": place.models}.items():
        source = open_store(str(untaught / name))
        for stat in source.list():
            open_store(uri).put(stat.key, source.get(stat.key))
    return place


def test_a_better_challenger_is_promoted_once_and_one_of_wrong_labels_never(place: Place) -> None:
    champion = place.production
    place.land("day1")
    open_store(place.data).put("day2/1.jpg", b"still on its way")
    summary = retrain(place.words()).summary
    assert summary["decision"] == "promoted"
    assert "the challenger is better on the base's test split" in summary["why"]
    assert summary["champion"] == champion
    assert summary["challenger"] == place.production != champion
    assert list(summary["left_alone"]) == ["day2"]
    (record,) = place.records
    assert list(record.times) == ["found", "ingested", "trained", "evaluated", "promoted"]
    assert record.initial == champion
    base, day1 = DataSet.load(place.data), DataSet.load(f"{place.data}/{record.drops[0]['folder']}")
    assert record.figures["test"]["rows"] == base.rows("test"), "the frozen split is the base's"
    assert record.figures["the newest data"]["rows"] == day1.rows("test")
    assert record.figures["test"]["challenger"]["Male"] > record.figures["test"]["champion"]["Male"]
    model = registry.resolve(place.models, place.production)
    card = open_store(place.models).get(f"cnn/{model.version}/card.md").decode()
    assert f"Trained on {base.rows('train') + day1.rows('train')} pictures" in card
    assert f"It began with the weights of `{champion}`" in card

    assert retrain(place.words()).summary["decision"] == "nothing new"
    registry.promote_version(PromoteSettings(model=champion, registry=place.models))
    assert retrain(place.words()).summary["decision"] == "nothing new"
    assert place.production == champion, "a rollback stands"
    registry.promote_version(PromoteSettings(model=summary["challenger"], registry=place.models))

    place.land("noise", count=400, seed=4, noise=True)
    noisy = retrain(place.words(phases=phases(1))).summary
    assert (noisy["decision"], noisy["champion"], place.production) == ("kept", *[summary["challenger"]] * 2)
    assert noisy["why"].startswith(("the challenger is not shown better: ", "the challenger is worse on "))
    assert place.records[1].why == noisy["why"]
    assert place.records[1].new == [place.records[1].drops[1]["id"]], "the champion had seen the first drop"
    started = time.monotonic()
    nothing = retrain(place.words()).summary
    assert time.monotonic() - started < 5
    assert nothing["decision"] == "nothing new"
    assert "was kept: the challenger is" in nothing["why"]
    assert (len(place.versions), len(place.records)) == (3, 2)


def test_a_killed_retraining_goes_on_with_what_it_had_found(place: Place, tmp_path: Path) -> None:
    place.land("day1")
    file = tmp_path / "retrain.yaml"
    file.write_text("arguments: {width: 8}\nphases: [{epochs: 6, learning_rate: 0.003}]\nema_decay: 0.9\n")
    words = ["--config", str(file), "--data", place.data, "--registry", place.models, "--json"]
    driver = subprocess.Popen([str(Path(sys.executable).with_name("celebvision")), "retrain", *words])
    run = wait_for_checkpoint(f"{place.models}/_training", 1)
    with pytest.raises(JobFailed, match=rf"process {driver.pid} on .* works here; wait for it, or stop it"):
        retrain(place.words())
    driver.kill()
    driver.wait()
    kept = history(run)
    assert len(kept) < 6, "the kill came too late to show anything"
    place.land("day2", count=20, seed=3)
    settings = parse(RetrainSettings, words, "celebvision retrain")
    forecast = retrain(settings.model_copy(update={"dry_run": True})).summary
    assert "which is ingested; what landed since waits for the next time" in forecast["would"]
    assert retrain(settings).summary["decision"] == "promoted"
    assert history(run)["epoch"].tolist() == list(range(6))
    assert history(run).head(2).equals(kept.head(2)), "it began anew"
    (record,) = place.records
    assert [drop["name"] for drop in record.drops] == ["day1"]
    assert len(place.versions) == 2
    forecast = retrain(settings.model_copy(update={"dry_run": True})).summary
    assert (forecast["new_drops"], forecast["seen_drops"]) == ({"day2": 20}, {"day1": 300})


def test_a_dry_run_tells_what_landed_and_writes_nothing(place: Place) -> None:
    place.land("day1", count=3)
    before = [*open_store(place.data).list(), *open_store(place.models).list()]
    summary = retrain(place.words(dry_run=True)).summary
    assert summary["would"] == "train, compare by the rule better, and promote or keep"
    assert summary["champion"] == summary["starts_from"] == place.production
    assert summary["new_drops"] == {"day1": 3}
    assert [*open_store(place.data).list(), *open_store(place.models).list()] == before


def test_a_published_challenger_is_not_trained_again_and_meets_the_champion_of_now(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion, base = place.production, DataSet.load(place.data)
    always = publish(place.models, "of more data", bias=9.0)
    begun = Record(
        id="1",
        landed=look(place.data, ["Male"]).digest,
        config={},
        code_version="",
        champion=champion,
        base=base.to_json(),
        drops=[],
        new=[],
        left={},
        challenger=always,
    )
    begun.reach("trained", open_store(f"{place.models}/_retrain/cnn"))
    compared = run_module.compared

    def promotes_meanwhile(*words: Any) -> Any:
        other = publish(place.models, base.digest, bias=-9.0)
        registry.promote(place.models, "cnn", other.partition("@")[2])
        return compared(*words)

    monkeypatch.setattr(run_module, "compared", promotes_meanwhile)
    with pytest.raises(
        JobFailed, match=rf"held against {champion}, and is not promoted: cnn@.* is in production .* by now"
    ):
        retrain(place.words(rule="not_worse"))
    monkeypatch.undo()
    between, (record,) = place.production, place.records
    assert always != between != champion
    assert "is in production" in record.error
    summary = retrain(place.words(rule="not_worse")).summary
    assert (summary["champion"], summary["challenger"]) == (between, always)
    assert summary["decision"] == "promoted"
    assert place.production == always


def test_another_driver_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.1)
    with (
        lease(open_store(f"{place.models}/_retrain/cnn"), "lease.json"),
        pytest.raises(JobFailed, match=r"_retrain/cnn: process \d+ on .* works here"),
    ):
        retrain(place.words())
    assert registry.names(place.models) == ["cnn"], "records are no model"


def with_targets(place: Place) -> RetrainSettings:
    return place.words(targets=["Male", "Young"])


def without_base(place: Place) -> RetrainSettings:
    return place.words(data=f"{place.data}/nowhere")


def with_another_network(place: Place) -> RetrainSettings:
    place.land("day1", count=40)
    return place.words(arguments={"width": 16})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (with_targets, r"targets: Male, Young: the champion cnn@.* answers Male; give these, or .* another --name"),
        (without_base, r"nowhere: holds no dataset.json"),
        (with_another_network, r"initial: cnn@.* has arguments .*'width': 8.*, and this training .*'width': 16"),
    ],
)
def test_what_cannot_be_compared_is_refused(words: Callable[[Place], RetrainSettings], told: str, place: Place) -> None:
    with pytest.raises(JobFailed, match=told):
        retrain(words(place))
    assert len(place.versions) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--architecture", "style_net"], "architecture: 'style_net' is refused: it draws pictures"),
        (["--promote"], "promote: retrain itself decides that"),
        (["--initial", "cnn@1"], "initial: retrain itself decides that"),
        (["--rule", "worse"], "rule: 'worse' is refused"),
    ],
)
def test_words_that_it_has_no_use_for_are_refused(words: list[str], told: str) -> None:
    with pytest.raises(WordsError) as refused:
        parse(RetrainSettings, ["--data", "d", "--registry", "r", *words], "celebvision retrain")
    assert told in str(refused.value)


def test_the_configuration_that_is_shipped_fits() -> None:
    file = Path(__file__).parents[2] / "configs" / "retrain.yaml"
    settings = parse(RetrainSettings, ["--config", str(file), "--data", "d", "--registry", "r"], "celebvision retrain")
    assert json.loads(settings.training(None).model_dump_json(include={"architecture"})) == {"architecture": "cnn"}
    assert settings.training("cnn@1").initial == "cnn@1"
