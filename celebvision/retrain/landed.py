"""What has landed: a base data set, and drops in folders beside its splits.

DATA/dataset.json, DATA/split=*/     the base, with its splits
DATA/<drop>/dataset.json, …          a drop of shards
DATA/<drop>/labels.csv, …            a drop of labelled pictures
DATA/_ingested/<drop>-<digest>/      the shards that were made of one
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace

from celebvision.celeba.ingest import ingest
from celebvision.celeba.labelled import KEY, find_labels, read_labels
from celebvision.celeba.shards import MANIFEST, DataSet, Shard
from celebvision.config import IngestSettings
from celebvision.job import digest
from celebvision.storage import join, open_store

INGESTED = "_ingested"
SPLIT = "split="  # what the base's own folders begin with


@dataclass(frozen=True)
class Drop:
    """A folder of new data that is whole."""

    name: str  # of the folder
    id: str  # the name and a digest of what lies in it: data that changes is another drop
    folder: str  # where its shards lie, or will, relative to the data
    rows: int  # pictures, before the broken ones among them are known
    labelled: bool  # pictures with a file of labels, of which shards are to be made


@dataclass(frozen=True)
class Landing:
    """All there is: the base, the drops by name, and why each other folder is left alone."""

    base: DataSet
    drops: tuple[Drop, ...]
    left: dict[str, str]

    @property
    def digest(self) -> str:
        """Eight hex digits that stand for the base and all drops."""
        return digest({"base": self.base.digest, "drops": [drop.id for drop in self.drops]})


def look(uri: str, targets: Collection[str]) -> Landing:
    """See what has landed at `uri` that has labels of the targets. Writes nothing.

    Raises:
        JobFailed: there is no base, or a drop's labels or `dataset.json` are not right: which, and what is.
    """
    base, store = DataSet.load(uri), open_store(uri)
    drops, left = [], {}
    for name in store.folders():
        if name.startswith((SPLIT, "_", ".")):
            continue
        found = _look_into(join(uri, name), name, targets)
        if isinstance(found, Drop):
            drops.append(found)
        else:
            left[name] = found
    return Landing(base, tuple(drops), left)


def _look_into(uri: str, name: str, targets: Collection[str]) -> Drop | str:
    """The drop in a folder, or why it is none."""
    store = open_store(uri)
    if store.has(MANIFEST):
        data = DataSet.load(uri)
        known, rows = set(data.positives("train")), sum(shard.rows for shard in data.shards)
        drop = Drop(name, f"{name}-{data.digest[:8]}", name, rows, labelled=False)
    elif find_labels(store):
        table = read_labels(uri)
        known, keys = set(table.column_names), set(table[KEY].to_pylist())
        sha, rows = hashlib.sha256(), 0
        for stat in store.list():
            sha.update(f"{stat.key}\0{stat.size}\0{stat.etag}\n".encode())
            rows += stat.key in keys
        if not rows:
            return f"none of its {len(keys)} labelled pictures has landed"
        drop_id = f"{name}-{sha.hexdigest()[:8]}"
        drop = Drop(name, drop_id, f"{INGESTED}/{drop_id}", rows, labelled=True)
    else:
        return f"holds neither {MANIFEST} nor a file of labels: it has not landed yet"
    if lacking := [target for target in targets if target not in known]:
        return f"has no labels of {', '.join(lacking)}"
    return drop


def ingested(uri: str, drop: Drop) -> tuple[Shard, ...]:
    """The drop's shards, with their paths relative to `uri`; those of labelled pictures are made, once.

    Raises:
        JobFailed: as `ingest`.
    """
    home = join(uri, drop.folder)
    if drop.labelled and not open_store(home).has(MANIFEST):
        ingest(IngestSettings(labelled=join(uri, drop.name), output=home))
    return tuple(replace(shard, path=f"{drop.folder}/{shard.path}") for shard in DataSet.load(home).shards)
