"""`stylize --model vgg`: each picture of a bucket optimised (Gatys et al. 2016), once, in the same engine."""

import io
import json
import math
import os
import subprocess
import sys
import uuid
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import safetensors.torch
import torch
from labelling import MARK, command, everything, fill, kill_once, record, rows
from PIL import Image

from celebvision import ray_session
from celebvision.batch import run
from celebvision.batch.listing import Listing
from celebvision.batch.pipeline import WorkShards
from celebvision.celeba.face import draw_face
from celebvision.config import StylizeSettings, WordsError, parse
from celebvision.images import decode_whole, encode
from celebvision.models.vgg import VGG
from celebvision.storage import Denied, open_store, read_table

LAYERS = ["conv1_1", "conv2_1"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """VGG-16 up to conv2_1, as nobody trained it."""
    torch.manual_seed(0)
    vgg = VGG("vgg16", LAYERS)
    for parameter in vgg.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    path = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    safetensors.torch.save_file(vgg.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def wave(tmp_path_factory: pytest.TempPathFactory) -> str:
    across = np.arange(96)
    stripes = np.stack(np.broadcast_arrays(*np.ix_(across, across * 3, [0, 80, 160])), -1).sum(-1) % 256
    path = tmp_path_factory.mktemp("styles") / "wave.png"
    path.write_bytes(encode(stripes.astype(np.uint8), "png"))
    return str(path)


def words_for(source: str, output: str, weights: str, style: str) -> list[str]:
    words = ["stylize", "--input", source, "--output", output, "--model", "vgg", "--style", style, "--size", "40"]
    words += ["--weights", weights, "--arch", "vgg16", "--steps", "12", "--gatys.tolerance", "0"]
    words += ["--perceptual.content_layers", LAYERS[1], "--perceptual.style_layers", ",".join(LAYERS)]
    return [*words, "--batch_size", "3", "--shard_keys", "5", "--json"]


def settings_for(words: list[str]) -> StylizeSettings:
    return parse(StylizeSettings, words[1:], "celebvision stylize")


@pytest.mark.usefixtures("ray_cluster")
def test_each_key_ends_once_as_a_picture_with_its_losses_or_as_a_failure(
    bucket: str, weights: str, wave: str, faces: list[bytes]
) -> None:
    narrow = encode(np.zeros((400, 10, 3), np.uint8), "png")
    good = {f"a {at}.jpg": faces[at] for at in range(6)}
    fill(f"{bucket}/photos", good | {"bad.jpg": b"bad", "narrow.png": narrow})
    output = f"{bucket}/drawn"
    words = [*words_for(f"{bucket}/photos", output, weights, wave), "--gatys.show_every", "6"]
    status, stdout, stderr = command(words)
    assert status == 0, stderr
    told, store = json.loads(stdout), open_store(output)
    assert (told["keys"], told["results"], told["failures"]) == (8, 7, 1)
    results = rows(output, "results")
    assert [row["key"] for row in results] == [f"photos/{name}" for name in (*good, "narrow.png")]
    assert [row["stage"] for row in rows(output, "failures")] == ["decode"]
    for row in results:
        assert (row["model"], row["steps"]) == ("vgg", 12)
        assert row["model_version"] == told["model"].removeprefix("vgg@")
        assert 0 < row["style_loss"] < 1
        assert row["content_loss"] > 0
        assert decode_whole(store.get(f"images/{row['output_key']}")).shape == (row["height"], row["width"], 3)
    assert {min(row["width"], row["height"]) for row in results} == {40}
    made = record(output)
    losses = sorted(row["style_loss"] for row in results)
    assert made["losses"]["style_loss"]["p50"] == pytest.approx(losses[3])
    assert Image.open(io.BytesIO(store.get(f"runs/{made['run_id']}/losses.png"))).width > 400
    shown = [stat.key for stat in store.list(f"runs/{made['run_id']}/steps/photos/a 0.jpg/")]
    assert [key.rpartition("/")[2] for key in shown] == ["step-00006.jpg", "step-00012.jpg"]

    before = everything(store)
    status, stdout, stderr = command(words)
    assert (status, "nothing new" in stderr) == (0, True)
    assert everything(store) == before
    fill(f"{bucket}/photos", {"new.jpg": faces[6]})
    status, stdout, _ = command(words)
    assert json.loads(stdout)["keys"] == 1
    other = [*words, "--perceptual.style_weight", "2"]
    status, _, stderr = command(other)
    assert status == 1
    assert "holds what run" in stderr


@pytest.mark.usefixtures("ray_cluster")
def test_a_plan_foresees_all_steps_from_a_few_and_writes_nothing(
    bucket: str, weights: str, wave: str, faces: list[bytes]
) -> None:
    fill(f"{bucket}/photos", {f"{at}.jpg": faces[at] for at in range(6)})
    before = everything(open_store(bucket))
    words = words_for(f"{bucket}/photos", f"{bucket}/drawn", weights, wave)[1:]

    def infer_s(steps: int) -> float:
        words[words.index("--steps") + 1] = str(steps)
        status, stdout, stderr = command(["plan", *words, "--sample", "6"])
        assert status == 0, stderr
        told: dict[str, float] = json.loads(stdout)
        assert told["keys"] == 6
        assert told["seconds"] > told["infer_s"] > 0
        return told["infer_s"]

    assert infer_s(4000) > 5 * infer_s(200)
    assert everything(open_store(bucket)) == before


@pytest.mark.usefixtures("ray_cluster")
def test_what_cannot_be_is_told_before_anything_is_listed(bucket: str, weights: str, wave: str) -> None:
    words = words_for(f"{bucket}/photos", f"{bucket}/drawn", weights, wave)

    def said(*changes: str) -> str:
        status, _, stderr = command([*words, *changes])
        assert status == 1
        return stderr

    assert "vgg16 has no layer conv3_4" in said("--perceptual.style_layers", "conv3_4")
    lacking = said("--perceptual.style_layers", "conv2_2,conv3_1")
    assert "missing features.10.bias, features.10.weight, features.7.bias …" in lacking
    assert "found features.0.bias, features.0.weight, features.2.bias …" in lacking
    assert "s3://" in said("--style", f"{bucket}/nothing.jpg")
    fill(bucket, {"words.txt": b"no picture"})
    assert "words.txt" in said("--style", f"{bucket}/words.txt")
    assert not list(open_store(f"{bucket}/drawn").list())


@pytest.mark.parametrize(
    ("left_out", "told"), [("--style", "vgg needs --style"), ("--size", "vgg needs --style"), ("--weights", "")]
)
def test_the_words_of_vgg(left_out: str, told: str) -> None:
    words = words_for("photos", "drawn", "weights", "style")
    at = words.index(left_out)
    left = words[1:at] + words[at + 2 :]
    if not told:
        assert parse(StylizeSettings, left, "stylize").weights == "torchvision"
        return
    with pytest.raises(WordsError, match=told):
        parse(StylizeSettings, left, "stylize")


def test_weights_of_styles_are_one_each() -> None:
    words = words_for("photos", "drawn", "weights", "a.jpg,b.jpg")[1:]
    assert parse(StylizeSettings, words, "stylize").mixture == [1.0, 1.0]
    assert parse(StylizeSettings, [*words, "--style_weights", "3,1"], "stylize").mixture == [3.0, 1.0]
    with pytest.raises(WordsError, match="one for each of the 2 styles"):
        parse(StylizeSettings, [*words, "--style_weights", "3"], "stylize")


# ---- no picture twice ----


class Worker:
    """A worker in this process, for a run of one listed shard."""

    def __init__(self, settings: StylizeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # this is not the worker's own process
        model, tensors = run.loaded(settings, "vgg")
        made = replace(run.new_run(settings, model, "words"), run_id="run")
        self.output = open_store(settings.output)
        if not list(self.output.list(f"{made.folder}/inventory/")):
            with Listing(settings, self.output, made, []) as listing:
                listing.wait(math.inf)
        self.shards = WorkShards(settings, made, model, ray.put(tensors), ray_session.Board())
        self.put: list[str] = []
        self.drawn = 0
        work: Any = self.shards.work
        honest, redraw = work.put, work.redraws.draw

        def put(key: str, data: bytes) -> str:
            etag: str = honest(key, data)
            self.put.append(key)
            return etag

        def draw(pictures: torch.Tensor, tell: Any) -> Any:
            self.drawn += len(pictures)
            return redraw(pictures, tell)

        monkeypatch.setattr(work, "put", put)
        monkeypatch.setattr(work.redraws, "draw", draw)
        self.work = work

    def __call__(self) -> list[dict[str, Any]]:
        self.shards(pa.table({"shard": [0]}))
        made = self.shards.run
        return read_table(self.output, made.part(0)).drop_columns(["ms"]).to_pylist()


class Killed(BaseException):
    """Stands for a SIGKILL at this place."""


@pytest.mark.usefixtures("on_ray")
@pytest.mark.parametrize("lived", range(6))
def test_wherever_it_is_killed_no_picture_in_storage_is_optimised_again_and_the_bytes_are_the_same(
    tmp_path: Path, weights: str, wave: str, faces: list[bytes], monkeypatch: pytest.MonkeyPatch, lived: int
) -> None:
    source = str(tmp_path / "photos")
    fill(source, {f"{at}.jpg": faces[at] for at in range(5)})
    one, other = (settings_for(words_for(source, str(tmp_path / name), weights, wave)) for name in "ab")
    undisturbed = Worker(other, monkeypatch)
    expected = undisturbed()

    killed = Worker(one, monkeypatch)
    put, begun = killed.work.put, count()

    def kill(key: str, data: bytes) -> str:
        if next(begun) >= lived:
            raise Killed
        etag: str = put(key, data)
        return etag

    monkeypatch.setattr(killed.work, "put", kill)
    if lived < 5:
        with pytest.raises(Killed):
            killed()
    else:
        killed()
    there = {stat.key: stat.etag for stat in killed.output.list("images/")}
    assert len(there) == lived

    again = Worker(one, monkeypatch)
    assert again() == expected
    # Three pictures are a batch: what was drawn of a batch is in the journal before the first of it is put.
    assert again.drawn == 5 - killed.drawn if lived < 5 else 5
    after = {stat.key: again.output.get(stat.key) for stat in again.output.list("images/")}
    assert after == {stat.key: undisturbed.output.get(stat.key) for stat in undisturbed.output.list("images/")}


@pytest.mark.usefixtures("on_ray")
def test_a_name_that_storage_refuses_is_a_failure_though_a_journal_held_its_picture(
    tmp_path: Path, weights: str, wave: str, faces: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(tmp_path / "photos")
    fill(source, {f"{at}.jpg": faces[at] for at in range(4)})
    worker = Worker(settings_for(words_for(source, str(tmp_path / "drawn"), weights, wave)), monkeypatch)
    put = worker.work.put

    def refuse(key: str, data: bytes) -> str:
        if key == "images/1.jpg":
            raise Denied(f"{key}: access is refused")
        etag: str = put(key, data)
        return etag

    monkeypatch.setattr(worker.work, "put", refuse)
    assert [(row["stage"], row["error"]) for row in worker()] == [(None, None), ("write", "Denied")] + [
        (None, None)
    ] * 2


def test_a_killed_job_goes_on_behind_its_last_batch(tmp_path: Path, weights: str, wave: str) -> None:
    photos, output = tmp_path / "photos", tmp_path / "drawn"
    photos.mkdir()
    for number in range(12):
        draw_face(np.random.default_rng(number), {}).save(photos / f"{number:02}.jpg")
    words = words_for(str(photos), str(output), weights, wave)
    words[words.index("--steps") + 1] = "30"
    words[words.index("--size") + 1] = "64"
    words = [str(Path(sys.executable).parent / "celebvision"), *words]
    mark = uuid.uuid4().hex
    images = output / "images"
    kill_once(lambda: any(images.glob("[!.]*")), words, mark)  # at the first picture that is to be seen
    before = {path.name: path.read_bytes() for path in images.glob("[!.]*")}
    assert 0 < len(before) < 12, "the kill came too late to show anything"
    held = sum(
        len(read_table(open_store(str(output)), str(path.relative_to(output))))
        for path in output.glob("runs/*/journal/*")
    )
    assert held >= len(before)

    again = subprocess.run(words, env=os.environ | {MARK: mark}, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert (told["keys"], told["results"], told["failures"]) == (12, 12, 0)
    assert {name: (images / name).read_bytes() for name in before} == before
    assert len(list(images.glob("[!.]*"))) == 12
    assert not list(output.glob("runs/*/journal/*"))
