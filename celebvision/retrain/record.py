"""What a retraining leaves beside the models: `REGISTRY/_retrain/<name>/<id>.json`, written anew after each step."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from celebvision.celeba.shards import DataSet, Shard
from celebvision.job import JobFailed
from celebvision.storage import Store

FORMAT = 1
LEASE = "lease.json"
State = Literal["found", "ingested", "trained", "evaluated", "promoted", "kept", "given up"]
DECIDED = ("promoted", "kept")
UNFINISHED = ("found", "ingested", "trained", "evaluated")


@dataclass
class Record:
    """One retraining: what it found, did and decided. `state` is the last step that is done."""

    id: str  # when it began, and `landed`
    landed: str  # digest of the base and all drops
    config: dict[str, Any]
    code_version: str
    champion: str | None  # NAME@VERSION that the challenger is held against; None: there was none
    base: dict[str, Any]  # as `dataset.json` has it
    drops: list[dict[str, Any]]  # fields of each `Drop`, and once it is ingested `shards`
    new: list[str]  # ids of drops that the champion had not seen
    left: dict[str, str]  # folders that were left alone, and why
    state: State = "found"
    data_digest: str = ""  # of base and drops, as a model's `data_digest` has it
    initial: str | None = None  # NAME@VERSION whose weights the challenger began with
    challenger: str = ""  # NAME@VERSION
    run: str = ""  # URI of its training
    figures: dict[str, Any] = field(default_factory=dict)
    why: str = ""  # it was promoted, or the champion kept
    times: dict[str, str] = field(default_factory=dict)  # when each state was reached, ISO 8601, UTC
    error: str = ""  # what ended it in the middle
    format: int = FORMAT

    def reach(self, state: State, store: Store) -> None:
        """Write that a step is done."""
        self.state, self.error = state, ""
        self.times[state] = datetime.now(UTC).isoformat(timespec="seconds")
        self.save(store)

    def save(self, store: Store) -> None:
        """Put the record anew."""
        store.put(f"{self.id}.json", json.dumps(asdict(self), indent=1).encode())

    @property
    def data(self) -> DataSet:
        """All that was found, as one data set; `test` is the base's and every drop's."""
        return self._of([*self._base_shards(), *self._drop_shards([drop["id"] for drop in self.drops])])

    @property
    def frozen(self) -> DataSet:
        """The base, whose test split all champions and challengers are held to."""
        return self._of(self._base_shards())

    def newest(self, ids: list[str]) -> DataSet:
        """The drops of these ids alone."""
        return self._of(self._drop_shards(ids))

    def _of(self, shards: list[Shard]) -> DataSet:
        return DataSet(self.base["source"], self.base["seed"], tuple(shards))

    def _base_shards(self) -> list[Shard]:
        return [Shard(**shard) for shard in self.base["shards"]]

    def _drop_shards(self, ids: list[str]) -> list[Shard]:
        return [Shard(**shard) for drop in self.drops if drop["id"] in ids for shard in drop["shards"]]


def new_id(landed: str) -> str:
    """When it began, and what had landed; sorted by name is sorted by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{landed}"


def find_records(store: Store) -> list[Record]:
    """All records of a model, oldest first.

    Raises:
        JobFailed: one is not of this version.
    """
    found = []
    for stat in store.list():
        if stat.key.endswith(".json") and stat.key != LEASE:
            content = json.loads(store.get(stat.key))
            if content.get("format") != FORMAT:
                raise JobFailed(
                    f"{store.uri}/{stat.key}: format {content.get('format')!r}; this version reads {FORMAT}"
                )
            found.append(Record(**content))
    return found


def seen_by(data_digest: str, base_digest: str, records: list[Record]) -> set[str]:
    """Digest of the base and ids of the drops in the data of this digest; empty: nobody here knows what it stands for.

    A model's `data_digest` is that of the base, where `train` made it, or that of a record.
    """
    for record in records:
        if record.data_digest == data_digest:
            return {record.base["digest"], *(drop["id"] for drop in record.drops)}
    return {base_digest} if data_digest == base_digest else set()
