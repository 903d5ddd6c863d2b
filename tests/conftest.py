"""What the tests stand on: S3 in this process, one small Ray cluster, and the test data where there is some."""

import logging
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from celebvision.storage.client import client, forget_client

OTHER_SETTINGS = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL_S3")


@contextmanager
def environment_for(endpoint: str) -> Iterator[str]:
    """Let the AWS variables of this process, and of those it starts, name `endpoint` and nothing else."""
    before = dict(os.environ)
    for name in OTHER_SETTINGS:
        os.environ.pop(name, None)
    os.environ |= {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testaccess",
        "AWS_SECRET_ACCESS_KEY": "testsecret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    forget_client()
    yield endpoint
    os.environ.clear()
    os.environ |= before
    forget_client()


@pytest.fixture(scope="session", autouse=True)
def heard_ctrl_c() -> None:
    """Ctrl-C counts here, also where a script began the tests with `&`, which ignores it; several tests press it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def s3_environment() -> Callable[[str], AbstractContextManager[str]]:
    """`environment_for`, for the services of `integration/`."""
    return environment_for


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of an S3 service in this process, which checks no credentials; the session's environment names it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else one line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with environment_for(f"http://{host}:{port}") as endpoint:
        yield endpoint
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str) -> str:
    """The URI of a new, empty bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    client().create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def odd_keys() -> list[str]:
    """Names that objects in a bucket may have, whatever a URL or a file system makes of them."""
    return [
        " ",
        "&<>\"'",
        "../up.jpg",
        "./here.jpg",
        "//twice//",
        "/lead.jpg",
        "a b.jpg",
        "a%2Fb%.jpg",
        "a+b.jpg",
        "a/../b.jpg",
        "a\tb\x01.jpg",
        "a#b?c=d&e.jpg",
        "folder/",
        "k" * 1024,
        "ü/é.jpg",
        "\uffee.jpg",
        "😀.jpg",
    ]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real pictures that some tests measure on."""
    if not (folder := os.environ.get("CELEBVISION_TEST_DATA")):
        pytest.skip("CELEBVISION_TEST_DATA is not set: it names the folder with the real test data")
    return Path(folder)


@pytest.fixture(scope="session")
def ray_cluster(s3_endpoint: str) -> Iterator[None]:
    """Ray with two CPUs on this machine, its workers pointed at `s3_endpoint`."""
    import ray

    from celebvision import ray_session

    ray_session.start(num_cpus=2)
    yield
    ray.shutdown()
