"""Data sets without pictures, for what only looks at what `dataset.json` says."""

import hashlib
import json

from celebvision.celeba.shards import DataSet, Shard
from celebvision.storage import open_store


def data_set(name: str, attributes: tuple[str, ...] = ("Male",)) -> DataSet:
    """Eight, one and one rows, told from those of other names by their digest."""
    shards = [
        Shard(
            f"split={split}/part-00000.parquet",
            split,
            rows,
            1,
            1,
            _sha(f"{name} {split}"),
            dict.fromkeys(attributes, 0),
        )
        for split, rows in {"test": 1, "train": 8, "valid": 1}.items()
    ]
    return DataSet(name, 0, tuple(shards))


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def land(uri: str, data: DataSet) -> None:
    open_store(uri).put("dataset.json", json.dumps(data.to_json()).encode())
