"""The report of a run is one page: it tells what there is to tell, runs nothing, fetches nothing and hides no key."""

import io
import json
import re
import shlex
import time
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from labelling import command, fill, published, published_style, record
from PIL import Image

from celebvision.batch.record import load_run
from celebvision.cli import main
from celebvision.config import ClassifySettings, parse
from celebvision.metrics import names
from celebvision.page import MAX_BYTES
from celebvision.registry import promote, publish
from celebvision.report.batch import command as command_of
from celebvision.report.batch import settings_of
from celebvision.storage import open_store
from celebvision.training.files import CONFIG, HISTORY, PUBLISHED

EVIL = "<script>alert('1')</script>\" onerror=\x1b[31m\u202e & {{ 7 * 7 }}.jpg"


class Page(HTMLParser):
    """What a browser would see: tags, what they would fetch, and words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.alts: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.words += " "
        assert not [name for name, _ in attributes if name.startswith("on")]
        self.fetched += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "action")]
        self.alts += [value or "" for name, value in attributes if name == "alt"]

    def handle_data(self, data: str) -> None:
        self.words += data


def look(page: Path) -> Page:
    """The page, after what holds of each was looked at."""
    assert page.stat().st_size < MAX_BYTES
    seen = Page(page.read_text())
    assert not {"script", "link", "iframe", "object", "form"} & set(seen.tags)
    assert all(url.startswith("data:image/png;base64,") for url in seen.fetched)
    assert seen.tags.count("img") == len(seen.alts)
    assert all(seen.alts)
    assert "\x1b" not in seen.words
    assert "\u202e" not in seen.words
    return seen


@dataclass
class Ran:
    """A run that is done, and where."""

    output: str
    run_id: str

    @property
    def folder(self) -> str:
        return f"{self.output}/runs/{self.run_id}"

    def page(self) -> Page:
        assert main(["report", "--run", self.folder, "--json"]) == 0
        return look(Path(self.folder) / "report.html")


def face(seed: int, size: int = 80) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((size, size)).save(content, "JPEG", quality=95)
    return content.getvalue()


PICTURES = {f"{number:02}.jpg": face(number) for number in range(30)}


@pytest.fixture(scope="module")
def classified(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    home = tmp_path_factory.mktemp("classified")
    broken = {"half.jpg": face(99, 300)[:-4000], "none.jpg": b"no picture", EVIL: b"neither"}
    fill(str(home / "photos"), PICTURES | broken)
    promote(str(home / "models"), "cnn", published(str(home / "models"), 1).version)
    words = ["--input", str(home / "photos"), "--output", str(home / "labels"), "--registry", str(home / "models")]
    status, _, stderr = command(["classify", *words, "--model", "cnn", "--shard_keys", "7", "--uncertain_below", "0.9"])
    assert status == 0, stderr
    return Ran(str(home / "labels"), record(str(home / "labels"))["run_id"])


def test_a_run_of_classify_tells_counts_labels_failures_and_shows_pictures(classified: Ran) -> None:
    began = time.monotonic()
    seen = classified.page()
    assert time.monotonic() - began < 5
    run = load_run(open_store(classified.output), classified.run_id)
    assert "classify with cnn: done" in seen.words
    assert re.search(r"results\s+30\s", seen.words)
    assert re.search(r"failures\s+3\s", seen.words)
    assert re.search(rf"uncertain\s+{run.counts['results_uncertain']}\s", seen.words)
    assert "3 in decode: UndecodableImage" in seen.words
    assert "labelled pictures" in seen.alts
    assert "probability" in seen.alts
    assert "rate over time" in seen.alts
    assert run.timeline[-1][1] == 33, "it ends where the run does"
    assert "what can be seen of half.jpg" in seen.alts
    assert "what can be seen of none.jpg" not in seen.alts
    assert r"<script>alert('1')</script>" in seen.words, "a key is shown, as words"
    assert "{{ 7 * 7 }}" in seen.words


def test_the_command_that_it_shows_is_the_one_that_was_given(classified: Ran) -> None:
    settings = settings_of(load_run(open_store(classified.output), classified.run_id))
    shown = command_of("classify", settings)
    assert parse(ClassifySettings, shlex.split(shown)[2:], "classify") == settings
    assert f"{shown} --retry failures" in classified.page().words


def test_the_sample_is_the_same_each_time(classified: Ran) -> None:
    assert classified.page().fetched == classified.page().fetched


def test_a_run_whose_pictures_are_gone_has_a_report(classified: Ran, tmp_path: Path) -> None:
    record_file = Path(classified.folder) / "run.json"
    before = record_file.read_text()
    content = json.loads(before)
    content["config"]["input"] = str(tmp_path / "gone")
    try:
        record_file.write_text(json.dumps(content))
        assert "labelled pictures" in classified.page().alts
    finally:
        record_file.write_text(before)


def test_a_run_on_s3_has_its_page_beside_its_record(ray_cluster: None, bucket: str, tmp_path: Path) -> None:
    fill(f"{bucket}/photos", {"a b%#?.jpg": face(1), "half.jpg": face(99, 300)[:-4000]})
    models = str(tmp_path / "models")
    promote(models, "cnn", published(models, 1).version)
    words = ["--input", f"{bucket}/photos", "--output", f"{bucket}/labels", "--registry", models, "--model", "cnn"]
    assert command(["classify", *words])[0] == 0
    run_id = record(f"{bucket}/labels")["run_id"]
    assert main(["report", "--run", f"{bucket}/labels/runs/{run_id}"]) == 0
    (tmp_path / "page.html").write_bytes(open_store(f"{bucket}/labels").get(f"runs/{run_id}/report.html"))
    seen = look(tmp_path / "page.html")
    assert {"labelled pictures", "what can be seen of photos/half.jpg"} <= set(seen.alts)


@pytest.mark.parametrize("state", ["listing", "running", "failed", "interrupted"])
def test_a_run_that_is_not_done_says_how_it_goes_on(classified: Ran, tmp_path: Path, state: str) -> None:
    content = json.loads((Path(classified.folder) / "run.json").read_text())
    content |= {"state": state, "error": "access is refused <b>", "timeline": [[5.0, 3], [10.0, 9]]}
    content |= {"distributions": {}, "reasons": {}} | ({"inventory": {}} if state == "listing" else {})
    stopped = Ran(str(tmp_path), classified.run_id)
    fill(str(tmp_path), {f"runs/{classified.run_id}/run.json": json.dumps(content).encode()})
    seen = stopped.page()
    told = "stopped" if state in ("listing", "running") else state
    assert f"classify with cnn: {told}" in seen.words
    assert "The same command continues it" in seen.words
    assert "access is refused <b>" in seen.words
    assert "rate over time" in seen.alts


def test_a_run_that_lists_yet_says_how_many_images_so_far(classified: Ran, tmp_path: Path) -> None:
    content = json.loads((Path(classified.folder) / "run.json").read_text())
    content |= {"state": "interrupted", "whole": False, "inventory": {"shards": 3, "keys": 3000, "bytes": 9}}
    fill(str(tmp_path), {f"runs/{classified.run_id}/run.json": json.dumps(content).encode()})
    assert "3,000 so far" in Ran(str(tmp_path), classified.run_id).page().words


def test_a_run_of_stylize_shows_pictures_beside_what_was_drawn(ray_cluster: None, tmp_path: Path) -> None:
    photos, models, output = (str(tmp_path / name) for name in ("photos", "models", "drawn"))
    fill(photos, dict(list(PICTURES.items())[:6]))
    promote(models, "sketch", published_style(models, 1).version)
    words = ["--input", photos, "--output", output, "--registry", models, "--model", "sketch", "--size", "64"]
    status, _, stderr = command(["stylize", *words])
    assert status == 0, stderr
    seen = Ran(output, record(output)["run_id"]).page()
    assert "stylize with sketch: done" in seen.words
    assert "pictures beside what was drawn of them" in seen.alts


def test_a_training_has_curves_pictures_settings_and_its_card(tmp_path: Path) -> None:
    models, run = str(tmp_path / "models"), str(tmp_path / "run")
    state = {"w": __import__("torch").zeros(1)}
    made = publish(
        models,
        "sketch",
        state=state,
        architecture="cyclegan",
        arguments={},
        preprocessing={},
        targets=[],
        classes={},
        metrics={},
        data_digest="",
        code_version="",
        seed=0,
        card="# sketch\n<b>It learnt from drawings.</b>",
        samples={},
    )
    epochs = pd.DataFrame(
        {"epoch": range(9), **{name: np.linspace(2, 1, 9) for name in (*names.LOSSES[3:], "kid", "fid", "variety")}}
    ).assign(images_per_s=5.0, wait_share=0.1, epoch_s=60.0, workers=[1] * 4 + [2] * 5)
    content = io.BytesIO()
    epochs.to_parquet(content)
    grids = {f"pictures/epoch-{epoch:04}-photo_to_style.png": face(epoch) for epoch in range(1, 10)}
    config = {"name": "sketch", "registry": models, "data": EVIL}
    fill(run, {HISTORY: content.getvalue(), CONFIG: json.dumps(config).encode(), **grids})
    assert main(["report", "--run", run, "--output", str(tmp_path / "page")]) == 0
    seen = look(tmp_path / "page" / "report.html")
    assert "not finished: 9 epochs are done; the same command goes on" in seen.words

    told = {"models": {"sketch": made.version}, "epoch": 8, "kid": 1.0}
    fill(run, {PUBLISHED: json.dumps(told).encode()})
    assert main(["report", "--run", run]) == 0
    seen = look(tmp_path / "run" / "report.html")
    assert "9 epochs in 9.0 minutes, by 1, then 2 worker(s)" in seen.words
    assert f"It published sketch@{made.version}" in seen.words
    assert "<b>It learnt from drawings.</b>" in seen.words
    assert "curves" in seen.alts
    shown = [alt for alt in seen.alts if alt.startswith("pictures/")]
    assert (shown[0], shown[-1], len(shown)) == (
        "pictures/epoch-0001-photo_to_style.png",
        "pictures/epoch-0009-photo_to_style.png",
        4,
    )


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--run", str(tmp_path)]) == 1
    assert "is no run; give OUTPUT/runs/RUN" in capsys.readouterr().err


def test_the_page_of_runs_links_to_the_reports_there_are(classified: Ran) -> None:
    classified.page()
    assert main(["runs", "--output", classified.output, "--html"]) == 0
    seen = Page((Path(classified.output) / "runs.html").read_text())
    assert seen.fetched == [f"runs/{classified.run_id}/report.html"]
    assert (Path(classified.output) / seen.fetched[0]).exists()
    assert re.search(rf"{classified.run_id}\s+report\s+done\s+classify\s+cnn@\S+\s+33\s+30\s", seen.words)
