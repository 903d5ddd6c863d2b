"""What a worker leaves that begins a shard again, and the sheet of a run."""

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import torch
from drawings import settings_for
from labelling import House, fill
from PIL import Image

from celebvision import ray_session
from celebvision.batch import draw, gallery, pipeline, run
from celebvision.batch.listing import Listing
from celebvision.batch.pipeline import WorkShards
from celebvision.batch.record import Run
from celebvision.config import StylizeSettings
from celebvision.job import JobFailed
from celebvision.registry import load_state
from celebvision.storage import Full, open_store, read_table

# ---- the journal of a shard ----


def worker_for(
    settings: StylizeSettings, style: House, monkeypatch: pytest.MonkeyPatch
) -> tuple[WorkShards, list[str]]:
    """A worker in this process, for a run of one listed shard; and the names that it puts."""
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # this is not the worker's own process
    monkeypatch.setattr(draw, "JOURNAL_S", -1)
    made = replace(run.new_run(settings, style.first, "words"), run_id="run")
    output = open_store(settings.output)
    if not list(output.list(f"{made.folder}/inventory/")):
        with Listing(settings, output, made, []) as listing:
            listing.wait(math.inf)
    weights = ray.put(load_state(style.registry, style.first))
    worker = WorkShards(settings, made, style.first, weights, ray_session.Board())
    names: list[str] = []
    honest = worker.work.put  # type: ignore[attr-defined]

    def put(key: str, data: bytes) -> str:
        names.append(key)
        etag: str = honest(key, data)
        return etag

    monkeypatch.setattr(worker.work, "put", put)
    return worker, names


SHARD = pa.table({"shard": [0]})


@pytest.mark.usefixtures("on_ray")
def test_a_shard_begun_again_draws_only_what_its_journal_lacks_and_leaves_the_same_bytes(
    style: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {f"{at:02}.jpg": face for at, face in enumerate(faces)} | {"03.jpg": b"bad"}
    settings, other = (settings_for(style, tmp_path, batch_size=3, output=str(tmp_path / name)) for name in "ab")
    fill(settings.input, pictures)
    worker, names = worker_for(other, style, monkeypatch)
    worker(SHARD)
    assert len(names) == len(pictures) - 1 == 11

    worker, names = worker_for(settings, style, monkeypatch)
    put = worker.work.put  # type: ignore[attr-defined]

    def full_at_last(key: str, data: bytes) -> str:
        if len(names) == 9:
            raise Full(f"{key}: no space left")
        etag: str = put(key, data)
        return etag

    monkeypatch.setattr(worker.work, "put", full_at_last)
    with pytest.raises(Full):
        worker(SHARD)
    made, output = worker.run, open_store(settings.output)
    known = read_table(output, made.journal(0)).to_pylist()
    assert [row["key"] for row in known] == sorted(pictures)[: len(known)]
    assert len(known) >= 6
    assert len(known) % 3 == 0
    written = {row["output_key"]: output.stat(f"images/{row['output_key']}").etag for row in known if row["output_key"]}

    worker, again = worker_for(settings, style, monkeypatch)
    worker(SHARD)
    assert sorted(again) == [f"images/{key}" for key in sorted(pictures)[len(known) :]]
    assert {name: output.stat(f"images/{name}").etag for name in written} == written
    parts = [read_table(open_store(one.output), made.part(0)) for one in (settings, other)]
    first, second = (part.drop_columns(["ms"]).to_pylist() for part in parts)
    assert first == second
    contents = [
        {stat.key: store.get(stat.key) for stat in store.list("images/")}
        for store in (output, open_store(other.output))
    ]
    assert contents[0] == contents[1]


@pytest.mark.usefixtures("on_ray")
def test_what_may_be_the_storages_fault_is_in_no_journal(
    style: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(style, tmp_path, batch_size=2)
    fill(settings.input, {f"{at}.jpg": faces[at] for at in range(8)})
    worker, _ = worker_for(settings, style, monkeypatch)
    honest = type(worker.output).get

    def lost(self: Any, key: str) -> bytes:
        if key in ("4.jpg", "5.jpg", "6.jpg", "7.jpg"):
            raise pipeline.Unreachable(f"{key}: away")
        data: bytes = honest(self, key)
        return data

    with monkeypatch.context() as patch:
        patch.setattr(type(worker.output), "get", lost)
        with pytest.raises(JobFailed, match=r"4 of 8 pictures of a shard could not be fetched: .*away"):
            worker(SHARD)
    keys = read_table(worker.output, worker.run.journal(0))["key"].to_pylist()
    assert keys == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    worker, names = worker_for(settings, style, monkeypatch)
    worker(SHARD)
    assert len(names) == 4


# ---- the sheet ----


def test_things_are_spread_evenly() -> None:
    assert gallery._spread(range(10), 3) == [0, 3, 6]
    assert gallery._spread([1, 2], 20) == [1, 2]
    assert gallery._spread([], 20) == []


@pytest.mark.usefixtures("on_ray")
def test_a_picture_that_is_gone_does_not_cost_the_sheet(
    style: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(style, tmp_path)
    fill(settings.input, {"a.jpg": faces[0], "b\n😀.jpg": faces[1], "bad.jpg": b"bad"})
    worker, _ = worker_for(settings, style, monkeypatch)
    worker(SHARD)
    made: Run = worker.run
    made.inventory = {"shards": 1}
    store = open_store(settings.output)
    open_store(settings.input).delete("a.jpg")
    store.put("images/b\n😀.jpg", b"no picture")
    gallery.put_sheet(settings, store, made)
    sheet = Image.open(io.BytesIO(store.get(made.sheet)))
    left_of_pair, right_of_pair = sheet.getpixel((60, 60)), sheet.getpixel((128 + 60, 60))
    assert left_of_pair == (225, 225, 225) != right_of_pair  # the input is gone, what was drawn of it is there
    assert sheet.getpixel((3 * 128 + 60, 60)) == (225, 225, 225)
