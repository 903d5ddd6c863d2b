"""The way of the data, from CelebA's own files to a labelled bucket, on real S3: each step is the command itself."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from celebvision.celeba.drawn import messy_bucket, write_dataset
from celebvision.storage import Store, open_store

TIMEOUT_S = 600


def run(*words: str, status: int = 0) -> dict[str, Any]:
    """A verb's summary; the command must end with `status`."""
    command = [str(Path(sys.executable).with_name("celebvision")), *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=dict(os.environ))
    assert done.returncode == status, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def put_folder(folder: Path, store: Store) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), path.read_bytes())


def rows(store: Store, folder: str) -> pd.DataFrame:
    tables = [pd.read_parquet(io.BytesIO(store.get(stat.key))) for stat in store.list(folder)]
    return pd.concat(tables) if tables else pd.DataFrame({"key": []})


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("celeba")
    write_dataset(folder, 400, seed=3)
    return folder


def test_from_original_files_to_a_labelled_bucket(ceph_bucket: str, drawn: Path) -> None:
    put_folder(drawn, open_store(f"{ceph_bucket}/original"))
    shards, models, labels = (f"{ceph_bucket}/{name}" for name in ("shards", "models", "labels"))
    made = run("ingest", "--source", f"{ceph_bucket}/original", "--output", shards)
    assert (made["train"], made["valid"], made["test"], made["failures"]) == (320, 40, 40, 0)

    words = ("--data", shards, "--registry", models, "--arguments", '{"width": 16}', "--workers", "2")
    trained = run("train", *words, "--phases", '[{"epochs": 2, "learning_rate": 0.002}]', "--ema_decay", "0.9")
    evaluated = run("evaluate", "--model", "cnn", "--data", shards, "--registry", models, "--output", labels)
    assert evaluated["rows"] == 40
    assert list(evaluated["models"]) == [trained["model"]]

    photos = dict(messy_bucket(30, seed=4))
    for key, data in photos.items():
        open_store(f"{ceph_bucket}/photos").put(key, data)
    words = ("--input", f"{ceph_bucket}/photos", "--output", labels, "--model", "cnn", "--registry", models)
    done = run("classify", *words, "--shard_keys", "7")
    results, failures = (rows(open_store(labels), f"{kind}/run={done['run_id']}/") for kind in ("results", "failures"))
    assert sorted([*results["key"], *failures["key"]]) == sorted(f"photos/{key}" for key in photos)
    assert set(failures["key"]) == {f"photos/{key}" for key in photos if key.startswith("broken/")}
    assert (results["model_version"] == trained["model"].partition("@")[2]).all()
    assert run("classify", *words, "--shard_keys", "7")["run_id"] == done["run_id"], "a finished run does nothing"
    assert run("classify", *words, "--max_failures", "0", status=3)["failures"] == len(failures)


def test_real_faces_are_ingested_in_time_and_whole(ceph_bucket: str, test_data: Path) -> None:
    celeba = test_data / "data" / "celeba"
    made = run("ingest", "--source", str(celeba), "--output", f"{ceph_bucket}/shards")
    assert (made["train"], made["valid"], made["test"], made["failures"]) == (8000, 1000, 1000, 0)


def test_real_photos_are_labelled_without_a_failure(ceph_bucket: str, test_data: Path, drawn: Path) -> None:
    """The model is of drawn faces and its labels worth nothing here; every photo must be read all the same."""
    models = f"{ceph_bucket}/models"
    run("ingest", "--source", str(drawn), "--output", f"{ceph_bucket}/shards")
    words = ("--arguments", '{"width": 16}', "--phases", '[{"epochs": 1, "learning_rate": 0.002}]')
    run("train", "--data", f"{ceph_bucket}/shards", "--registry", models, *words)
    put_folder(test_data / "data" / "photos", open_store(f"{ceph_bucket}/photos"))
    words = ("--input", f"{ceph_bucket}/photos", "--output", f"{ceph_bucket}/labels", "--model", "cnn")
    done = run("classify", *words, "--registry", models)
    assert (done["results"], done.get("failures", 0)) == (150, 0)
