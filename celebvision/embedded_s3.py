"""S3 in this process, for the demo and for the tests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


@contextmanager
def embedded_s3() -> Iterator[str]:
    """The URL of an S3 service on loopback that checks no credentials; its buckets last until the block ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell every request
    # S3 alone: to find out which of AWS's services is meant takes moto a fifth of each request.
    server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True, request_handler=MotoRequestHandler)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
