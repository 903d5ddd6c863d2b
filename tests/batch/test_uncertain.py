"""`classify --uncertain_below`: what the network is not sure of is called so, and nothing else changes."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from labelling import House, command, fill, record, rows

from celebvision.batch.label import Labelling, Photo
from celebvision.batch.run import words_of
from celebvision.config import ClassifySettings, PlanSettings, StylizeSettings, WordsError, parse
from celebvision.registry import assemble, load_state

PLACES = {"input": "s3://photos", "output": "s3://labels", "registry": "s3://models"}


@pytest.mark.usefixtures("on_ray")
def test_labels_under_the_word_are_uncertain_and_counted_and_the_rest_is_as_it_was(
    house: House, faces: list[bytes], tmp_path: Path
) -> None:
    photos, plain, careful = (str(tmp_path / name) for name in ("photos", "plain", "careful"))
    fill(photos, {f"{number:02}.jpg": face for number, face in enumerate(faces)} | {"bad.jpg": b"bad"})
    words = ["classify", "--input", photos, "--registry", house.registry, "--model", "cnn", "--json", "--output"]
    status, stdout, stderr = command([*words, plain])
    assert status == 0, stderr
    assert "results_uncertain" not in json.loads(stdout)
    assert "results_uncertain" not in record(plain)["counts"]
    expected = rows(plain, "results")
    middle = median(row["probability"] for row in expected)  # of so many rows: one of them, which is not under itself

    status, stdout, stderr = command([*words, careful, "--uncertain_below", str(middle)])
    assert status == 0, stderr
    found = rows(careful, "results")
    uncertain = {row["key"] for row in expected if row["probability"] < middle}
    assert 0 < len(uncertain) < len(expected)
    for row, other in zip(found, expected, strict=True):
        assert row["label"] == ("uncertain" if row["key"] in uncertain else other["label"])
        assert (row["key"], row["probability"]) == (other["key"], other["probability"])
    assert json.loads(stdout)["results_uncertain"] == len(uncertain)
    counts = {"results": len(faces), "results_uncertain": len(uncertain), "failures": 1, "failures_decode": 1}
    assert record(careful)["counts"] == counts
    (shown,) = json.loads(command(["runs", "--output", careful, "--json"])[1])["runs"]
    assert shown["uncertain"] == len(uncertain)
    # What the network said of the second class is known, whatever the label hides.
    assert record(careful)["distributions"] == record(plain)["distributions"]


def test_of_several_targets_each_is_uncertain_by_itself(house: House, tmp_path: Path) -> None:
    here = str(tmp_path)
    settings = ClassifySettings(input=here, output=here, model="cnn", registry=house.registry, uncertain_below=0.8)
    classes = house.first.classes | {"Young": ("not_young", "young")}
    model = replace(house.first, targets=["Male", "Young"], classes=classes)
    work = Labelling(settings, model, assemble(house.first, load_state(house.registry, house.first)), "cpu")
    photo = Photo(np.zeros((109, 89, 3), np.uint8), 178, 218, 999)
    assert work._answer(photo, [0.25, 0.125], 0.5) == {
        "label_Male": "uncertain",
        "probability_Male": 0.75,
        "positive_Male": 0.25,
        "label_Young": "not_young",
        "probability_Young": 0.875,
        "positive_Young": 0.125,
        "width": 178,
        "height": 218,
        "bytes": 999,
        "brightness": 0.5,
    }


def test_another_word_is_another_run_and_without_it_a_run_that_was_begun_before_there_was_the_word_is_continued() -> (
    None
):
    plain = ClassifySettings(model="cnn", **PLACES)
    assert words_of(plain) == "f66acce8"  # as it was then
    assert words_of(StylizeSettings(model="sketch", **PLACES)) == "051e0b37"
    others = {words_of(ClassifySettings(model="cnn", uncertain_below=below, **PLACES)) for below in (0.5, 0.8, 0.9)}
    assert len(others | {words_of(plain)}) == 4


@pytest.mark.parametrize("below", ["0.4", "1.5", "often"])
def test_a_probability_that_no_label_can_have_is_refused(below: str) -> None:
    words = [word for name, place in PLACES.items() for word in (f"--{name}", place)]
    with pytest.raises(WordsError, match="uncertain_below"):
        parse(ClassifySettings, [*words, "--model", "cnn", "--uncertain_below", below], "classify")


def test_a_plan_takes_the_word_too() -> None:
    assert PlanSettings(model="cnn", uncertain_below=0.9, **PLACES).uncertain_below == 0.9
