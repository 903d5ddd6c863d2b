"""The command itself, killed and started again."""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from labelling import MARK, House, kill_once, published_style, rows

from celebvision.celeba.face import draw_face
from celebvision.images import decode_whole


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some hundred photos, large enough to take a while."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(8):
        picture = draw_face(np.random.default_rng(number), {}, size=(712, 872)).resize((2136, 2616))
        picture.save(folder / f"{number:03}.jpg", quality=92)
    for number in range(8, 240):
        (folder / f"{number:03}.jpg").write_bytes((folder / f"{number % 8:03}.jpg").read_bytes())
    (folder / "bad.jpg").write_bytes(b"bad")
    return folder


def test_a_run_whose_driver_was_killed_is_continued_and_nothing_is_done_twice(
    house: House, many_photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "labels"
    words = [str(Path(sys.executable).parent / "celebvision"), "classify", "--input", str(many_photos)]
    words += ["--output", str(output), "--registry", house.registry, "--model", "cnn", "--shard_keys", "10", "--json"]
    mark = uuid.uuid4().hex
    environment = os.environ | {MARK: mark}

    kill_once(lambda: len(list(output.glob("runs/*/parts/*.parquet"))) >= 2, words, mark)
    before = {part: part.stat().st_mtime_ns for part in output.glob("runs/*/parts/*.parquet")}
    assert 2 <= len(before) < 25, "the kill came too late to show anything"
    assert json.loads(next(output.glob("runs/*/run.json")).read_text())["state"] == "running"
    assert not (output / "results").exists()
    for file in output.rglob("*.parquet"):
        pq.read_table(file)  # whole

    again = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = {part: {time_ns} for part, time_ns in before.items()}
    while again.poll() is None:
        for part in before:
            seen[part] |= {part.stat().st_mtime_ns} if part.exists() else set()
        time.sleep(0.05)
    stdout, stderr = again.communicate()
    assert again.returncode == 0, stderr
    assert seen == {part: {time_ns} for part, time_ns in before.items()}
    left = 241 - 10 * len(before) + (9 if any("00024" in part.name for part in before) else 0)
    assert f"classify: {left} of {left} images" in stderr
    told = json.loads(stdout)
    assert (told["keys"], told["results"], told["failures"]) == (241, 240, 1)
    assert [row["key"] for row in rows(str(output), "results")] == [f"{number:03}.jpg" for number in range(240)]
    assert [row["key"] for row in rows(str(output), "failures")] == ["bad.jpg"]
    (told,) = [json.loads(file.read_text()) for file in output.glob("runs/*/run.json")]
    assert (told["state"], told["counts"]) == ("done", {"results": 240, "failures": 1, "failures_decode": 1})


def test_a_killed_stylize_goes_on_in_the_middle_of_its_shards(many_photos: Path, tmp_path: Path) -> None:
    output, registry = tmp_path / "drawn", str(tmp_path / "models")
    version = published_style(registry, 1, width=32, blocks=3).version  # some seconds a shard
    words = [
        str(Path(sys.executable).parent / "celebvision"),
        "stylize",
        "--input",
        str(many_photos),
        "--glob",
        "0[0-3]*",
    ]
    words += ["--output", str(output), "--registry", registry, "--model", f"sketch@{version}", "--json"]
    words += ["--shard_keys", "20", "--batch_size", "2", "--size", "320"]
    mark = uuid.uuid4().hex

    kill_once(lambda: any(output.glob("runs/*/journal/*.parquet")), words, mark)
    journaled = [row for file in output.glob("runs/*/journal/*.parquet") for row in pq.read_table(file).to_pylist()]
    before = {name: (output / "images" / name).stat().st_mtime_ns for name in (row["output_key"] for row in journaled)}
    drawn = {path.name for path in (output / "images").glob("[!.]*")}
    assert 0 < len(before) <= len(drawn) < 40, "the kill came too late to show anything"
    assert not list(output.glob("runs/*/parts/*.parquet"))
    for file in (output / "images").glob("[!.]*"):
        decode_whole(file.read_bytes())  # whole

    again = subprocess.run(words, env=os.environ | {MARK: mark}, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert (told["keys"], told["results"], told["failures"]) == (40, 40, 0)
    assert [row["key"] for row in rows(str(output), "results")] == [f"{number:03}.jpg" for number in range(40)]
    assert {name: (output / "images" / name).stat().st_mtime_ns for name in before} == before
    sizes = {decode_whole((output / "images" / f"{number:03}.jpg").read_bytes()).shape for number in range(40)}
    assert sizes == {(392, 320, 3)}
    assert not list(output.glob("runs/*/journal/*"))
    assert not list(output.rglob("images/.*")), "what a killed writer had begun is still there"
