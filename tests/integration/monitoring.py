"""A Pushgateway, and a Prometheus that scrapes it each second, on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest

NEEDED = ("prometheus", "prometheus-pushgateway")
READY_S = 30


@dataclass(frozen=True)
class Monitoring:
    """Their URLs."""

    pushgateway: str
    prometheus: str


@contextmanager
def services_in(folder: Path, port: int) -> Iterator[Monitoring]:
    """Both, on `port` and the one behind it, until the block ends; their files and log are in the folder."""
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        pytest.fail(f"no {', '.join(missing)} here: apt-get install --no-install-recommends {' '.join(NEEDED)}")
    gateway, prometheus = f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"
    scraped = {"job_name": "pushgateway", "honor_labels": True, "static_configs": [{"targets": [gateway]}]}
    settings = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scraped]}
    (folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    commands = {
        # Debian's gateway would keep what it was sent in a file of the system's, for the next one to begin with.
        gateway: ["prometheus-pushgateway", f"--web.listen-address={gateway}", "--persistence.file="],
        prometheus: ["prometheus", f"--web.listen-address={prometheus}", *words],
    }
    with ExitStack() as services:
        log = services.enter_context((folder / "log").open("wb"))
        for command in commands.values():
            process = services.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
            services.callback(process.terminate)
        for address in commands:
            _wait_until_ready(f"http://{address}/-/ready", folder / "log")
        yield Monitoring(f"http://{gateway}", f"http://{prometheus}")


def _wait_until_ready(url: str, log: Path) -> None:
    last = time.monotonic() + READY_S
    while True:
        try:
            with urlopen(url, timeout=READY_S):
                return
        except OSError as error:
            if time.monotonic() > last:
                pytest.fail(f"{url}: {error}; {log.read_text()}")
        time.sleep(0.1)
