"""What every peer does alike: the words it takes, the pictures' bytes, the network, and the line that it prints."""

from __future__ import annotations

import argparse
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file

from celebvision.models import create
from celebvision.models.preprocessing import Preprocessing
from tests.benchmarks.peers import STARTED


@dataclass(frozen=True)
class Task:
    """images: folder or s3:// prefix; output: folder for `rows`, Parquet of name and probability."""

    images: str
    weights: str
    arguments: str
    output: str

    def network(self) -> torch.nn.Module:
        network = create("cnn", **json.loads(Path(self.arguments).read_text()))
        network.load_state_dict(load_file(self.weights))
        return network.eval()

    def preprocessing(self) -> Preprocessing:
        """How the network wants its pictures: height, width, mean and std."""
        return cast(Preprocessing, self.network().preprocessing)

    def rows(self) -> str:
        return str(Path(self.output) / "rows")

    def answered(self, count: int) -> None:
        """To be called after each batch: the first leaves its time, whichever process it is in."""
        with suppress(FileExistsError), (Path(self.output) / "first").open("x") as file:
            json.dump({"time": time.time(), "images": count}, file)

    def names(self) -> list[str]:
        if not self.images.startswith("s3://"):
            return sorted(file.name for file in Path(self.images).iterdir())
        bucket, prefix = _bucket_and_prefix(self.images)
        pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(entry["Key"].removeprefix(prefix) for page in pages for entry in page["Contents"])

    def read(self, name: str) -> bytes:
        if not self.images.startswith("s3://"):
            return (Path(self.images) / name).read_bytes()
        bucket, prefix = _bucket_and_prefix(self.images)
        body: bytes = s3_client().get_object(Bucket=bucket, Key=prefix + name)["Body"].read()
        return body

    def write(self, names: list[str], probabilities: list[float]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        Path(self.rows()).mkdir()
        pq.write_table(pa.table({"name": names, "probability": probabilities}), f"{self.rows()}/part.parquet")

    def done(self, images: int) -> None:
        """Print the line. The steady rate counts from the first batch's answer to the last row written."""
        seconds = time.time() - STARTED
        first = json.loads((Path(self.output) / "first").read_text())
        first_s = first["time"] - STARTED
        steady = (images - first["images"]) / (seconds - first_s)
        line = {"seconds": seconds, "first_s": first_s, "images": images, "steady_images_per_s": steady}
        print(json.dumps(line), flush=True)


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser()
    for name in ("images", "weights", "arguments", "output"):
        words.add_argument(f"--{name}", required=True)
    return words


def task_of(words: argparse.Namespace) -> Task:
    return Task(words.images, words.weights, words.arguments, words.output)


@cache
def _client_of(process: int) -> Any:
    import boto3

    return boto3.client("s3")


def s3_client() -> Any:
    """A client for each process, forked ones too; the endpoint and the keys are the environment's."""
    return _client_of(os.getpid())


def _bucket_and_prefix(uri: str) -> tuple[str, str]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return bucket, f"{prefix}/"
