"""`top` shows what records and metrics say, and goes on when one of them cannot be had."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from celebvision import logs
from celebvision.batch.record import Run, now
from celebvision.cli import main
from celebvision.metrics import Figures, names
from celebvision.metrics.pushgateway import _Collected
from celebvision.storage import open_store
from celebvision.top.jobs import of_metrics

OF_RAY = {
    "Component": "core_worker",
    "NodeAddress": "10.0.0.7",
    "SessionName": "s",
    "Version": "2.60.0",
    "WorkerId": "0a",
}


def at_work(output: str, model: str = "cnn") -> Figures:
    """Of a job that has done 300 of 1,000 images, will miss its deadline, and mostly decodes."""
    figures = Figures("classify", model, output)
    figures.set_one(names.STATE, "running")
    figures.set(names.STARTED, time.time() - 100)
    figures.set(names.MOVED, time.time() - 90)
    figures.set(names.ENDED, 0)
    figures.set(names.DEADLINE, time.time() + 60)
    figures.set(names.INVENTORY, 1000)
    figures.add(names.IMAGES, 290, stage="write", outcome="ok")
    figures.add(names.FAILURES, 10, stage="decode", reason="UndecodableImage")
    figures.set(names.RATE, 2.5)
    figures.set(names.ETA, 280)
    figures.set(names.COST, 1.234)
    figures.set(names.BUSY, 0.25)
    figures.set(names.QUEUE, 7)
    figures.set(names.WORKERS, 2)
    figures.observe(names.STAGE_SECONDS, [3.0, 3.0], stage="decode")
    figures.observe(names.STAGE_SECONDS, [2.0], stage="infer")
    return figures


def in_training() -> Figures:
    figures = Figures("train", "cyclegan", "/models")
    figures.set_one(names.STATE, "running")
    figures.set(names.STARTED, time.time() - 500)
    figures.set(names.ENDED, 0)
    figures.set(names.EPOCH, 3)
    figures.set(names.EPOCHS, 20)
    figures.set(names.LOSS, 0.25, loss="cycle")
    figures.set(names.LOSS, float("nan"), loss="generator")
    figures.set(names.VALIDATION, 0.125, figure="kid")
    figures.set(names.WARNINGS, 2)
    return figures


def as_text(*jobs: Figures) -> str:
    """As a Pushgateway shows them: each with its labels."""
    lines = []
    for job in jobs:
        registry = CollectorRegistry()
        registry.register(_Collected(job))  # type: ignore[arg-type]
        labels = ",".join(f'{name}="{value}"' for name, value in {"job": "celebvision", **job.job}.items())
        for line in generate_latest(registry).decode().splitlines():
            name, _, value = line.rpartition(" ")
            own = f"{name[:-1]}," if name.endswith("}") else f"{name}{{"
            lines.append(line if line.startswith("#") else f"{own}{labels}}} {value}")
    return "\n".join(line for line in lines if not line.startswith("#")) + "\n"


def by_ray(*jobs: Figures) -> str:
    """As a Ray node shows them."""
    return re.sub(r"^(celebvision_\w+\{)", 'ray_\\1WorkerId="0a",', as_text(*jobs), flags=re.MULTILINE)


def as_prometheus(*jobs: Figures) -> str:
    """As a Prometheus that scrapes Ray answers an instant query."""
    result = []
    for job in jobs:
        for sample in job.samples():
            if not isinstance(sample.value, float | int):
                continue
            labels = {"__name__": sample.metric.exported, "instance": "10.0.0.7:8080", **OF_RAY, **sample.labels}
            result.append({"metric": labels, "value": [time.time(), str(sample.value)]})
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


@pytest.fixture
def serve() -> Iterator[Callable[[dict[str, str]], str]]:
    """Serves texts by path on loopback, and nothing else; gives the URL."""
    servers = []

    def started(texts: dict[str, str]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = texts.get(urlsplit(self.path).path)
                if text is not None and "/query" in self.path:
                    assert parse_qs(urlsplit(self.path).query)["query"] == ['{__name__=~"(ray_)?celebvision_.*"}']
                self.send_response(404 if text is None else 200)
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the overridden one's name)
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield started
    for server in servers:
        server.shutdown()
        server.server_close()


def recorded(output: Path, figures: Figures, state: Any = "done", run_id: str = "20260131T070000Z-0a1b2c3d") -> Run:
    run = Run(run_id, "classify", state, now(), {}, {"name": "cnn", "version": "v1"}, "1", figures=figures.numbers())
    run.save(open_store(str(output)))
    return run


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["top", *words]) == 0
    return capsys.readouterr().out


def test_a_pushgateway_shows_jobs_that_run_first(
    serve: Callable[[dict[str, str]], str], capsys: pytest.CaptureFixture[str]
) -> None:
    ended = at_work("/other", model="inception_v3")
    ended.set(names.ENDED, time.time())
    ended.set_one(names.STATE, "failed")
    url = serve({"/metrics": as_text(ended, in_training(), at_work("/labels"))})
    lines = shown(capsys, "--metrics", url).splitlines()
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["classify", "cnn", "running"],
        ["train", "cyclegan", "running"],
        ["classify", "inception_v3", "failed"],
    ]
    assert re.search(r"300 of 1,000 +2\.5 +4 min 40 s, 3 min 40 s late +10 +1\.23 USD", lines[1])
    assert "3 of 20" in lines[2]
    assert lines[5:] == [
        "classify cnn to /labels",
        "  nothing has moved for 1 min 30 s",
        "  time of workers: decode 75%, infer 25%; the network computes 25% of it",
        "  7 shards wait, 2 workers",
        "  failed: UndecodableImage 10",
        "train cyclegan to /models",
        "  losses: cycle 0.25, generator nan",
        "  validation: kid 0.125",
        "  2 warnings in the last epoch: its log says what looked wrong",
    ]


def test_what_ray_and_the_pushgateway_both_show_is_one_job(
    serve: Callable[[dict[str, str]], str], capsys: pytest.CaptureFixture[str]
) -> None:
    figures = at_work("/labels")
    text, of_ray = as_text(figures), by_ray(figures).replace("} 290", "} 310")
    assert "320 of 1,000" in shown(capsys, "--metrics", serve({"/metrics": text + of_ray}))


def test_at_its_end_a_jobs_figures_are_those_it_left(serve: Callable[[dict[str, str]], str]) -> None:
    before, after = at_work("/labels"), at_work("/labels")
    after.set_one(names.STATE, "done")
    for metric, value in ((names.ENDED, time.time()), (names.ETA, 0.0), (names.RATE, 2.0), (names.COST, 2.0)):
        after.set(metric, value)
    for text in (by_ray(before) + as_text(after), as_text(after) + by_ray(before)):
        (job,) = of_metrics(serve({"/metrics": text}))
        assert job.figures == of_metrics(serve({"/metrics": as_text(after)}))[0].figures
        assert [job.value(metric) for metric in (names.ETA, names.RATE, names.COST)] == [0.0, 2.0, 2.0]
        assert (job.state, job.value(names.STATE, state="running")) == ("done", 0.0)


def test_what_a_run_before_has_left_is_not_of_the_one_that_runs(serve: Callable[[dict[str, str]], str]) -> None:
    before, now = at_work("/labels"), at_work("/labels")
    before.set(names.STARTED, time.time() - 5000)
    before.set(names.ENDED, time.time() - 4000)
    before.set(names.DRIFT, 0.3, distribution="brightness")
    (job,) = of_metrics(serve({"/metrics": by_ray(now) + as_text(before)}))
    assert job.state == "running"
    assert job.figures == of_metrics(serve({"/metrics": by_ray(now)}))[0].figures


@pytest.mark.parametrize("ray_first", [True, False])
def test_sums_of_histograms_are_the_exact_ones(
    serve: Callable[[dict[str, str]], str], capsys: pytest.CaptureFixture[str], ray_first: bool
) -> None:
    figures = at_work("/labels")
    text, of_ray = as_text(figures), by_ray(figures).replace("} 6.0", "} 7.5")
    both = of_ray + text if ray_first else text + of_ray
    for shown, wanted in ((both, 6.0), (of_ray, 7.5)):
        assert main(["top", "--metrics", serve({"/metrics": shown}), "--json"]) == 0
        (job,) = json.loads(capsys.readouterr().out)["jobs"]
        assert job["figures"]['celebvision_stage_seconds_sum{stage="decode"}'] == wanted


def test_prometheus_and_records_say_the_same_of_a_job_and_it_is_shown_once(
    serve: Callable[[dict[str, str]], str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    figures = at_work(str(tmp_path))
    recorded(tmp_path, figures, "running")
    figures.add(names.IMAGES, 100, stage="write", outcome="ok")
    url = serve({"/api/v1/query": as_prometheus(figures)})
    assert main(["top", "--metrics", url, "--output", str(tmp_path), "--json"]) == 0
    (job,) = json.loads(capsys.readouterr().out)["jobs"]
    assert job["figures"]['celebvision_images_total{outcome="ok",stage="write"}'] == 390
    assert job["figures"]['celebvision_stage_seconds_sum{stage="decode"}'] == 6, "what only the record says stays"
    assert job["state"] == "stopped", "nobody holds the lease"


def test_an_endpoint_that_is_gone_costs_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recorded(tmp_path, at_work(str(tmp_path)))
    lines = shown(capsys, "--metrics", "http://127.0.0.1:9", "--output", str(tmp_path)).splitlines()
    assert lines[1].startswith("classify cnn")
    assert lines[-1].startswith("http://127.0.0.1:9: ")
    assert main(["top", "--metrics", "http://127.0.0.1:9"]) == 1
    assert "http://127.0.0.1:9: " in capsys.readouterr().err
    assert main(["top", "--output", str(tmp_path / "none")]) == 1
    assert "no job was found there" in capsys.readouterr().err
    assert main(["top"]) == 2


def test_what_is_no_exposition_is_said(
    serve: Callable[[dict[str, str]], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "--metrics", serve({"/metrics": "<html>\x1b[31m"})]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_a_name_moves_no_cursor(serve: Callable[[dict[str, str]], str], capsys: pytest.CaptureFixture[str]) -> None:
    told = shown(capsys, "--metrics", serve({"/metrics": as_text(at_work("/la\x1b[2Jbels[bold]"))}))
    assert r"classify cnn to /la\x1b[2Jbels[bold]" in told


def test_in_a_terminal_it_follows_until_ctrl_c(tmp_path: Path) -> None:
    figures = at_work(str(tmp_path))
    recorded(tmp_path, figures)
    ours, its = pty.openpty()
    words = [str(Path(sys.executable).with_name("celebvision")), "top", "--output", str(tmp_path), "--every_s", "0.2"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    process = subprocess.Popen(["env", "--default-signal=INT", *words], stdout=its, stderr=its, env=environment)
    os.close(its)
    screen = ""

    def until(words: str) -> None:
        nonlocal screen
        last = time.monotonic() + 60
        while words not in screen:
            assert time.monotonic() < last, screen
            screen += os.read(ours, 65536).decode()

    try:
        until("300 of 1,000")
        figures.add(names.IMAGES, 50, stage="write", outcome="ok")
        recorded(tmp_path, figures)
        until("350 of 1,000")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_durations_are_as_people_say_them() -> None:
    assert [logs.duration(seconds) for seconds in (0.4, 59.6, 125, 3600, 93_784)] == [
        "0 s",
        "1 min 00 s",
        "2 min 05 s",
        "1 h 00 min",
        "26 h 03 min",
    ]
