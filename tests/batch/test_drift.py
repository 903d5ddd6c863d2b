"""Drift: how pictures and answers of a run are spread, and how far that is from another run's."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from labelling import command, fill, published, record, rows
from PIL import Image, ImageEnhance

from celebvision import ray_session
from celebvision.batch import drift
from celebvision.batch.clock import Measured
from celebvision.batch.drift import compared, distributions_of, psi, reading, since_last, summed
from celebvision.batch.fetch import Failure
from celebvision.batch.label import Photo, brightness, stored_sides
from celebvision.batch.pipeline import pack, unpack
from celebvision.batch.record import Run, load_run
from celebvision.batch.runs import runs
from celebvision.celeba.drawn import draw_attributes
from celebvision.celeba.face import draw_face
from celebvision.config import RunsSettings
from celebvision.job import JobFailed
from celebvision.registry import promote
from celebvision.storage import open_store

MANY = 400  # of so many the index is 0.06 by chance


def jpeg(image: Image.Image, **words: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", **words)
    return content.getvalue()


# ---- the index ----


def test_the_index_is_what_it_is_by_hand() -> None:
    # p = 1.5/4, 2.5/4 and q = 5.5/8, 2.5/8: 0.3125 ln(11/6) - 0.3125 ln(1/2)
    assert psi({"a": 1, "b": 2}, {"a": 5, "b": 2}) == pytest.approx(0.3125 * (math.log(11 / 6) + math.log(2)))
    # of a bin that one leaves empty: p = 3.5/4, 0.5/4 and q the other way round: 2 · 0.75 ln 7
    assert psi({"a": 3}, {"b": 3}) == pytest.approx(1.5 * math.log(7))


def test_the_index_is_the_same_from_either_side_and_nothing_where_nothing_differs() -> None:
    one, other = {"a": 10, "b": 30}, {"b": 5, "c": 7}
    assert psi(one, other) == pytest.approx(psi(other, one))
    assert psi(one, one) == 0
    assert psi({"a": 1000, "b": 3000}, {"a": 10_000, "b": 30_000}) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("index", "words"), [(0.0, "stable"), (0.099, "stable"), (0.1, "moderate shift"), (0.25, "moderate shift")]
)
def test_an_index_is_read_as_usual(index: float, words: str) -> None:
    assert reading(index) == words
    assert reading(0.251) == "large shift"


def test_only_what_both_runs_have_is_compared() -> None:
    one = {"brightness": {"0.50": 3}, "width": {"64": 3}, "bytes": {}}
    assert compared(one, {"brightness": {"0.50": 3}, "width": {}, "bytes": {"64": 1}}) == {"brightness": 0}


# ---- distributions ----


def part(**columns: list[Any]) -> pa.Table:
    count = len(next(iter(columns.values())))
    none = {name: pa.nulls(count, pa.string()) for name in ("stage", "error") if name not in columns}
    return pa.table(columns | none)


def test_every_row_falls_into_its_bin_and_a_failure_into_its_reasons() -> None:
    found = distributions_of(
        part(
            positive=[0.0, 0.049, 0.05, 0.99, 1.0, None],
            brightness=[0.5, 0.5, 0.54, 0.0, 1.0, None],
            width=[1, 2, 3, 178, 4096, None],
            bytes=[1023, 1024, 2047, 2048, 1, None],
            stage=[None] * 5 + ["decode"],
            error=[None] * 5 + ["UndecodableImage"],
        )
    )
    assert found == {
        "probability": {"0.00": 2, "0.05": 1, "0.95": 2},
        "brightness": {"0.50": 3, "0.00": 1, "0.95": 1},
        "width": {"1": 1, "2": 2, "128": 1, "4096": 1},
        "bytes": {"512": 1, "1024": 2, "2048": 1, "1": 1},
        "failures": {"none": 5, "decode UndecodableImage": 1},
    }


def test_with_several_targets_each_has_its_own_and_parts_add_up_in_order() -> None:
    several = [distributions_of(part(positive_Male=[0.9, 0.1], positive_Young=[0.5, 0.5])) for _ in range(2)]
    total = summed([*several, {"width": {"1024": 1, "256": 1}}])
    assert total["probability_Male"] == {"0.10": 2, "0.90": 2}
    assert total["probability_Young"] == {"0.50": 4}
    assert list(total["width"]) == ["256", "1024"]


# ---- what is measured of a picture ----


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("orientation", "sides"), [(None, (40, 20)), (1, (40, 20)), (3, (40, 20)), (6, (20, 40))])
def test_sides_are_those_of_the_upright_picture(kind: str, orientation: int | None, sides: tuple[int, int]) -> None:
    image, content = Image.new("RGB", (40, 20)), io.BytesIO()
    exif = image.getexif()
    if orientation is not None:
        exif[0x112] = orientation
    image.save(content, kind, exif=exif)
    assert stored_sides(content.getvalue()) == sides


def test_a_picture_with_broken_exif_is_upright() -> None:
    assert stored_sides(jpeg(Image.new("RGB", (40, 20)), exif=b"Exif\0\0garbage and more")) == (40, 20)


@pytest.mark.parametrize(("colour", "luma"), [("black", 0), ("white", 1), ("#ff0000", 0.299), ("#0000ff", 0.114)])
def test_brightness_is_mean_luma(colour: str, luma: float) -> None:
    picture = np.asarray(Image.new("RGB", (89, 109), colour))
    assert brightness(torch.from_numpy(np.stack([picture, picture]))).tolist() == pytest.approx([luma, luma], abs=1e-6)


def test_brightness_of_a_face_is_that_of_all_its_pixels(faces: list[bytes]) -> None:
    picture = Image.open(io.BytesIO(faces[0])).convert("RGB")
    whole = np.asarray(picture.convert("L")).mean() / 255
    assert brightness(torch.from_numpy(np.asarray(picture)[None].copy())).tolist() == pytest.approx([whole], abs=0.01)


def test_what_is_known_of_a_picture_travels_from_stage_to_stage() -> None:
    pixels = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    sent = [Photo(pixels[0], 178, 218, 999), Failure("decode", "E", "m"), Photo(pixels[1], 4000, 3000, 5)]
    first, failure, last = unpack(pack(7, sent, Measured()), 2, 3)
    assert failure == sent[1]
    for photo, before in ((first, sent[0]), (last, sent[2])):
        assert isinstance(photo, Photo)
        assert isinstance(before, Photo)
        assert (photo.width, photo.height, photo.bytes) == (before.width, before.height, before.bytes)
        assert np.array_equal(photo.pixels, before.pixels)
    assert list(unpack(pack(7, [failure], Measured()), 2, 3)) == [failure]


# ---- runs ----


def a_run(run_id: str, **changes: Any) -> Run:
    words: dict[str, Any] = {"verb": "classify", "state": "done", "created": "", "config": {}, "code_version": ""}
    words |= {"model": {"name": "cnn", "version": "1"}, "distributions": {"brightness": {"0.50": 9}}}
    return Run(run_id, **(words | changes))


def test_the_baseline_is_the_last_run_by_the_model_that_is_done_and_whose_keys_were_not_chosen_by_failing() -> None:
    before = [
        a_run("1"),
        a_run("2", model={"name": "cnn", "version": "0"}),
        a_run("3", model={"name": "other", "version": "1"}),
        a_run("4", state="failed"),
        a_run("5", distributions={}),
        a_run("6", retry="failures"),
        a_run("7", verb="stylize"),
        a_run("9"),
    ]
    assert since_last(a_run("8"), before) == {"baseline": "2", "psi": {"brightness": 0}}
    assert since_last(a_run("1"), before) == {}
    assert since_last(a_run("8", retry="failures"), before) == {}


def test_a_record_of_a_version_that_knew_no_drift_is_read(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    a_run("1").save(output)
    content = json.loads(output.get("runs/1/run.json"))
    del content["distributions"], content["drift"]
    output.put("runs/1/run.json", json.dumps(content).encode())
    assert (load_run(output, "1").distributions, load_run(output, "1").drift) == ({}, {})


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        (("1", "3"), "there is no run 3; there are: 1, 2, old"),
        (("2", "1"), "run 2 is failed, not done"),
        (("1", "old"), "run old has no distributions"),
    ],
)
def test_runs_that_cannot_be_compared_are_told(tmp_path: Path, pair: tuple[str, str], told: str) -> None:
    output = open_store(str(tmp_path))
    for run in (a_run("1"), a_run("2", state="failed"), a_run("old", distributions={})):
        run.save(output)
    with pytest.raises(JobFailed, match=told):
        runs(RunsSettings(output=output.uri, compare=pair))


# ---- from end to end ----


def drawn(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [draw_face(rng, draw_attributes(rng, male=bool(number % 2))) for number in range(count)]


def in_the_dark(faces: list[Image.Image]) -> list[Image.Image]:
    return [ImageEnhance.Brightness(face).enhance(0.3) for face in faces]


@pytest.fixture(scope="module")
def three_runs(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One output: faces, as many others, and these in the dark; what the commands said, and the records."""
    ray_session.start()
    home = tmp_path_factory.mktemp("drift")
    registry, photos, labels = (str(home / name) for name in ("models", "photos", "labels"))
    promote(registry, "cnn", published(registry, 1).version)
    words = ["classify", "--input", photos, "--output", labels, "--registry", registry, "--model", "cnn"]
    found: dict[str, Any] = {"labels": labels, "photos": photos}
    faces = drawn(2 * MANY)
    one, other = faces[:MANY], faces[MANY:]
    for name, pictures in (("first", one), ("alike", other), ("dark", in_the_dark(other))):
        fill(photos, {f"{name}/{number:03}.jpg": jpeg(face, quality=95) for number, face in enumerate(pictures)})
        status, _, stderr = command(words)
        assert status == 0, stderr
        found[name], found[f"{name}_told"] = record(labels), stderr
    return found


def test_every_result_says_how_large_and_bright_its_picture_is(three_runs: dict[str, Any]) -> None:
    pictures = open_store(three_runs["photos"])
    found = rows(three_runs["labels"], "results")
    assert len(found) == 3 * MANY
    for row in found[:3]:
        data = pictures.get(row["key"])
        image = Image.open(io.BytesIO(data))
        assert (row["width"], row["height"], row["bytes"]) == (*image.size, len(data))
        assert row["brightness"] == pytest.approx(np.asarray(image.convert("L")).mean() / 255, abs=0.02)
        assert "positive" not in row


def test_pictures_in_the_dark_are_a_large_shift_and_others_of_the_kind_none(three_runs: dict[str, Any]) -> None:
    assert three_runs["first"]["drift"] == {}
    alike, dark = three_runs["alike"]["drift"], three_runs["dark"]["drift"]
    assert alike["baseline"] == three_runs["first"]["run_id"]
    assert dark["baseline"] == three_runs["alike"]["run_id"]
    names = {"probability", "width", "height", "bytes", "brightness", "failures"}
    assert alike["psi"].keys() == dark["psi"].keys() == names
    assert max(alike["psi"].values()) < 0.1
    assert dark["psi"]["brightness"] > 1
    assert dark["psi"]["width"] == dark["psi"]["failures"] == 0
    assert three_runs["first"]["distributions"]["failures"] == {"none": MANY}


def test_people_are_told_of_the_largest_shift(three_runs: dict[str, Any]) -> None:
    distribution, index = drift.largest(three_runs["dark"]["drift"]["psi"])
    said = f"drift            {distribution} {index:.3f}, large shift, since {three_runs['alike']['run_id']}"
    assert said in three_runs["dark_told"]
    assert ", stable, since" in three_runs["alike_told"]
    assert "drift  " not in three_runs["first_told"]


def test_any_two_runs_are_compared(three_runs: dict[str, Any]) -> None:
    pair = [three_runs[name]["run_id"] for name in ("first", "dark")]
    words = ["runs", "--output", three_runs["labels"], "--compare", *pair]
    status, _, table = command(words)
    assert status == 0
    assert "brightness" in table.splitlines()[1]
    assert table.splitlines()[0].split() == ["distribution", "psi", "reading"]
    assert any(line.split() == ["width", "0.000", "stable"] for line in table.splitlines())
    told = json.loads(command([*words, "--json"])[1])
    assert (told["baseline"], told["run_id"]) == tuple(pair)
    one, other = (three_runs[name]["distributions"] for name in ("first", "dark"))
    assert told["psi"] == pytest.approx(compared(one, other))
    assert told["largest"].endswith("large shift")
