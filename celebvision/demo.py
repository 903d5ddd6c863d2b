"""`demo`: the whole system on one machine. S3 is a server inside this process, all else is what a cluster runs."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import ray
from moto.server import ThreadedMotoServer
from rich.console import Console
from rich.table import Table

from celebvision import ray_session
from celebvision.batch.run import classify
from celebvision.celeba.drawn import messy_bucket, write_dataset
from celebvision.celeba.ingest import ingest
from celebvision.config import ClassifySettings, DemoSettings, EvaluateSettings, IngestSettings, Phase, TrainSettings
from celebvision.evaluation.run import evaluate
from celebvision.job import JobFailed, Outcome
from celebvision.logs import console
from celebvision.sheet import contact_sheet
from celebvision.storage import Store, open_store, read_table
from celebvision.training.run import train

BUCKETS = ("celeba", "models", "photos", "labels")
UPLOAD_THREADS = 16
SHEET = "labels.png"
MARK = ".celebvision-demo"  # tells a folder that a demo made, and may make anew, from one that is somebody's


def demo(settings: DemoSettings) -> Outcome:
    """Run it all, print the labels, and leave everything that was in S3 in `folder`.

    Raises:
        JobFailed: `folder` holds something that no demo left there.
    """
    started = time.monotonic()
    folder = _make_anew(settings.folder)
    with _embedded_s3(), _ray_on_this_machine():
        source = str(settings.celeba) if settings.celeba else _draw(settings, folder)
        _say("Ingest: original files to Parquet shards on S3")
        ingest(IngestSettings(source=source, output="s3://celeba/shards", seed=settings.seed))
        _say("Train: a CNN for the attribute Male, from the shards, by Ray Train")
        trained = train(_training(settings))
        _say("Evaluate: on the pictures it has never seen")
        evaluated = evaluate(
            EvaluateSettings(
                model=["cnn"], registry="s3://models", data="s3://celeba/shards", output="s3://labels/evaluation"
            )
        )
        _say("Classify: a bucket of photos, some of them broken")
        photos = dict(messy_bucket(settings.photos, settings.seed + 1))
        _upload(open_store("s3://photos"), photos)
        labelled = classify(
            ClassifySettings(input="s3://photos", output="s3://labels", model="cnn", registry="s3://models")
        )
        words = _show(
            open_store("s3://labels"),
            str(labelled.summary["run_id"]),
            # With --json, stdout is for the one line alone.
            Console(highlight=False, stderr=settings.summary_as_json),
        )
        (folder / SHEET).write_bytes(contact_sheet([(photos[key], words[key]) for key in sorted(photos)]))
        for bucket in BUCKETS:
            _download(open_store(f"s3://{bucket}"), folder / bucket)
    figures = next(iter(evaluated.summary["models"].values()))["Male"]
    return Outcome(
        {
            "model": trained.summary["model"],
            "test_accuracy": round(figures["accuracy"], 4),
            "labelled": labelled.summary["results"],
            "failures": labelled.failures,
            "seconds": round(time.monotonic() - started),
            "picture": str(folder.resolve() / SHEET),
            "everything_lies_in": str(folder.resolve()),
        }
    )


def _training(settings: DemoSettings) -> TrainSettings:
    return TrainSettings(
        data="s3://celeba/shards",
        registry="s3://models",
        phases=[Phase(epochs=settings.epochs, learning_rate=2e-3)],
        ema_decay=0.98,  # a memory of some 50 steps suits a training of some 200
        seed=settings.seed,
    )


def _make_anew(folder: Path) -> Path:
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MARK).exists():
            raise JobFailed(f"folder: {folder} holds other things; name a new one with --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    return folder


@contextmanager
def _embedded_s3() -> Iterator[None]:
    """An S3 server on loopback with empty buckets, and an environment that points at it, until the block ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "RAY_ADDRESS"))}
    for name in before:
        del os.environ[name]
    words = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    words |= {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo"}  # of the embedded server alone
    os.environ |= words
    try:
        for bucket in BUCKETS:
            boto3.client("s3").create_bucket(Bucket=bucket)
        yield
    finally:
        for name in words:
            os.environ.pop(name, None)
        os.environ |= before
        server.stop()


@contextmanager
def _ray_on_this_machine() -> Iterator[None]:
    ray_session.start()
    try:
        yield
    finally:
        ray.shutdown()


def _draw(settings: DemoSettings, folder: Path) -> str:
    _say(f"Draw {settings.images} faces with CelebA's attributes, and put them on S3 in CelebA's own format")
    drawn = folder / "drawn"
    write_dataset(drawn, settings.images, settings.seed)
    files = {path.relative_to(drawn).as_posix(): path.read_bytes() for path in drawn.rglob("*") if path.is_file()}
    _upload(open_store("s3://celeba/original"), files)
    shutil.rmtree(drawn)
    return "s3://celeba/original"


def _upload(store: Store, files: dict[str, bytes]) -> None:
    with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
        list(pool.map(store.put, files, files.values()))


def _download(store: Store, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target = open_store(str(folder))
    with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
        keys = [stat.key for stat in store.list() if not stat.key.endswith("/")]  # such a key stands for a folder
        list(pool.map(lambda key: target.put(key, store.get(key)), keys))


def _show(labels: Store, run_id: str, shown: Console) -> dict[str, str]:
    """Print the tables of labels and failures; gives a few words for each key."""
    words = {}
    results, failures = (_rows(labels, f"{kind}/run={run_id}/") for kind in ("results", "failures"))
    table = Table("key", "label", "probability", title="Labels")
    for row in results:
        table.add_row(row["key"], row["label"], f"{row['probability']:.3f}")
        words[row["key"]] = f"{row['label']} {row['probability']:.2f}"
    shown.print(table)
    table = Table("key", "stage", "message", title="Failures")
    for row in failures:
        table.add_row(row["key"], row["stage"], row["message"])
        words[row["key"]] = f"failed: {row['stage']}"
    shown.print(table)
    return words


def _rows(labels: Store, folder: str) -> list[dict[str, Any]]:
    return [row for stat in labels.list(folder) for row in read_table(labels, stat.key).to_pylist()]


def _say(words: str) -> None:
    console.print(f"\n{words}", style="bold", markup=False)
