"""What the registry promises: a version is whole or it is not there, and once published it never changes."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from celebvision import registry as registry_module
from celebvision.registry import (
    Damaged,
    ModelVersion,
    RegistryError,
    load_state,
    names,
    production,
    promote,
    publish,
    resolve,
    versions,
)
from celebvision.storage import Conflict, Store, Unreachable, open_store

MALE = {"Male": ("female", "male")}


@pytest.fixture(params=["local", "s3"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "registry")
    return str(request.getfixturevalue("bucket")).rstrip("/") + "/registry"


def state(seed: int = 0) -> dict[str, Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 3, generator=numbers)
    return {
        "weight": weight,
        "tied": weight,
        "transposed": weight.T,
        "half": torch.randn(5, generator=numbers).bfloat16(),
        "batches": torch.tensor(7),
        "not_finite": torch.tensor([float("nan"), float("inf"), -0.0]),
    }


def published(registry: str, seed: int = 0, name: str = "cnn", **changes: Any) -> ModelVersion:
    description: dict[str, Any] = {
        "architecture": "cnn",
        "arguments": {"width": 32, "stages": (1, 2)},
        "preprocessing": {"size": 112, "mean": [0.5, 0.5, 0.5]},
        "targets": ["Male"],
        "classes": MALE,
        "metrics": {"accuracy": 0.98, "images": 1},
        "data_digest": "d" * 64,
        "code_version": "0.1.0",
        "seed": seed,
        "card": "# cnn\nknows women from men – mostly\n",
        "samples": {"worst.png": b"not really a picture"},
    }
    return publish(registry, name, state=state(seed), **(description | changes))


def key(model: ModelVersion, path: str) -> str:
    return f"{model.name}/{model.version}/{path}"


def test_what_is_published_is_loaded_bit_by_bit(registry: str) -> None:
    model = published(registry)
    found = resolve(registry, f"cnn@{model.version}")
    assert found == model
    assert found.classes == MALE
    assert found.arguments == {"width": 32, "stages": [1, 2]}
    loaded = load_state(registry, found)
    assert loaded.keys() == state().keys()
    for name, tensor in state().items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert (
            loaded[name].reshape(-1).view(torch.uint8).tolist()
            == tensor.contiguous().reshape(-1).view(torch.uint8).tolist()
        )


def test_everything_published_is_there_under_its_digest(registry: str) -> None:
    model = published(registry)
    assert {stat.key for stat in open_store(registry).list("")} == {
        key(model, path) for path in ("model.safetensors", "model.json", "card.md", "samples/worst.png")
    }
    assert model.files.keys() == {"card.md", "samples/worst.png"}
    assert model.version.endswith(f"-{model.weights_sha256[:8]}")


@pytest.mark.parametrize("dies_at", ["model.safetensors", "card.md", "samples/worst.png", "model.json"])
def test_a_version_is_invisible_until_it_is_whole(registry: str, dies_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying_store(uri: str) -> Store:
        store = open_store(uri)

        def dying(write: Callable[[str, bytes], str]) -> Callable[[str, bytes], str]:
            def put(key: str, data: bytes) -> str:
                if key.endswith(dies_at):
                    raise Unreachable("the network went away")
                return write(key, data)

            return put

        monkeypatch.setattr(store, "put", dying(store.put))
        monkeypatch.setattr(store, "create", dying(store.create))
        return store

    with monkeypatch.context() as patch:
        patch.setattr(registry_module, "open_store", dying_store)
        with pytest.raises(Unreachable):
            published(registry)
    assert versions(registry, "cnn") == []
    assert names(registry) == []
    with pytest.raises(RegistryError, match="no model 'cnn'"):
        resolve(registry, "cnn")

    model = published(registry)  # what the first try left behind is in nobody's way
    assert versions(registry, "cnn") == [model.version]
    load_state(registry, model)


@pytest.mark.parametrize(
    ("path", "damage"),
    [
        ("model.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ("model.safetensors", lambda data: data[: len(data) // 2]),
        ("model.safetensors", lambda data: b""),
        ("card.md", lambda data: data + b"\nIt is never wrong."),
        ("samples/worst.png", lambda data: b"a nicer picture"),
        ("card.md", None),
        ("model.safetensors", None),
    ],
    ids=["altered", "truncated", "empty", "altered-card", "altered-sample", "missing-card", "missing-weights"],
)
def test_a_damaged_version_is_refused(
    registry: str, path: str, damage: Callable[[bytes], bytes] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = published(registry, seed=1), published(registry, seed=2)
    promote(registry, "cnn", good.version)
    store = open_store(registry)
    if damage is None:
        store.delete(key(bad, path))
    else:
        store.put(key(bad, path), damage(store.get(key(bad, path))))
    digest = bad.files.get(path, bad.weights_sha256)
    monkeypatch.setattr(torch, "load", None)  # nothing is ever unpickled
    with pytest.raises(Damaged, match=f"{key(bad, path)}.*{digest}"):
        load_state(registry, bad)
    with pytest.raises(Damaged, match=path):
        promote(registry, "cnn", bad.version)
    assert production(registry, "cnn") == good.version
    load_state(registry, good)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "blue"}, "colour"),
        ({"seed": None}, "seed"),
        ({"seed": "1"}, "seed"),
        ({"classes": {"Male": ["male"]}}, "classes: Male"),
        ({"version": "20200101T000000Z-00000000"}, "20200101T000000Z-00000000"),
        ({"weights_sha256": "0" * 64}, "altered"),
    ],
)
def test_an_altered_description_is_refused(registry: str, change: dict[str, Any], message: str) -> None:
    model = published(registry)
    changed = json.loads(model.to_json()) | change
    open_store(registry).put(key(model, "model.json"), json.dumps(changed).encode())
    with pytest.raises(Damaged, match=message):
        resolve(registry, f"cnn@{model.version}")


def test_a_torn_or_incomplete_description_is_refused() -> None:
    text = ModelVersion(
        "cnn", "v", "cnn", {}, {}, [], {}, {}, "d", "c", 0, "w", {}, "2026-11-23T14:45:00+00:00"
    ).to_json()
    with pytest.raises(Damaged, match=r"model\.json"):
        ModelVersion.from_json(text[: len(text) // 2])
    lacking = json.loads(text)
    del lacking["data_digest"]
    with pytest.raises(Damaged, match="data_digest: Field required"):
        ModelVersion.from_json(json.dumps(lacking))


def test_errors_name_what_there_is(registry: str) -> None:
    with pytest.raises(RegistryError, match=r"no model 'cnn' .* There are: none yet"):
        resolve(registry, "cnn")
    first, second = published(registry, seed=1), published(registry, seed=2)
    published(registry, name="inception_v3")
    open_store(registry).put("_scratch/notes.txt", b"not a model")
    assert names(registry) == ["cnn", "inception_v3"]
    assert versions(registry, "cnn") == sorted([first.version, second.version])
    with pytest.raises(RegistryError, match=r"no model 'cmm' .* There are: cnn, inception_v3"):
        resolve(registry, "cmm")
    for unknown in ("cnn@20200101T000000Z-00000000", "cnn@", "cnn@..", f"cnn@../cnn/{first.version}"):
        with pytest.raises(RegistryError, match=f"There are: {', '.join(versions(registry, 'cnn'))}"):
            resolve(registry, unknown)
    with pytest.raises(RegistryError, match="no version"):
        promote(registry, "cnn", "20200101T000000Z-00000000")


def test_a_version_is_not_production_until_promoted(registry: str) -> None:
    first = published(registry, seed=1)
    assert production(registry, "cnn") is None
    with pytest.raises(RegistryError, match=f"in production.*{first.version}"):
        resolve(registry, "cnn")
    promote(registry, "cnn", first.version)
    second = published(registry, seed=2)
    assert resolve(registry, "cnn") == first
    promote(registry, "cnn", second.version)
    promote(registry, "cnn", second.version)  # once more changes nothing
    assert resolve(registry, "cnn") == second
    record = json.loads(open_store(registry).get("cnn/production.json"))
    assert record["previous"] == first.version
    promote(registry, "cnn", first.version)  # and back
    assert resolve(registry, "cnn") == first


def test_a_second_publish_does_not_change_the_first(registry: str) -> None:
    first = published(registry)
    store = open_store(registry)
    before = {stat.key: store.get(stat.key) for stat in store.list("")}
    second = published(registry, card="# another card")  # the same weights, most likely within the same second
    third = published(registry, seed=3)
    assert len({first.version, second.version, third.version}) == 3
    assert {name: store.get(name) for name in before} == before
    for model in (first, second, third):
        assert resolve(registry, f"cnn@{model.version}") == model
        load_state(registry, model)


def test_a_promoter_who_comes_second_learns_who_won(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (published(registry, seed=seed) for seed in (1, 2, 3))
    look = production

    def someone_else_is_quicker(registry: str, name: str) -> str | None:
        found = look(registry, name)
        monkeypatch.setattr(registry_module, "production", look)
        promote(registry, name, winner.version)
        return found

    for winner in (first, second):  # the first time production.json is new, the second time it is replaced
        monkeypatch.setattr(registry_module, "production", someone_else_is_quicker)
        with pytest.raises(Conflict, match=winner.version):
            promote(registry, "cnn", third.version)
        assert production(registry, "cnn") == winner.version

    winner = third  # somebody else did just what we wanted
    monkeypatch.setattr(registry_module, "production", someone_else_is_quicker)
    promote(registry, "cnn", third.version)
    assert production(registry, "cnn") == third.version


def test_a_promotion_instead_of_a_version_holds_only_as_long_as_that_is_in_production(registry: str) -> None:
    first, second, third = (published(registry, seed=seed) for seed in range(3))
    promote(registry, "cnn", first.version)
    promote(registry, "cnn", second.version, instead_of=first.version)
    with pytest.raises(Conflict, match=f"cnn@{second.version} is in production .*, and not {first.version}"):
        promote(registry, "cnn", third.version, instead_of=first.version)
    assert production(registry, "cnn") == second.version


def test_racing_promoters_leave_production_whole(registry: str) -> None:
    models = [published(registry, seed=seed) for seed in range(4)]
    start = threading.Barrier(len(models))
    outcomes: dict[str, Exception | None] = {}

    def race(version: str) -> None:
        start.wait()
        try:
            promote(registry, "cnn", version)
            outcomes[version] = None
        except Exception as error:  # noqa: BLE001 (a thread's errors are looked at below)
            outcomes[version] = error

    threads = [threading.Thread(target=race, args=(model.version,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = {version for version, error in outcomes.items() if error is None}
    assert len(outcomes) == len(models)
    assert production(registry, "cnn") in winners
    assert all(isinstance(error, Conflict) for error in outcomes.values() if error is not None), outcomes
    assert resolve(registry, "cnn") in models


@pytest.mark.parametrize("name", ["", "CNN", "_runs", "-x", "../cnn", "a/b", "cnn ", "cnn\n", "ñ", "a@b"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    for refused in (published, versions, production):
        with pytest.raises(RegistryError, match="bad model name"):
            refused(str(tmp_path), name=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": {"../../x.png": b""}}, "sample"),
        ({"metrics": {"auc": float("nan")}}, "auc"),
        ({"targets": ["Male", "Young"]}, "Young"),
    ],
)
def test_bad_descriptions_are_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RegistryError, match=message):
        published(str(tmp_path), **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b'{"vers', b"[]", b'"x"', b"{}"])
def test_a_torn_production_file_is_refused(tmp_path: Path, content: bytes) -> None:
    published(str(tmp_path))
    open_store(str(tmp_path)).put("cnn/production.json", content)
    with pytest.raises(Damaged, match=r"production\.json"):
        resolve(str(tmp_path), "cnn")
