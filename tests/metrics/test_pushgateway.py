"""What is left at a Pushgateway, and that one which takes nothing harms nobody."""

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from celebvision.config import WatchedSettings
from celebvision.metrics import Figures, job, names, push, telling


@contextmanager
def gateway(status: int, words: bytes = b"") -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Its URL, and method, path and body of what it was sent."""
    seen: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            seen.append((self.command, self.path, body))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(words)

        def log_message(self, *args: Any, **words: Any) -> None:
            """Nothing: the tests look at what was sent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def figures() -> Figures:
    told = Figures("classify", "cnn", "s3://bucket/labels")
    told.set(names.DRIFT, 0.5, distribution="brightness")
    told.set(names.RATE, 12.5)
    told.add(names.FAILURES, 3, stage="decode", reason="UndecodableImage")
    told.observe(names.STAGE_SECONDS, [0.02, 0.02, 400.0], stage="infer")
    return told


def test_figures_arrive_as_they_are_in_the_group_of_their_job() -> None:
    told = figures()
    with gateway(200) as (url, seen):
        assert push(url, told) == ""
    ((method, path, body),) = seen
    output = base64.urlsafe_b64encode(b"s3://bucket/labels").decode()
    assert (method, path.split("/")[:4]) == ("PUT", ["", "metrics", "job", "celebvision"])
    assert set(zip(*[iter(path.split("/")[4:])] * 2, strict=True)) == {
        ("model", "cnn"),
        ("verb", "classify"),
        ("output@base64", output),
    }
    families = {family.name: family for family in text_string_to_metric_families(body)}
    assert {name: family.type for name, family in families.items()} == {
        metric.name: metric.kind for metric in (names.DRIFT, names.RATE, names.FAILURES, names.STAGE_SECONDS)
    }
    samples = [one for family in families.values() for one in family.samples]
    shown = {(one.name, *sorted(one.labels.items())): one.value for one in samples}
    assert shown["celebvision_drift_psi", ("distribution", "brightness")] == 0.5
    assert shown["celebvision_images_per_second",] == 12.5
    assert shown["celebvision_failures_total", ("reason", "UndecodableImage"), ("stage", "decode")] == 3
    for bound, count in (("0.01", 0), ("0.025", 2), ("300.0", 2), ("+Inf", 3)):
        assert shown["celebvision_stage_seconds_bucket", ("le", bound), ("stage", "infer")] == count
    assert shown["celebvision_stage_seconds_sum", ("stage", "infer")] == pytest.approx(400.04)


def test_a_gateway_that_refuses_is_told_of_in_its_own_words() -> None:
    with gateway(400, b"pushed metrics are invalid") as (url, _):
        assert push(url, figures()) == f"pushgateway: {url} did not take the job's figures: pushed metrics are invalid"


def test_a_gateway_that_is_not_there_costs_a_job_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with gateway(200) as (url, _):
        pass
    with telling(WatchedSettings(pushgateway=url), figures(), "/labels/runs/one"):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: pushgateway: {url} did not take the job's figures: ")
    assert "Connection refused" in line


@pytest.mark.parametrize(
    ("raised", "state"), [(None, "done"), (ValueError, "failed"), (KeyboardInterrupt, "interrupted")]
)
def test_a_job_is_seen_at_work_and_then_as_it_ended(
    raised: type[BaseException] | None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "SEND_S", 0.05)
    with gateway(200) as (url, seen):
        try:
            with telling(WatchedSettings(pushgateway=url), figures(), "/labels/runs/one") as told:
                told.done(1, 10)
                pushed = len(seen)
                while len(seen) < pushed + 2:  # again and again
                    time.sleep(0.01)
                if raised:
                    raise raised
        except (ValueError, KeyboardInterrupt):
            pass
    states = [one_of(body) for _, _, body in seen]
    assert states == ["running"] * (len(seen) - 1) + [state]


def one_of(body: str) -> str:
    """The state whose gauge is 1."""
    samples = [one for family in text_string_to_metric_families(body) for one in family.samples]
    (state,) = [one.labels["state"] for one in samples if one.name == names.STATE.name and one.value]
    return str(state)
