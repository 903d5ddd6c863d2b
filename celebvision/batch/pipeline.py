"""The work on one inventory shard, in an actor that holds the network: fetch, decode, infer, write.

A shard's rows are put as one file, named by the shard, when all of them are known: a shard that is done twice, because
a worker was lost or the job was started again, replaces its own file with the same rows. That is all there is to
"each key exactly once". Where a shard takes long, its first rows are put meanwhile, and it is begun again behind them.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from itertools import chain
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import ray
import torch

from celebvision import styling
from celebvision.batch.clock import Clock, Measured
from celebvision.batch.draw import Drawing
from celebvision.batch.fetch import Answer, Failure, Key
from celebvision.batch.inventory import read_keys
from celebvision.batch.label import Labelling, Photo, fetcher, photos
from celebvision.batch.record import FAILURE_FIELDS, IMAGE, Run, rows_of
from celebvision.config import BatchSettings, StylizeSettings
from celebvision.job import JobFailed
from celebvision.memory import keep_freed_memory
from celebvision.models.preprocessing import Preprocessing
from celebvision.preemption import leave_when_idle
from celebvision.ray_session import Board, Pulse
from celebvision.registry import ModelVersion, assemble
from celebvision.storage import Denied, Expired, NotFound, Throttled, Unreachable, open_store, read_table, write_table

LOST = {Unreachable.__name__, Throttled.__name__, Expired.__name__}  # no picture is at fault for these
KEPT = {Denied.__name__}
FEW = 3  # pictures of a shard that may be lost, however small it is


class Work(Protocol):
    """What a verb does with the pictures of a shard."""

    fields: list[tuple[str, pa.DataType]]  # columns of a result, besides those of every row
    computed: int
    compute_s: float
    clock: Clock

    @property
    def journal_s(self) -> float | None:
        """Where a shard takes long: seconds after which its rows so far are put."""

    def pictures(self, keys: list[Key]) -> Generator[Any]:
        """For each key what `answers` takes, or why there is none."""

    def answers(
        self, keys: list[Key], pictures: Iterator[Any], pulse: Callable[[str, float], None]
    ) -> Generator[list[Answer]]: ...

    def stored(self, answer: Answer) -> Answer: ...


def work_of(settings: BatchSettings, run: Run, model: ModelVersion, weights: dict[str, torch.Tensor]) -> Work:
    """What the verb of these settings does, by these weights, on a GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if isinstance(settings, StylizeSettings):
        return Drawing(settings, run, styling.redraws(settings, model, weights, device))
    return Labelling(settings, model, assemble(model, weights), device)


def pack(number: int, shown: list[Photo | Failure], measured: Measured) -> pa.Table:
    """A shard's photos, of pixels uint8 H W 3 each, as one row, which Ray Data never cuts in two."""
    good = [photo for photo in shown if not isinstance(photo, Failure)]
    pixels = np.stack([photo.pixels for photo in good]) if good else np.empty(0, np.uint8)
    stored = [(photo.width, photo.height, photo.bytes) for photo in good]
    failures = [asdict(photo) | {"at": at} for at, photo in enumerate(shown) if isinstance(photo, Failure)]
    ends = pa.py_buffer(np.array([0, pixels.nbytes], np.int64))
    # No copy of the pixels: they are all that a shard weighs.
    column = pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(pixels)])
    columns = [pa.array([number]), column]
    columns += [pa.array([json.dumps(words)]) for words in (stored, failures, asdict(measured))]
    return pa.table(dict(zip(("shard", "pixels", "stored", "failures", "measured"), columns, strict=True)))


def unpack(row: pa.Table, height: int, width: int) -> Generator[Photo | Failure]:
    """What `pack` packed, in the same order; no pixels are copied."""
    pixels = np.frombuffer(row["pixels"][0].as_buffer(), np.uint8).reshape(-1, height, width, 3)
    stored, failed = (json.loads(row[name][0].as_py()) for name in ("stored", "failures"))
    failures = {failure.pop("at"): Failure(**failure) for failure in failed}
    good = map(Photo, pixels, *zip(*stored, strict=True)) if stored else iter(())
    if not failures:
        yield from good
    for at in range(len(pixels) + len(failures)) if failures else ():
        yield failures[at] if at in failures else next(good)


def _told(pictures: Generator[Any], keys: list[Key], number: int, pulse: Pulse) -> Generator[Any]:
    """The same pictures; meanwhile the pulse says which is waited for."""
    with closing(pictures):
        for at, key in enumerate(keys):
            pulse(f"fetches from {key.key!r} on, picture {at} of {len(keys)} of shard {number}")
            yield next(pictures)


class DecodeShards:
    """Ray Data's first of two stages: gets the number of a shard, gives its pictures as one row."""

    def __init__(self, settings: BatchSettings, run: Run, size: Preprocessing, board: Board) -> None:
        self.settings, self.run, self.size, self.board = settings, run, size, board

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        keep_freed_memory()
        fetching = fetcher(self.settings, self.size)
        output = open_store(self.settings.output)
        for number in batch["shard"].to_pylist():
            with Pulse(self.board, "decode") as pulse:
                keys = read_keys(output, self.run, number)
                clock = Clock()
                shown = list(_told(photos(fetching, keys, clock), keys, number, pulse))
                yield pack(number, shown, clock.stop())


class WorkShards:
    """Ray Data's actor: gets the number of a shard, leaves its rows in storage, gives back how many of what.

    It takes the shard's pictures from `DecodeShards`, or fetches and decodes them itself where it is the only stage.
    """

    def __init__(
        self, settings: BatchSettings, run: Run, model: ModelVersion, weights: ray.ObjectRef, board: Board
    ) -> None:
        with Pulse(board, run.verb) as pulse:
            pulse("loads the network")
            torch.set_num_threads(1)
            keep_freed_memory()
            self.run, self.model, self.board = run, model, board
            self.work = work_of(settings, run, model, ray.get(weights))
            self.output = open_store(settings.output)
        self.at_work = threading.Lock()
        # Ray Data sends nothing more to an actor on a node that drains, but starts none elsewhere as long as it lives.
        threading.Thread(target=leave_when_idle, args=(self.at_work,), name="leave", daemon=True).start()

    def __call__(self, batch: pa.Table) -> pa.Table:
        with self.at_work:
            shards = batch["shard"].to_pylist()
            return rows_of(shards, [self._work(number, batch) for number in shards])

    def _work(self, number: int, batch: pa.Table) -> tuple[Counter[str], Measured]:
        clock = self.work.clock = Clock()
        with Pulse(self.board, self.run.verb) as pulse:
            keys = read_keys(self.output, self.run, number)
            rows = self._journal(number)
            pulse("goes on", len(rows))
            keys = keys[len(rows) :]
            if "pixels" in batch.column_names:
                size = Preprocessing.from_json(self.model.preprocessing)
                pictures = unpack(batch, size.height, size.width)
            else:
                pictures = _told(self.work.pictures(keys), keys, number, pulse)
            with closing(pictures), closing(self.work.answers(keys, pictures, pulse)) as answers:
                rows = pa.concat_tables([rows, self._rows(number, rows, keys, answers)])
            pulse(f"writes the rows of shard {number}")
            started = time.monotonic()
            write_table(self.output, self.run.part(number), rows)
            clock.wrote(time.monotonic() - started, 0)
        measured = clock.stop()
        if "measured" in batch.column_names:
            measured.add(Measured(**json.loads(batch["measured"][0].as_py())))
        return counts_of(rows), measured.with_failures(rows)

    def _journal(self, number: int) -> pa.Table:
        """The first rows of a shard, if it was begun before."""
        try:
            if self.work.journal_s is not None:
                return self._stored(read_table(self.output, self.run.journal(number)))
        except NotFound:
            pass  # it was not begun
        return self.table([], [])

    def _stored(self, rows: pa.Table) -> pa.Table:
        """The rows of a journal, once the pictures that it holds itself are where they belong."""
        if IMAGE not in rows.column_names:
            return rows
        lines = rows.to_pylist()
        for line in lines:
            if (data := line.pop(IMAGE)) is not None:
                answer = self.work.stored({name: line[name] for name, _ in self.work.fields} | {IMAGE: data})
                if isinstance(answer, Failure):
                    line |= dict.fromkeys((name for name, _ in self.work.fields), None) | asdict(answer)
        return pa.Table.from_pylist(lines, self.table([], []).schema)

    def _rows(self, number: int, before: pa.Table, keys: list[Key], answers: Iterator[list[Answer]]) -> pa.Table:
        """The rows of these keys; meanwhile, those that are known are put, behind the ones `before`.

        Raises:
            JobFailed: it is the storage that fails, not its pictures.
        """
        chunks: list[list[Answer]] = []
        put = time.monotonic()
        for answered in answers:
            chunks.append(answered)
            outcomes = list(chain.from_iterable(chunks))
            at_fault = refuse_if_storage_is_at_fault(outcomes, of=len(keys))
            # What may turn out to be the storage's fault is no row yet.
            journal_s = self.work.journal_s
            if journal_s is not None and not at_fault and time.monotonic() - put > journal_s:
                rows = self.table(keys[: len(outcomes)], outcomes)
                journal = pa.concat_tables([before, rows], promote_options="default")
                write_table(self.output, self.run.journal(number), journal)
                put = time.monotonic()
        outcomes = list(chain.from_iterable(chunks))
        refuse_if_storage_is_at_fault(outcomes, of=len(keys))
        return self.table(keys, outcomes)

    def table(self, keys: list[Key], outcomes: list[Answer]) -> pa.Table:
        """One row a key, in the inventory's order: the result's columns or the failure's are null."""
        columns: dict[str, pa.Array] = {
            "key": pa.array([key.key for key in keys], pa.string()),
            "etag": pa.array([key.etag for key in keys], pa.string()),
        }
        for name, kind in self.work.fields:
            values = [None if isinstance(outcome, Failure) else outcome[name] for outcome in outcomes]
            columns[name] = pa.array(values, kind)
        ours = {"model": self.model.name, "model_version": self.model.version, "run_id": self.run.run_id}
        columns |= {name: pa.array([value] * len(keys), pa.string()) for name, value in ours.items()}
        for name, kind in FAILURE_FIELDS:
            values = [getattr(outcome, name) if isinstance(outcome, Failure) else None for outcome in outcomes]
            columns[name] = pa.array(values, kind)
        unwritten = [None if isinstance(outcome, Failure) else outcome.get(IMAGE) for outcome in outcomes]
        if any(unwritten):
            columns[IMAGE] = pa.array(unwritten, pa.binary())
        return pa.table(columns)


def counts_of(rows: pa.Table) -> Counter[str]:
    """How many of them are results, and failures, and these by stage."""
    counts = Counter(f"failures_{stage}" for stage in rows["stage"].to_pylist() if stage)
    failures = counts.total()
    counts.update(results=len(rows) - failures, failures=failures)
    return counts


def refuse_if_storage_is_at_fault(outcomes: list[Answer], of: int) -> bool:
    """Raise `JobFailed` if these outcomes, of a shard of `of` keys, say more about the storage than about its pictures.

    A picture or two may be lost in storage, or kept from us. Where storage fails for a tenth of a shard, after every
    retry, or gives or takes nothing of it at all, others would fare no better: they are left for when it is well again.

    Returns:
        Whether there is any such outcome.
    """
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure) and outcome.stage in ("fetch", "write")]
    lost = [failure for failure in failures if failure.error in LOST]
    kept = [failure for failure in failures if failure.error in LOST | KEPT]
    if len(lost) > max(of // 10, FEW) or 1 < len(kept) == of:
        message = (lost or kept)[-1].message
        reason = f"could not be {'fetched' if failures[-1].stage == 'fetch' else 'written'}"
        raise JobFailed(f"{len(kept)} of {len(outcomes)} pictures of a shard {reason}: {message}")
    return bool(kept)
