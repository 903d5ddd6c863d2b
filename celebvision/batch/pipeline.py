"""The work on one inventory shard, in an actor that holds the network: fetch, decode, infer, write.

A shard's rows are put as one file, named by the shard, when all of them are known: a shard that is done twice, because
a worker was lost or the job was started again, replaces its own file with the same rows. That is all there is to
"each key exactly once".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray

from celebvision.batch.fetch import Failure, Fetcher, Key
from celebvision.batch.record import Run
from celebvision.config import ClassifySettings
from celebvision.job import JobFailed
from celebvision.models.classifier import Classifier
from celebvision.registry import ModelVersion, assemble
from celebvision.storage import Denied, Throttled, Unreachable, open_bucket, open_store, read_table, write_table

LOST = {Unreachable.__name__, Throttled.__name__}  # errors of storage that outlast every retry
KEPT = {Denied.__name__}
FEW = 3  # pictures of a shard that may be lost, however small it is
Answer = NDArray[np.float32] | Failure  # a key's probabilities, float32 T, or why it has none

FAILURE_FIELDS = [("stage", pa.string()), ("error", pa.string()), ("message", pa.string())]


def rows_of(counts: list[Counter[str]]) -> dict[str, list[Any]]:
    """What a worker gives back: one row a unit of work, with the counts as `numbers_of` reads them."""
    return {"counts": [dict(count) for count in counts]}


def numbers_of(row: dict[str, Any]) -> Counter[str]:
    """A row's counts. Arrow gives every row the names of all, so what is not there comes as None."""
    return Counter({name: count for name, count in row["counts"].items() if count})


class ClassifyShards:
    """Ray Data's actor: gets the number of a shard, leaves its rows in storage, gives back how many of what."""

    def __init__(self, settings: ClassifySettings, run: Run, model: ModelVersion, weights: ray.ObjectRef) -> None:
        torch.set_num_threads(1)
        self.settings, self.run, self.model = settings, run, model
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.classifier = Classifier(assemble(model, ray.get(weights)), tuple(model.targets), device)
        size = self.classifier.preprocessing
        self.output = open_store(settings.output)
        self.fetcher = Fetcher.of(settings, open_bucket(settings.input)[0], size.height, size.width)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, list[Any]]:
        return rows_of([self._work(int(number)) for number in batch["shard"]])

    def _work(self, number: int) -> Counter[str]:
        rows = read_table(self.output, self.run.shard(number), ["key", "size", "etag"]).to_pylist()
        keys = [Key(**row) for row in rows]
        outcomes = self._outcomes(keys)
        write_table(self.output, self.run.part(number), self._table(keys, outcomes))
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        counts = Counter(f"failures_{failure.stage}" for failure in failures)
        counts.update(results=len(outcomes) - len(failures), failures=len(failures))
        return counts

    def _outcomes(self, keys: list[Key]) -> list[Answer]:
        outcomes: list[Answer] = []
        with closing(self.fetcher.pixels(keys)) as pixels:
            while batch := list(islice(pixels, self.settings.batch_size)):
                pictures = [picture for picture in batch if not isinstance(picture, Failure)]
                answers: Iterator[NDArray[np.float32]] = iter(self._infer(pictures) if pictures else [])
                outcomes += [picture if isinstance(picture, Failure) else next(answers) for picture in batch]
                _refuse_if_storage_is_at_fault(outcomes, of=len(keys))
        return outcomes

    def _infer(self, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Probabilities, float32 B T. The batch is filled up, so that an answer does not hang on who is beside it."""
        filled = np.zeros((self.settings.batch_size, *pictures[0].shape), dtype=np.uint8)
        filled[: len(pictures)] = pictures
        probabilities: NDArray[np.float32] = self.classifier.probabilities(torch.from_numpy(filled)).numpy()
        return probabilities[: len(pictures)]

    def _table(self, keys: list[Key], outcomes: list[Answer]) -> pa.Table:
        """One row a key, in the inventory's order: the result's columns or the failure's are null."""
        columns: dict[str, Any] = {"key": [key.key for key in keys], "etag": [key.etag for key in keys]}
        for index, target in enumerate(self.model.targets):
            suffix = "" if len(self.model.targets) == 1 else f"_{target}"
            answers = [None if isinstance(outcome, Failure) else float(outcome[index]) for outcome in outcomes]
            negative, positive = self.model.classes[target]
            columns[f"label{suffix}"] = pa.array(
                [None if answer is None else positive if answer > 0.5 else negative for answer in answers], pa.string()
            )
            columns[f"probability{suffix}"] = pa.array(
                [None if answer is None else max(answer, 1 - answer) for answer in answers], pa.float32()
            )
        columns["model"] = [self.model.name] * len(keys)
        columns["model_version"] = [self.model.version] * len(keys)
        columns["run_id"] = [self.run.run_id] * len(keys)
        for name, kind in FAILURE_FIELDS:
            values = [getattr(outcome, name) if isinstance(outcome, Failure) else None for outcome in outcomes]
            columns[name] = pa.array(values, kind)
        return pa.table(columns)


def _refuse_if_storage_is_at_fault(outcomes: list[Answer], of: int) -> None:
    """Raise `JobFailed` if these outcomes, of a shard of `of` keys, say more about the storage than about its pictures.

    A picture or two may be lost in storage, or kept from us. Where storage fails for a tenth of a shard, after every
    retry, or gives nothing of it at all, others would fare no better: they are left for when it is well again.
    """
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure) and outcome.stage == "fetch"]
    lost = [failure for failure in failures if failure.error in LOST]
    kept = [failure for failure in failures if failure.error in LOST | KEPT]
    if len(lost) > max(of // 10, FEW) or 1 < len(kept) == of:
        message = (lost or kept)[-1].message
        raise JobFailed(f"{len(kept)} of {len(outcomes)} pictures of a shard could not be fetched: {message}")
