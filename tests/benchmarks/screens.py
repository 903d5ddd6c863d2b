"""Pictures of each screen of the upload page, on a desk and on a phone, with faces that are drawn by code.

    python -m tests.benchmarks.screens REGISTRY VGG16_WEIGHTS docs/app

REGISTRY has a classifier and a `style_net` in production; VGG16_WEIGHTS is a safetensors file.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import Page, sync_playwright

SIZES = {
    "desk": {"width": 1000, "height": 1500},
    "phone": {"width": 390, "height": 1500},
}  # the page scrolls within itself
WAIT_MS = 120_000
SETTLED_MS = 2000


@contextmanager
def served(registry: str, weights: str) -> Iterator[str]:
    """The page's address until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("celebvision")), "app", "--registry", registry, f"--port={port}"]
    with subprocess.Popen([*command, "--weights", weights, "--arch", "vgg16"]) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(120):
                try:
                    urlopen(f"{url}/_stcore/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield url
        finally:
            process.terminate()


def shoot(page: Page, path: Path) -> None:
    page.wait_for_timeout(SETTLED_MS)
    page.screenshot(path=path)


def screens(page: Page, url: str, folder: Path, size: str) -> None:
    """Each screen in turn, as a first-time visitor comes by it."""
    page.set_default_timeout(WAIT_MS)
    page.goto(url)
    page.get_by_text("Take four drawn faces instead").click()
    page.get_by_text("Male:").first.wait_for()
    shoot(page, folder / f"label-{size}.png")
    page.get_by_text("Redraw them in a style").click()
    page.get_by_role("combobox", name="Style").click()
    page.get_by_text("style_net", exact=True).click()
    page.get_by_text("Share of").first.wait_for()
    page.get_by_role("button", name="Download all").wait_for()
    shoot(page, folder / f"redraw-{size}.png")
    page.get_by_text("Paint one, and watch").click()
    page.get_by_role("button", name="Paint", exact=True).click()
    page.get_by_text("as it forms").wait_for()
    page.wait_for_timeout(5 * SETTLED_MS)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("as far as it came", exact=True).wait_for()
    shoot(page, folder / f"paint-{size}.png")


if __name__ == "__main__":
    place = Path(sys.argv[3])
    place.mkdir(parents=True, exist_ok=True)
    with served(sys.argv[1], sys.argv[2]) as address, sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        for name, viewport in SIZES.items():
            screens(browser.new_page(viewport=viewport), address, place, name)  # type: ignore[arg-type]
        browser.close()
