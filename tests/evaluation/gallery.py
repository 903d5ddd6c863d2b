"""Drawn faces with all attributes, as shards and as a labelled folder, and two models that were never trained."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from celebvision.celeba.face import draw_face
from celebvision.celeba.schema import ATTRIBUTES
from celebvision.celeba.shards import DataSet, Shard
from celebvision.config import EvaluateSettings
from celebvision.evaluation.run import evaluate
from celebvision.job import Outcome
from celebvision.registry import ModelVersion

FACES, OF_A_SHARD, GROUP = 60, 35, 10
BROKEN = {"broken/text.jpg": b"no picture at all", "broken/empty.jpg": b""}
KNOWN = ("Big_Nose", "Male", "Smiling", "Young")  # of the folder: one before the targets, and one behind
MISSING = "missing <b>.jpg"


@dataclass
class Gallery:
    """Shards at `shards`, the same pictures with labels.csv at `folder`, and the models."""

    home: Path
    rows: list[dict[str, Any]]  # image_id, image, and the attributes
    male: ModelVersion  # answers Male
    both: ModelVersion  # answers Male and Smiling

    def at(self, name: str) -> str:
        return str(self.home / name)

    @property
    def titles(self) -> list[str]:
        return [f"{model.name}@{model.version}" for model in (self.male, self.both)]

    def evaluate(self, output: str, **more: Any) -> tuple[Outcome, dict[str, Any]]:
        words = {"model": self.titles, "registry": self.at("registry"), "data": self.at("shards")} | more
        outcome = evaluate(EvaluateSettings(output=self.at(output), **words))
        return outcome, json.loads((self.home / output / "evaluation.json").read_bytes())


def jpeg(rng: np.random.Generator, attributes: dict[str, bool]) -> bytes:
    content = io.BytesIO()
    draw_face(rng, attributes, size=(44, 54)).save(content, "JPEG")
    return content.getvalue()


def write_shards(folder: Path, rows: list[dict[str, Any]]) -> None:
    """A test split of two shards, as `ingest` leaves it."""
    (folder / "split=test").mkdir(parents=True)
    shards = []
    for number, part in enumerate((rows[:OF_A_SHARD], rows[OF_A_SHARD:])):
        path = f"split=test/part-{number:05d}.parquet"
        pq.write_table(pa.Table.from_pylist(part), folder / path, row_group_size=GROUP)
        data = (folder / path).read_bytes()
        positives = {name: sum(row[name] for row in part) for name in ATTRIBUTES}
        groups = -(-len(part) // GROUP)
        shards.append(Shard(path, "test", len(part), groups, len(data), hashlib.sha256(data).hexdigest(), positives))
    (folder / "dataset.json").write_text(json.dumps(DataSet("drawn", 5, tuple(shards)).to_json()))


def write_folder(folder: Path, rows: list[dict[str, Any]]) -> None:
    """The pictures as files, and among the labelled ones some that cannot be read."""
    files = {f"faces/{row['image_id']}": row["image"] for row in rows} | BROKEN
    for key, data in files.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
    labels = {f"faces/{row['image_id']}": row for row in rows}
    lines = [",".join([key, *(str(int(row[name])) for name in KNOWN)]) for key, row in labels.items()]
    lines[10:10] = [",".join([key, *"1" * len(KNOWN)]) for key in (*BROKEN, MISSING)]
    (folder / "labels.csv").write_text("\n".join([",".join(["key", *KNOWN]), *lines]))
