"""`evaluate` of classifiers, as a whole: what it leaves, of shards and of a labelled folder, and what it refuses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from gallery import BROKEN, FACES, KNOWN, MISSING, Gallery
from labelling import published_style

from celebvision.celeba.schema import ATTRIBUTES
from celebvision.celeba.shards import DataSet
from celebvision.evaluation.figures import METRICS
from celebvision.evaluation.folder import LabelledFolder
from celebvision.evaluation.predict import predict
from celebvision.evaluation.sources import open_source
from celebvision.job import JobFailed, Outcome
from celebvision.storage import StorageError, open_store


@pytest.fixture(scope="module")
def evaluated(gallery: Gallery) -> tuple[Outcome, dict[str, Any]]:
    return gallery.evaluate("evaluation")


def test_predictions_are_of_the_right_pictures_with_their_labels(gallery: Gallery) -> None:
    data = DataSet.load(gallery.at("shards"))
    words = (gallery.at("shards"), data, "test", gallery.at("registry"), gallery.both)
    table = predict(*words, batch_size=7, attributes=["Young", "Male"])
    answers = [column for target in ("Male", "Smiling") for column in (target, f"{target}_probability")]
    assert table.column_names == ["image_id", *answers, "Young"]
    rows = table.to_pylist()
    assert [{name: row[name] for name in ("image_id", "Male", "Smiling", "Young")} for row in rows] == [
        {name: row[name] for name in ("image_id", "Male", "Smiling", "Young")} for row in gallery.rows
    ]
    assert len({row["Male_probability"] for row in rows}) > FACES / 2
    other = predict(*words, batch_size=FACES)
    np.testing.assert_allclose(table["Male_probability"], other["Male_probability"], atol=0.02)


def test_a_split_of_data_in_memory_is_enough(gallery: Gallery) -> None:
    whole = DataSet.load(gallery.at("shards"))
    part = DataSet("made", 0, whole.shards[1:])
    words = (gallery.at("shards"), part, "test", gallery.at("registry"), gallery.male, 16)
    assert len(predict(*words)) == part.rows("test") < whole.rows("test")
    with pytest.raises(JobFailed, match="the valid split is empty"):
        predict(gallery.at("shards"), part, "valid", *words[3:])


def test_everything_is_written_and_agrees(gallery: Gallery, evaluated: tuple[Outcome, dict[str, Any]]) -> None:
    outcome, content = evaluated
    home = gallery.home / "evaluation"
    assert content["models"].keys() == outcome.summary["models"].keys() == set(gallery.titles)
    assert [len(content["models"][title]) for title in gallery.titles] == [1, 2]
    rows = pq.read_table(home / "figures.parquet").to_pylist()
    assert len(rows) == 3 * len(METRICS)
    for row in rows:
        figure = content["models"][row["model"]][row["target"]][row["figure"]]
        assert {name: row[name] for name in ("value", "low", "high")} == {
            name: figure[name] for name in ("value", "low", "high")
        }
        assert outcome.summary["models"][row["model"]][row["target"]][row["figure"]] == row["value"]
    groups = pq.read_table(home / "groups.parquet").to_pylist()
    assert len(groups) == 3 * 2 * (len(ATTRIBUTES) - 1)
    for title in gallery.titles:
        answers = pq.read_table(home / f"predictions/{title}.parquet")
        right = (answers["Male_probability"].to_numpy() > 0.5) == answers["Male"].to_numpy()
        assert content["models"][title]["Male"]["accuracy"]["value"] == pytest.approx(right.mean(), abs=1e-6)
        assert sum(content["confusion"][title]["Male"].values()) == FACES == content["pictures"]
        assert sum(row["pictures"] for row in content["calibration"][title]["Male"]) == FACES
        assert len(content["mistakes"][title]["Male"]) == min(40, FACES - right.sum())


def test_models_are_compared_on_the_targets_that_they_share(evaluated: tuple[Outcome, dict[str, Any]]) -> None:
    (compared,) = evaluated[1]["comparisons"]
    assert compared["target"] == "Male"
    assert compared["p_value"] == compared["p_value_alone"]
    assert compared["sentence"] == evaluated[1]["sentences"][0]
    assert "pictures that only one gets right (McNemar p " in compared["sentence"]


def test_what_it_was_most_wrong_about_comes_first(evaluated: tuple[Outcome, dict[str, Any]], gallery: Gallery) -> None:
    truth = {row["image_id"]: row["Male"] for row in gallery.rows}
    wrong = evaluated[1]["mistakes"][gallery.titles[0]]["Male"]
    distances = [abs(one["probability"] - one["truth"]) for one in wrong]
    assert distances == sorted(distances, reverse=True)
    assert min(distances) >= 0.5
    assert all(one["truth"] == truth[one["image_id"]] for one in wrong)


def test_the_page_shows_its_pictures(gallery: Gallery, evaluated: tuple[Outcome, dict[str, Any]]) -> None:
    text = (gallery.home / "evaluation/evaluation.html").read_text()
    wrong = sum(bool(found) for of_model in evaluated[1]["mistakes"].values() for found in of_model.values())
    assert text.count("data:image/png") == 2  # curves of Male and of Smiling
    assert text.count("data:image/jpeg") == wrong > 0
    assert evaluated[1]["sentences"][0] in text


def test_figures_and_the_sentence_are_printed(gallery: Gallery, capsys: pytest.CaptureFixture[str]) -> None:
    _, content = gallery.evaluate("printed")
    printed = capsys.readouterr().err
    assert f"{gallery.titles[1]} Smiling: accuracy 0." in printed
    assert content["comparisons"][0]["sentence"] in printed


def test_the_same_words_give_the_same_bytes(gallery: Gallery, evaluated: tuple[Outcome, dict[str, Any]]) -> None:
    gallery.evaluate("again")
    for name in ("evaluation.json", "evaluation.html", "figures.parquet", "groups.parquet"):
        assert (gallery.home / "again" / name).read_bytes() == (gallery.home / "evaluation" / name).read_bytes()


def test_a_labelled_folder_gives_the_answers_of_its_shards_and_lists_what_is_broken(
    gallery: Gallery, evaluated: tuple[Outcome, dict[str, Any]]
) -> None:
    outcome, content = gallery.evaluate("of_folder", data=gallery.at("folder"))
    assert (content["split"], content["pictures"], outcome.failures) == (None, FACES, 3)
    reasons = {failure["key"]: failure["reason"] for failure in content["failures"]}
    assert reasons.keys() == {*BROKEN, MISSING}
    assert reasons["broken/empty.jpg"] == "UndecodableImage: empty: 0 bytes"
    assert reasons[MISSING].startswith("NotFound: ")
    for title in gallery.titles:
        mine, shards = (
            pq.read_table(gallery.home / name / f"predictions/{title}.parquet") for name in ("of_folder", "evaluation")
        )
        assert mine["image_id"].to_pylist() == [f"faces/{name}" for name in shards["image_id"].to_pylist()]
        assert mine["Male"].equals(shards["Male"])
        np.testing.assert_allclose(mine["Male_probability"], shards["Male_probability"], atol=0.02)
    assert {group["attribute"] for group in content["groups"][gallery.titles[1]]["Male"]} == {*KNOWN} - {"Male"}
    text = (gallery.home / "of_folder/evaluation.html").read_text()
    assert "missing &lt;b&gt;.jpg" in text
    assert text.count("data:image/jpeg") > 0


def test_a_bucket_is_as_good_as_a_folder(gallery: Gallery, bucket: str) -> None:
    store = open_store(f"{bucket}/faces of today")
    for path in gallery.home.glob("folder/**/*.*"):
        store.put(path.relative_to(gallery.home / "folder").as_posix(), path.read_bytes())
    outcome, content = gallery.evaluate("of_bucket", data=store.uri, model=gallery.titles[:1])
    assert (outcome.summary["rows"], content["comparisons"]) == (FACES, [])
    assert {failure["key"] for failure in content["failures"]} == {*BROKEN, MISSING}


def test_a_picture_that_one_model_cannot_be_asked_about_counts_for_none(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched, lost = LabelledFolder._fetched, "faces/000007.jpg"
    asked: list[int] = []

    def lose_one(folder: LabelledFolder, keys: list[str]) -> Iterator[bytes | Exception]:
        asked.append(len(keys))
        for key, data in zip(keys, fetched(folder, keys), strict=True):
            yield StorageError("gone") if key == lost and len(asked) > 1 else data

    monkeypatch.setattr(LabelledFolder, "_fetched", lose_one)
    _, content = gallery.evaluate("lost", data=gallery.at("folder"))
    assert content["pictures"] == FACES - 1
    assert {"key": lost, "reason": "StorageError: gone"} in content["failures"]
    assert asked[:2] == [FACES + 3, FACES]  # what failed once is not fetched again
    for title in gallery.titles:
        table = pq.read_table(gallery.home / f"lost/predictions/{title}.parquet")
        assert lost not in table["image_id"].to_pylist()


@pytest.mark.parametrize(
    ("files", "more", "told"),
    [
        ({}, {}, r"holds no dataset\.json and no labels\.csv or labels\.parquet; give shards"),
        ({"dataset.json": "{}", "labels.csv": "key,Male\na,1\n"}, {}, r"both dataset\.json and labels\.csv"),
        ({"labels.csv": "key,Male\na,1\n"}, {}, "no picture of its labels can be read; the first, a: NotFound"),
        ({"labels.csv": "key,Young\na,1\n"}, {}, r"targets: Male: no attribute of .*; it has Young"),
        ({"labels.csv": "key,Male\na,1\n"}, {"split": "test"}, r"split: .* has no splits; leave it out"),
        (None, {"split": "train"}, "the train split is empty"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    gallery: Gallery, tmp_path: Path, files: dict[str, str] | None, more: dict[str, str], told: str
) -> None:
    for name, text in (files or {}).items():
        (tmp_path / name).write_text(text)
    data = gallery.at("shards") if files is None else str(tmp_path)
    with pytest.raises(JobFailed, match=told):
        gallery.evaluate("refused", model=gallery.titles[:1], data=data, **more)
    assert not (gallery.home / "refused").exists()


def test_models_that_draw_want_shards_and_company_of_their_kind(gallery: Gallery) -> None:
    sketch = published_style(gallery.at("registry"), 3)
    title = f"{sketch.name}@{sketch.version}"
    with pytest.raises(JobFailed, match="models that draw are measured on shards"):
        gallery.evaluate("refused", model=[title], data=gallery.at("folder"))
    with pytest.raises(JobFailed, match="sketch draws pictures and cnn answers attributes"):
        gallery.evaluate("refused", model=[title, gallery.titles[0]])


def test_answers_that_are_no_numbers_are_an_error_and_not_a_figure(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "celebvision.models.classifier.Classifier.probabilities",
        lambda classifier, images: np.nan * images[:, 0, 0, : len(classifier.classes)].float(),
    )
    with pytest.raises(JobFailed, match=r"its answer to 60 of 60 pictures is no number, the first of them 000000\.jpg"):
        gallery.evaluate("refused")


def test_a_picture_is_read_from_its_own_row(gallery: Gallery) -> None:
    source = open_source(gallery.at("shards"), "test")
    wanted = {row["image_id"]: row["image"] for row in gallery.rows[3::17]}
    assert dict(source.pictures(wanted)) == wanted
    folder = open_source(gallery.at("folder"), "test")
    assert dict(folder.pictures([f"faces/{name}" for name in wanted] + [MISSING])) == {
        **{f"faces/{name}": data for name, data in wanted.items()},
        MISSING: b"",
    }
