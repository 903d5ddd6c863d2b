"""What is left at a Pushgateway, and that one which takes nothing harms nobody."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from celebvision.metrics import push_drift

PSI = {"brightness": 0.5, "width": 0.0}


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


def test_a_run_replaces_the_figures_of_the_model_on_that_output() -> None:
    with gateway(200) as (url, seen):
        push_drift(url, PSI, output="s3://bucket/labels", model="cnn")
    ((method, path, body),) = seen
    output = base64.urlsafe_b64encode(b"s3://bucket/labels").decode()
    assert (method, path) == ("PUT", f"/metrics/job/celebvision/model/cnn/output@base64/{output}")
    (family,) = text_string_to_metric_families(body)
    assert (family.name, family.type) == ("celebvision_drift_psi", "gauge")
    assert {sample.labels["distribution"]: sample.value for sample in family.samples} == PSI
    assert all(sample.labels.keys() == {"distribution"} for sample in family.samples)


def test_a_gateway_that_refuses_is_warned_of_in_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    with gateway(400, b"pushed metrics are invalid") as (url, _):
        push_drift(url, PSI, output="s3://bucket/labels", model="cnn")
    told = capsys.readouterr().err
    assert told == f"pushgateway: {url} did not take the drift, which run.json keeps: pushed metrics are invalid\n"


def test_a_gateway_that_is_not_there_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    with gateway(200) as (url, _):
        pass
    push_drift(url, PSI, output="s3://bucket/labels", model="cnn")
    assert "Connection refused" in capsys.readouterr().err
