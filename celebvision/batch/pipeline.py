"""The work on one inventory shard, in an actor that holds the network: fetch, decode, infer, write.

A shard's rows are put as one file, named by the shard, when all of them are known: a shard that is done twice, because
a worker was lost or the job was started again, replaces its own file with the same rows. That is all there is to
"each key exactly once".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray

from celebvision.batch.fetch import Failure, Fetcher, Key
from celebvision.batch.record import FAILURE_FIELDS, Run, rows_of
from celebvision.config import BatchSettings
from celebvision.job import JobFailed
from celebvision.memory import keep_freed_memory
from celebvision.models.classifier import Classifier
from celebvision.models.preprocessing import Preprocessing
from celebvision.ray_session import Board, Pulse
from celebvision.registry import ModelVersion, assemble
from celebvision.storage import (
    Denied,
    Expired,
    Store,
    Throttled,
    Unreachable,
    open_bucket,
    open_store,
    read_table,
    write_table,
)

LOST = {Unreachable.__name__, Throttled.__name__, Expired.__name__}  # no picture is at fault for these
KEPT = {Denied.__name__}
FEW = 3  # pictures of a shard that may be lost, however small it is
Picture = NDArray[np.uint8] | Failure  # uint8 H W 3
Answer = NDArray[np.float32] | Failure  # a key's probabilities, float32 T, or why it has none

KEY_COLUMNS = ["key", "size", "etag", "file", "row"]


def read_keys(output: Store, run: Run, number: int) -> list[Key]:
    """A shard of the inventory."""
    return [Key(**row) for row in read_table(output, run.shard(number), KEY_COLUMNS).to_pylist()]


def pack(number: int, pictures: list[Picture]) -> pa.Table:
    """A shard's pictures, uint8 H W 3 each, as one row, which Ray Data never cuts in two."""
    good = [picture for picture in pictures if not isinstance(picture, Failure)]
    pixels = np.stack(good).tobytes() if good else b""
    failures = [asdict(picture) | {"at": at} for at, picture in enumerate(pictures) if isinstance(picture, Failure)]
    columns = [pa.array([number]), pa.array([pixels], pa.large_binary()), pa.array([json.dumps(failures)])]
    return pa.table(dict(zip(("shard", "pixels", "failures"), columns, strict=True)))


def unpack(row: pa.Table, height: int, width: int) -> Iterator[Picture]:
    """What `pack` packed, in the same order; nothing is copied."""
    pixels = np.frombuffer(row["pixels"][0].as_buffer(), np.uint8).reshape(-1, height, width, 3)
    failures = {failure.pop("at"): Failure(**failure) for failure in json.loads(row["failures"][0].as_py())}
    good = iter(pixels)
    for at in range(len(pixels) + len(failures)):
        yield failures[at] if at in failures else next(good)


def _told(pictures: Iterator[Picture], keys: list[Key], number: int, pulse: Pulse) -> Iterator[Picture]:
    """The same pictures; meanwhile the pulse says which is waited for."""
    for at, key in enumerate(keys):
        pulse(f"fetches from {key.key!r} on, picture {at} of {len(keys)} of shard {number}")
        yield next(pictures)


class DecodeShards:
    """Ray Data's first of two stages: gets the number of a shard, gives its pictures as one row."""

    def __init__(self, settings: BatchSettings, run: Run, size: Preprocessing, board: Board) -> None:
        self.settings, self.run, self.size, self.board = settings, run, size, board

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        keep_freed_memory()
        fetcher = Fetcher.of(self.settings, open_bucket(self.settings.input)[0], self.size.height, self.size.width)
        output = open_store(self.settings.output)
        for number in batch["shard"].to_pylist():
            with Pulse(self.board, "decode") as pulse:
                keys = read_keys(output, self.run, number)
                with closing(fetcher.pixels(keys)) as pictures:
                    yield pack(number, list(_told(pictures, keys, number, pulse)))


class ClassifyShards:
    """Ray Data's actor: gets the number of a shard, leaves its rows in storage, gives back how many of what.

    It takes the shard's pictures from `DecodeShards`, or fetches and decodes them itself where it is the only stage.
    """

    def __init__(
        self, settings: BatchSettings, run: Run, model: ModelVersion, weights: ray.ObjectRef, board: Board
    ) -> None:
        with Pulse(board, "classify") as pulse:
            pulse("loads the network")
            torch.set_num_threads(1)
            keep_freed_memory()
            self.settings, self.run, self.model, self.board = settings, run, model, board
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self.classifier = Classifier(assemble(model, ray.get(weights)), tuple(model.targets), device)
            size = self.classifier.preprocessing
            self.output = open_store(settings.output)
            self.fetcher = Fetcher.of(settings, open_bucket(settings.input)[0], size.height, size.width)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return rows_of([self._work(number, batch) for number in batch["shard"].to_pylist()])

    def _work(self, number: int, batch: pa.Table) -> Counter[str]:
        with Pulse(self.board, "classify") as pulse:
            keys = read_keys(self.output, self.run, number)
            if "pixels" in batch.column_names:
                size = self.classifier.preprocessing
                outcomes = self.outcomes(keys, unpack(batch, size.height, size.width), pulse)
            else:
                with closing(self.fetcher.pixels(keys)) as pictures:
                    outcomes = self.outcomes(keys, _told(pictures, keys, number, pulse), pulse)
            pulse(f"writes the rows of shard {number}")
            write_table(self.output, self.run.part(number), self.table(keys, outcomes))
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        counts = Counter(f"failures_{failure.stage}" for failure in failures)
        counts.update(results=len(outcomes) - len(failures), failures=len(failures))
        return counts

    def outcomes(self, keys: list[Key], pictures: Iterator[Picture], pulse: Callable[[str, int], None]) -> list[Answer]:
        """What each key ends as. Raises `JobFailed` where it is the storage that fails, not its pictures."""
        outcomes: list[Answer] = []
        while batch := list(islice(pictures, self.settings.batch_size)):
            good = [picture for picture in batch if not isinstance(picture, Failure)]
            answers: Iterator[NDArray[np.float32]] = iter(self.infer(good) if good else [])
            outcomes += [picture if isinstance(picture, Failure) else next(answers) for picture in batch]
            pulse("computes", len(batch))
            _refuse_if_storage_is_at_fault(outcomes, of=len(keys))
        return outcomes

    def infer(self, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Probabilities, float32 B T. The batch is filled up, so that an answer does not hang on who is beside it."""
        filled = np.zeros((self.settings.batch_size, *pictures[0].shape), dtype=np.uint8)
        filled[: len(pictures)] = pictures
        probabilities: NDArray[np.float32] = self.classifier.probabilities(torch.from_numpy(filled)).numpy()
        return probabilities[: len(pictures)]

    def table(self, keys: list[Key], outcomes: list[Answer]) -> pa.Table:
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
