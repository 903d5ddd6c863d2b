"""An audit of a lock beside an advisory database of this process."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import audit
import pytest

KNOWN = {
    "id": "PYSEC-2020-1",
    "modified": "2020-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "bad", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}


@pytest.fixture
def database() -> Iterator[list[str]]:
    """Words for pip-audit that name one which knows of a vulnerability in `bad`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = {"vulns": [KNOWN]} if asked["package"]["name"] == "bad" else {}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(known).encode())

        def log_message(self, *args: Any, **words: Any) -> None:
            """Nothing: the tests look at what was told."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield ["--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{server.server_port}/v1/query"]
    server.shutdown()
    thread.join()
    server.server_close()


def lock(folder: Path, *packages: str) -> Path:
    path = folder / "requirements.lock"
    path.write_text("".join(f"{package}==1.0 --hash=sha256:{'0' * 64}\n" for package in packages))
    return path


def test_a_vulnerable_package_fails_the_audit(
    tmp_path: Path, database: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main(lock(tmp_path, "bad", "good"), database) == 1
    told = capsys.readouterr()
    assert "audit: bad 1.0: PYSEC-2020-1, mended in 1.1" in told.err
    assert "2 of 2 packages looked up, 1 vulnerabilities" in told.out


def test_others_pass(tmp_path: Path, database: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(lock(tmp_path, "good"), database) == 0
    assert "1 of 1 packages looked up, 0 vulnerabilities" in capsys.readouterr().out


def test_an_audit_that_could_not_begin_is_no_success(tmp_path: Path) -> None:
    assert audit.main(tmp_path / "nowhere.lock") == 1
