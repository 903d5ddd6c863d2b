"""The page as a visitor uses it: Streamlit runs it in this process, over a real registry of small networks."""

import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import safetensors.torch
import torch
from labelling import published, published_style
from PIL import Image
from streamlit.testing.v1 import AppTest

from celebvision.app import SETTINGS
from celebvision.app.models import Models
from celebvision.app.opening import opening
from celebvision.app.page import LABEL, PAINT, REDRAW
from celebvision.app.work import Drawn, Refused, compared, mixed, opened, zipped
from celebvision.celeba.drawn import messy_bucket
from celebvision.config import AppSettings
from celebvision.models import complete_arguments, create
from celebvision.models.preprocessing import Preprocessing
from celebvision.models.style_net import ConditionalNorm
from celebvision.models.vgg import VGG
from celebvision.registry import promote, publish

PAGE = Path(__file__).parents[2] / "celebvision" / "app" / "page.py"
WAIT_S = 60


def face(seed: int, exif: bool = False) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    told = Image.Exif()
    if exif:
        told.get_ifd(0x8825)[2] = (48.0, 8.0, 0.0)  # where it was taken
    content = io.BytesIO()
    Image.fromarray(pixels).resize((70, 90)).save(content, "JPEG", exif=told)
    return content.getvalue()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    models = str(tmp_path_factory.mktemp("app") / "models")
    promote(models, "cnn", published(models, 1).version)
    promote(models, "sketch", published_style(models, 1).version)
    return models


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights that were never trained: a picture changes by them, and that is enough."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    safetensors.torch.save_file(VGG("vgg16", ["conv5_2"]).state_dict(), path)
    return str(path)


@pytest.fixture
def settings(registry: str, vgg: str) -> AppSettings:
    return AppSettings(registry=registry, weights=vgg, arch="vgg16", max_bytes=2_000_000, max_pixels=1_000_000)


@pytest.fixture
def page(settings: AppSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], AppTest]]:
    """Opens the page as another visitor, once the models are there."""
    monkeypatch.setenv(SETTINGS, settings.model_dump_json(by_alias=True))
    opening.clear()  # type: ignore[attr-defined]

    def visit() -> AppTest:
        at = AppTest.from_file(str(PAGE), default_timeout=WAIT_S).run()
        last = time.monotonic() + WAIT_S
        while any("being loaded" in one.value for one in at.info):
            assert time.monotonic() < last
            at.run()
        return at

    yield visit
    opening.clear()  # type: ignore[attr-defined]


def upload(at: AppTest, *pictures: tuple[str, bytes]) -> AppTest:
    return at.file_uploader[0].set_value([(name, data, "image/jpeg") for name, data in pictures]).run()


def drawn_of(at: AppTest, model: str = "") -> list[Drawn]:
    """What was drawn for the visitor so far, by the model or by any."""
    made = [one for one in at.session_state["kept"].values() if isinstance(one, Drawn)]
    return [one for one in made if one.model.name == (model or one.model.name)]


def published_untrained(registry: str, architecture: str, **arguments: Any) -> None:
    """A network of this architecture and name whose layers all matter, else what it draws is one colour."""
    torch.manual_seed(0)
    network = create(architecture, **arguments)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, ConditionalNorm):
            torch.nn.init.normal_(module.weight, 1, 0.5)
    made = publish(
        registry,
        architecture,
        state=network.state_dict(),
        architecture=architecture,
        arguments=complete_arguments(architecture, **arguments),
        preprocessing=cast("Preprocessing", network.preprocessing).to_json(),
        targets=[],
        classes={},
        metrics={},
        data_digest="",
        code_version="",
        seed=0,
        card="",
        samples={},
    )
    promote(registry, architecture, made.version)


def said(at: AppTest) -> str:
    """All words of the page."""
    bars = [one.proto.text for one in at.get("progress")]
    words = (one.value for kind in (at.markdown, at.error, at.info, at.warning, at.caption) for one in kind)
    return "\n".join([*words, *bars])


def test_pictures_are_labelled_and_a_broken_one_is_a_sentence(page: Callable[[], AppTest]) -> None:
    at = upload(page(), ("a.jpg", face(1)), ("<script>.jpg", b"no picture"), ("half.jpg", face(2)[:-700]))
    assert not at.exception
    assert "cnn: Male: **" in said(at)
    assert [one.value.partition(":")[0] for one in at.error] == ["of no known format", "not a whole JPEG"]
    assert "<script>" not in said(at)


def test_who_has_no_picture_takes_drawn_ones(page: Callable[[], AppTest]) -> None:
    at = page()
    at.checkbox[0].check().run()
    assert len(at.get("progress")) == 4
    assert not at.exception


def test_an_uncertain_answer_says_so_and_the_card_is_a_click_away(page: Callable[[], AppTest]) -> None:
    at = upload(page(), ("a.jpg", face(1)))
    at.slider[0].set_value(1.0).run()
    assert "(uncertain)" in said(at)
    assert "What there is to know of cnn" in [one.label for one in at.expander]


def test_pictures_are_redrawn_mixed_compared_and_offered(page: Callable[[], AppTest]) -> None:
    at = upload(page(), ("a.jpg", face(1)), ("b.jpg", face(2)))
    at.radio[0].set_value(REDRAW).run()
    assert not at.exception
    assert not at.error
    names = [one.label for one in at.get("download_button")]
    assert names == ["Download 1. a.png", "Download 2. b.png", "Download all"]
    drawn = at.session_state["kept"]
    before = len(drawn)
    at.slider[0].set_value(50).run()
    at.slider[1].set_value(30).run()
    assert len(at.session_state["kept"]) == before, "what was drawn is not drawn again"
    assert not at.exception


def test_a_network_of_any_style_takes_an_own_picture(page: Callable[[], AppTest], registry: str) -> None:
    published_untrained(registry, "adain", arch="vgg16", size=64, width=0.25)
    at = upload(page(), ("a.jpg", face(1)))
    at.radio[0].set_value(REDRAW).run()
    at.selectbox[0].set_value("adain").run()
    assert not at.exception
    assert not at.error
    (first,) = drawn_of(at, "adain")
    at.file_uploader[1].set_value(("style.jpg", face(5), "image/jpeg")).run()
    _, second = drawn_of(at, "adain")
    assert first.model.name == second.model.name == "adain"
    assert (first.after != second.after).any(), "the style is the uploaded one's"
    at.file_uploader[1].set_value(("style.jpg", b"no picture", "image/jpeg")).run()
    assert [one.value.partition(":")[0] for one in at.error] == ["of no known format"]


def test_styles_of_a_network_are_mixed_by_sliders(page: Callable[[], AppTest], registry: str) -> None:
    published_untrained(registry, "style_net", styles=["waves", "stars"], size=64, width=8, blocks=1)
    at = upload(page(), ("a.jpg", face(1)))
    at.radio[0].set_value(REDRAW).run()
    at.selectbox[0].set_value("style_net").run()
    assert [one.label for one in at.slider][:3] == ["Share of waves", "Share of stars", "Strength"]
    (waves,) = drawn_of(at, "style_net")
    at.slider[1].set_value(100).run()
    _, mixture = drawn_of(at, "style_net")
    assert (waves.after != mixture.after).any()
    at.slider[0].set_value(0).run()
    at.slider[1].set_value(0).run()
    assert "Give one of the styles a share." in said(at)
    assert not at.exception


def test_a_painting_forms_and_is_kept(page: Callable[[], AppTest]) -> None:
    at = upload(page(), ("a.jpg", face(1)))
    at.radio[0].set_value(PAINT).run()
    at.slider[0].set_value(10).run()
    at.button[0].click().run()
    assert not at.exception
    assert not at.error
    assert isinstance(at.session_state["painted"][1], Drawn)
    assert [one.label for one in at.get("download_button")] == ["Download 1. a.png"]


def test_a_model_that_is_published_meanwhile_appears(
    page: Callable[[], AppTest], registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celebvision.app.models.LISTED_S", 0.0)
    at = page()
    at.radio[0].set_value(REDRAW).run()
    assert "sketch" in at.selectbox[0].options
    at.selectbox[0].set_value("sketch").run()
    later = published_style(registry, 2)
    promote(registry, "sketch", later.version)
    at = upload(at, ("a.jpg", face(1)))
    assert {one.model.version for one in drawn_of(at, "sketch")} == {later.version}


def test_two_visitors_do_not_see_each_others_pictures(page: Callable[[], AppTest]) -> None:
    one, other = upload(page(), ("mine.jpg", face(1))), page()
    assert "mine.jpg" in said(one)
    assert "mine.jpg" not in said(other)
    other.run()
    assert "mine.jpg" not in said(other)


def test_too_many_pictures_are_cut_off(settings: AppSettings, page: Callable[[], AppTest]) -> None:
    at = upload(page(), *((f"{number}.jpg", face(number)) for number in range(settings.max_pictures + 2)))
    assert "22 pictures: the first 20 are taken." in [one.value for one in at.warning]
    assert len(at.get("progress")) == 20


def test_what_goes_out_has_no_place_and_no_time(settings: AppSettings) -> None:
    from celebvision import images

    assert b"Exif" in face(1, exif=True)
    pixels = opened(settings, face(1, exif=True))
    for form in ("png", "jpeg"):
        assert not Image.open(io.BytesIO(images.encode(pixels, form))).getexif()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\0" * 2_000_001, "MiB; at most"),
        (b"<svg onload=alert(1)>", "of no known format"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_sentence(settings: AppSettings, data: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        opened(settings, data)


def test_each_broken_picture_that_jobs_know_is_a_sentence(settings: AppSettings) -> None:
    for name, data in messy_bucket(60, seed=3):
        if name.startswith("broken/"):
            with pytest.raises(Refused, match=r"^\w"):
                opened(settings, data)
        else:
            assert opened(settings, data).shape[2] == 3


def test_what_is_kept_for_a_visitor_stays_bounded(page: Callable[[], AppTest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celebvision.config.MIB", 1024)  # a thousandth of all bounds
    at = upload(page(), *((f"{number}.jpg", face(number)) for number in range(5)))
    at.radio[0].set_value(REDRAW).run()
    assert not at.exception
    assert len(at.get("download_button")) == 6, "each was drawn and is offered"
    assert sum(one.nbytes for one in drawn_of(at)) <= 64 * 1024


def test_weights_stay_bounded_and_two_that_want_one_load_it_once(registry: str) -> None:
    models = Models(AppSettings(registry=registry, memory_bytes=2**20))
    (cnn,) = models.classifiers()
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(models.classifier(cnn))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({id(one) for one in found}) == 1
    models.settings = AppSettings(registry=registry, memory_bytes=2**20).model_copy(update={"memory_bytes": 1})
    from celebvision.config import StyleWords

    (sketch,) = [model for model in models.stylizers() if model.name == "sketch"]
    models.redraws(sketch, StyleWords(), 64)
    assert len(models._loaded) == 1, "the least used went"


def test_before_and_after_lie_side_by_side() -> None:
    before, after = np.zeros((4, 10, 3), np.uint8), np.full((4, 10, 3), 200, np.uint8)
    drawn = Drawn("a", before, after, None)  # type: ignore[arg-type]
    shown = compared(drawn, 0.5)
    assert (shown[:, :4] == 200).all()
    assert (shown[:, 6:] == 0).all()
    assert (mixed(drawn, 0.25).after == 50).all()
    archive = zipfile.ZipFile(io.BytesIO(zipped({"a.png": b"1", "b.png": b"2"})))
    assert archive.namelist() == ["a.png", "b.png"]


def test_settings_travel_to_the_page(settings: AppSettings) -> None:
    told = settings.model_dump_json(by_alias=True)
    assert AppSettings.model_validate_json(told) == settings
    assert json.loads(told)["registry"] == settings.registry
    assert LABEL != REDRAW != PAINT
