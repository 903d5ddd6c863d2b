"""A real browser on the page, as its visitors use it, and on a report."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from conftest import free_ports
from faults.command import BIN, Marked, wait_until
from labelling import published, published_style
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from celebvision.cli import main
from celebvision.models.vgg import VGG
from celebvision.registry import promote
from celebvision.training.files import CONFIG, HISTORY

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
WAIT_S = 90
# Words of the page with the ratio of their luminance to what is behind them, where it is too small.
CONTRASTS = """() => {
  const channels = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
  const over = (top, under) => [0, 1, 2].map(i => top[i] * (top[3] ?? 1) + under[i] * (1 - (top[3] ?? 1)));
  const light = colour => colour.map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift(channels(getComputedStyle(at).backgroundColor));
    return layers.reduce((under, layer) => over(layer, under), [255, 255, 255]);
  };
  const found = [];
  for (const element of document.querySelectorAll("main *, [data-testid=stApp] *")) {
    const words = [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data.trim()).join(" ");
    const box = element.getBoundingClientRect();
    if (!words.trim() || !box.width || !box.height || getComputedStyle(element).visibility === "hidden") continue;
    const thumb = element.closest("[data-testid=stSliderThumbValue]");  // its words stand above it, and not on it
    const style = getComputedStyle(element), under = behind(thumb ? thumb.closest("[data-testid=stSlider]") : element);
    const [one, other] = [light(over(channels(style.color), under)), light(under)].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05), large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) found.push([words.slice(0, 60), Math.round(100 * ratio) / 100]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not (chromium := shutil.which("chromium")):
        pytest.fail("no chromium here: apt-get install --no-install-recommends chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the command serves the page, over small networks."""
    folder, port = tmp_path_factory.mktemp("app"), free_ports(2)
    models, vgg = str(folder / "models"), str(folder / "vgg16.safetensors")
    promote(models, "cnn", published(models, 1).version)
    promote(models, "sketch", published_style(models, 1).version)
    safetensors.torch.save_file(VGG("vgg16", ["conv5_2"]).state_dict(), vgg)
    words = [str(BIN / "celebvision"), "app", "--registry", models, f"--port={port}", f"--metrics_port={port + 1}"]
    with Marked([*words, "--weights", vgg, "--arch", "vgg16"], folder / "command", {}) as command:
        wait_until(lambda: "You can now view" in command.stdout or command.ended(), "the page did not come", WAIT_S)
        assert not command.ended(), command.stderr
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, pixels = tmp_path_factory.mktemp("faces"), np.random.default_rng(1).integers(0, 256, (2, 6, 5, 3), np.uint8)
    for number, one in enumerate(pixels):
        Image.fromarray(one).resize((178, 218)).save(folder / f"face{number}.jpg")
    (folder / "broken.jpg").write_bytes((folder / "face0.jpg").read_bytes()[:-900])
    return sorted(folder.iterdir())


def visit(browser: Browser, url: str, size: dict[str, int] = DESK) -> Page:
    page = browser.new_context(viewport=size, accept_downloads=True).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(1000 * WAIT_S)
    page.goto(url)
    page.get_by_text("What shall be done?").wait_for()
    return page


def upload(page: Page, files: list[Path]) -> None:
    page.locator("input[type=file]").first.set_input_files(files)


def assert_fits(page: Page) -> None:
    """Nothing is wider than the window, and every picture has words for who cannot see it."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("[...document.images].every(image => image.alt)")


def test_a_visitor_has_pictures_labelled_redrawn_and_downloaded(browser: Browser, url: str, faces: list[Path]) -> None:
    page = visit(browser, url)
    upload(page, faces)
    expect(page.get_by_text("cnn: Male:")).to_have_count(2, timeout=1000 * WAIT_S)
    expect(page.get_by_text("not a whole JPEG")).to_be_visible()
    page.get_by_text("Redraw them in a style").click()
    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Download all").click()
    content = Path(downloaded.value.path()).read_bytes()
    assert content.startswith(b"PK")
    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Download 2. face0.png").click()
    drawn = Image.open(io.BytesIO(Path(downloaded.value.path()).read_bytes()))
    assert drawn.size == (178, 218)
    assert not drawn.getexif()
    assert "Traceback" not in page.content()
    page.context.close()


def test_it_can_be_used_by_keyboard_alone_and_read_by_weak_eyes(browser: Browser, url: str) -> None:
    page = visit(browser, url, PHONE)
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.type || document.activeElement.tagName"))
        if reached[-1] == "checkbox":
            page.keyboard.press("Space")
            break
    page.get_by_text("cnn: Male:").nth(3).wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Download all").wait_for()
    faint = page.evaluate(CONTRASTS)
    assert not faint, "text that stands out too little (WCAG AA: 4.5, large 3)"
    page.context.close()


def test_a_painting_is_watched_and_stopped_half_way(browser: Browser, url: str, faces: list[Path]) -> None:
    page = visit(browser, url)
    upload(page, faces[1:2])
    page.get_by_text("Paint one, and watch").click()
    page.get_by_role("button", name="Paint", exact=True).click()
    page.get_by_text("as it forms").wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("as far as it came", exact=True).wait_for()
    expect(page.get_by_text("as it forms")).to_have_count(0)
    expect(page.get_by_role("button", name="Download 1. face0.png")).to_be_visible()
    # The place that it had is free again.
    page.get_by_text("Say what is in them").click()
    page.get_by_text("cnn: Male:").wait_for()
    page.context.close()


def test_ten_visitors_at_once_all_get_their_answer_on_a_phone(browser: Browser, url: str, faces: list[Path]) -> None:
    pages = [visit(browser, url, PHONE) for _ in range(10)]
    for page in pages:
        upload(page, faces[1:])
    for page in pages:
        expect(page.get_by_text("cnn: Male:")).to_have_count(2, timeout=1000 * WAIT_S)
        assert_fits(page)
        page.context.close()


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_report_is_one_page_that_fits_and_asks_for_nothing(
    browser: Browser, tmp_path: Path, size: dict[str, int]
) -> None:
    import pandas as pd

    rows = pd.DataFrame({"epoch": range(5), "loss": 1.0, "images_per_s": 9.0, "wait_share": 0.1, "epoch_s": 5.0})
    content = io.BytesIO()
    rows.assign(workers=2).to_parquet(content)
    (tmp_path / HISTORY).write_bytes(content.getvalue())
    (tmp_path / CONFIG).write_text('{"data": "<script>document.title = 1</script>' + 300 * "k" + '"}')
    assert main(["report", "--run", str(tmp_path)]) == 0
    page = browser.new_context(viewport=size).new_page()  # type: ignore[arg-type]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{tmp_path}/report.html")
    assert page.title().startswith("Training of ")
    assert [one for one in asked if not one.startswith("data:")] == [f"file://{tmp_path}/report.html"]
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert_fits(page)
    page.context.close()


def test_the_page_is_there_soon_and_its_metrics_too(browser: Browser, url: str) -> None:
    began = time.monotonic()
    page = visit(browser, url)
    assert time.monotonic() - began < 10
    page.context.close()
    host, _, port = url.rpartition(":")
    told = browser.new_page()
    told.goto(f"{host}:{int(port) + 1}/metrics")
    assert "celebvision_page_queue 0.0" in told.content()
    told.close()
