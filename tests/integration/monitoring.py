"""Pushgateway, Prometheus and Alertmanager on loopback, by the files that users are given, and a webhook."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

GIVEN = Path(__file__).parents[2] / "cluster" / "monitoring"
NEEDED = ("prometheus", "prometheus-pushgateway", "prometheus-alertmanager")
PORTS = 4
READY_S = 30
STILL_S = 60  # what NoProgress waits for here: longer than a start takes on a machine that also does other things


@dataclass(frozen=True)
class Monitoring:
    """URLs of the first two, what has come to the webhook, and where Ray's list of nodes is looked for."""

    pushgateway: str
    prometheus: str
    told: list[dict[str, Any]]
    nodes: Path

    def series(self, query: str) -> list[dict[str, Any]]:
        """What an instant query finds: labels under `metric`, and `value` with its time."""
        with urlopen(f"{self.prometheus}/api/v1/query?{urlencode({'query': query})}", timeout=READY_S) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def value(self, query: str) -> float | None:
        """Of a query that finds one series at most."""
        found = self.series(query)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None


@contextmanager
def services_in(folder: Path, port: int) -> Iterator[Monitoring]:
    """All of them, on `port` and those behind it, until the block ends; their files and log are in the folder."""
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        pytest.fail(f"no {', '.join(missing)} here: apt-get install --no-install-recommends {' '.join(NEEDED)}")
    gateway, prometheus, alertmanager, webhook = (f"127.0.0.1:{port + place}" for place in range(PORTS))
    places = {
        "127.0.0.1:9091": gateway,
        "127.0.0.1:9090": prometheus,
        "127.0.0.1:9093": alertmanager,
        "/tmp/ray/": f"{folder}/",
        "/etc/alertmanager/": f"{folder}/",
        "> 600": f"> {STILL_S}",
    }
    for path in GIVEN.rglob("*.yml"):
        if path.parent.name in ("monitoring", "rules"):
            _write(_quick(yaml.safe_load(_replaced(path.read_text(), places))), folder / path.relative_to(GIVEN))
    shutil.copytree(GIVEN / "templates", folder / "templates")
    (folder / "webhook_url").write_text(f"http://{webhook}/")
    commands = {
        # Debian's gateway would keep what it was sent in a file of the system's, for the next one to begin with.
        gateway: ["prometheus-pushgateway", "--persistence.file="],
        prometheus: ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"],
        alertmanager: [
            "prometheus-alertmanager",
            f"--config.file={folder}/alertmanager.yml",
            f"--storage.path={folder}/told",
            "--cluster.listen-address=",
        ],
    }
    with ExitStack() as services, _Webhook(port + PORTS - 1) as told:
        log = services.enter_context((folder / "log").open("wb"))
        for address, command in commands.items():
            words = [*command, f"--web.listen-address={address}"]
            process = services.enter_context(subprocess.Popen(words, stdout=log, stderr=log))
            services.callback(process.terminate)
        for address in commands:
            _wait_until_ready(f"http://{address}/-/ready", folder / "log")
        nodes = folder / "prom_metrics_service_discovery.json"
        yield Monitoring(f"http://{gateway}", f"http://{prometheus}", told.bodies, nodes)


def _replaced(text: str, places: dict[str, str]) -> str:
    for given, here in places.items():
        text = text.replace(given, here)
    return text


def _quick(settings: Any) -> Any:
    """The same, looking each second, and waiting no longer before it tells.

    Ray's nodes are looked at as often as users' are: who had to answer within a second would be lost on a busy machine.
    """
    waits = {"scrape_interval": "1s", "evaluation_interval": "1s", "group_wait": "0s", "group_interval": "1s"}
    if isinstance(settings, dict):
        kept = {"scrape_interval"} if settings.get("job_name") == "ray" else set()
        return {name: value if name in kept else waits.get(name, _quick(value)) for name, value in settings.items()}
    return [_quick(value) for value in settings] if isinstance(settings, list) else settings


def _write(settings: Any, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(settings))  # JSON is YAML


class _Webhook:
    """Takes what is posted to it."""

    def __init__(self, port: int) -> None:
        bodies: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the overridden one's name)
                pass

        self.bodies = bodies
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


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
