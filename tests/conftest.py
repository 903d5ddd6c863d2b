"""What the tests stand on: S3 in this process, one small Ray cluster, and the test data where there is some."""

import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from celebvision.storage.client import client, forget_client

OTHER_SETTINGS = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_CA_BUNDLE",
    "HTTP_PROXY",
    "http_proxy",
)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of an S3 service in this process; it checks no credentials. The whole session's environment names it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # os.environ and no monkeypatch: Ray's workers inherit what stands there when the cluster starts
    before = dict(os.environ)
    for name in OTHER_SETTINGS:
        os.environ.pop(name, None)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testaccess",
        "AWS_SECRET_ACCESS_KEY": "testsecret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    forget_client()
    yield os.environ["AWS_ENDPOINT_URL"]
    server.stop()
    os.environ.clear()
    os.environ |= before
    forget_client()


@pytest.fixture
def bucket(s3_endpoint: str) -> str:
    """The URI of a new, empty bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    client().create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real pictures that some tests measure on."""
    if not (folder := os.environ.get("CELEBVISION_TEST_DATA")):
        pytest.skip("CELEBVISION_TEST_DATA is not set: it names the folder with the real test data")
    return Path(folder)


@pytest.fixture(scope="session")
def ray_cluster(s3_endpoint: str) -> Iterator[None]:
    """Ray with two CPUs on this machine, its workers pointed at `s3_endpoint`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's own advice, else it warns
    import ray

    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=500 << 20,
        log_to_driver=False,
        logging_level=logging.WARNING,
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()
