"""The page: plain words first, nothing that somebody else's names could run, and never too large."""

import re

import numpy as np
import pytest

from celebvision import page as page_module
from celebvision.evaluation.figures import figures
from celebvision.evaluation.groups import Group
from celebvision.evaluation.measure import Measured, Mistake, comparisons
from celebvision.evaluation.page import Evaluation, page_of
from celebvision.evaluation.plots import calibration
from celebvision.page import Picture

EVIL = "<script>alert('&')</script>"


def measured(model: str, right: int, count: int = 200) -> Measured:
    truth = np.arange(count) % 2 == 0
    probability = np.where(truth ^ (np.arange(count) >= right), 0.9, 0.1).astype(np.float32)
    hats = Group("Wearing_Hat", False, 50, 9, 0.18, 0.1, 0.3, False, None)
    pale = Group("Pale_Skin", True, 3, 1, 1 / 3, 0.06, 0.79, True, "skin tone")
    wrong = [Mistake(EVIL, True, 0.1)] if right < count else []
    return Measured(model, "Male", truth, probability, figures(truth, probability), [hats, pale], wrong)


def evaluation(*models: Measured, **more: dict[str, str]) -> Evaluation:
    failures = more.get("failures", {})
    return Evaluation(f"s3://bucket/{EVIL}", None, 200, models, comparisons(models), failures)


def test_the_first_that_is_read_is_which_is_better_then_how_good_and_about_whom() -> None:
    found = evaluation(measured("cnn@1", 150), measured("inception_v3@1", 190))
    assert found.sentences[0].startswith("Male: inception_v3 is more often right than cnn: 40 against 0 pictures")
    assert found.sentences[1].startswith("Male: cnn is right on 75.0 % of the pictures (95 %: ")
    assert found.sentences[2] == "Male: cnn errs most where pictures are not Wearing_Hat: on 9 of 50"
    text = page_of(found, [])
    assert 0 < text.index("inception_v3 is more often right than cnn") < text.index("<table>")
    assert "too few to say" in text
    assert "a proxy of skin tone" in text


def test_models_of_one_name_are_told_apart_by_their_versions() -> None:
    found = evaluation(measured("cnn@1", 150), measured("cnn@2", 150), measured("other@1", 150))
    assert list(found.names.values()) == ["cnn@1", "cnn@2", "other"]
    assert "by Holm for 3 comparisons" in found.sentences[0]
    assert found.sentences[0].startswith("Male: no difference shown between ")


def test_names_are_shown_and_not_run_and_nothing_is_fetched() -> None:
    found = evaluation(measured("cnn@1", 150), failures={EVIL: f"UndecodableImage: {EVIL}"})
    text = page_of(found, [Picture("curves of Male", "png", lambda: b"png")])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 3
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources == ["data:image/png;base64,cG5n"]
    assert not re.search(r"(?i)url\(|@import|<link|<iframe", text)


def test_a_page_holds_as_many_pictures_as_it_has_room_for_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found, made = evaluation(measured("cnn@1", 150)), []

    def picture(name: str) -> Picture:
        return Picture(name, "png", lambda: made.append(name) or bytes(30_000))  # type: ignore[func-returns-value]

    monkeypatch.setattr(page_module, "MAX_BYTES", 60_000)
    text = page_of(found, [picture(name) for name in ("curves of Male", "mistakes of cnn@1 about Male", "third")])
    assert len(text.encode()) <= 60_000
    assert text.count("data:image/png") == 1
    assert "The mistakes of cnn@1 about Male would make this page too large." in text
    assert made == ["curves of Male", "mistakes of cnn@1 about Male"]


def test_reliability_is_of_the_bins_that_hold_pictures() -> None:
    rows = calibration(np.array([True, False, True]), np.array([0.1, 0.1, 1.0], np.float32))
    assert [(row["pictures"], row["share_true"]) for row in rows] == [(2, 0.5), (1, 1.0)]
    assert [row["mean_probability"] for row in rows] == pytest.approx([0.1, 1.0])
