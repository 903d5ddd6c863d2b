"""EC2's metadata service on loopback, for the tests of an interrupted spot instance."""

import json
import secrets
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

TOKEN_LIFETIME, TOKEN = "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token"


class MetadataService:
    """What the instance at `address` is told: at first that it is not interrupted, and always by tokens only."""

    def __init__(self, address: str) -> None:
        self.told = {"/latest/meta-data/local-ipv4": address}
        self.token, self.asked, self.broken = secrets.token_urlsafe(), threading.Event(), False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def environment(self) -> dict[str, str]:
        """Where to find it, as boto is told."""
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{self.server.server_port}/"}

    def recommend_rebalance(self) -> None:
        """As EC2 does for hours, of instances that then live on."""
        self.told["/latest/meta-data/events/recommendations/rebalance"] = json.dumps({"noticeTime": _in(0)})

    def interrupt(self, in_s: float = 120) -> None:
        self.told["/latest/meta-data/spot/instance-action"] = json.dumps({"action": "terminate", "time": _in(in_s)})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                asked_right = self.path == "/latest/api/token" and int(self.headers[TOKEN_LIFETIME]) > 0
                self._answer(200 if asked_right else 400, service.token)

            def do_GET(self) -> None:
                if self.path.endswith("instance-action"):
                    service.asked.set()
                if self.headers[TOKEN] != service.token:
                    self._answer(401, "")
                else:
                    self._answer(200 if self.path in service.told else 404, service.told.get(self.path, ""))

            def _answer(self, status: int, words: str) -> None:
                self.send_response(503 if service.broken else status)
                self.send_header("Content-Length", str(len(words)))
                self.end_headers()
                self.wfile.write(words.encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
