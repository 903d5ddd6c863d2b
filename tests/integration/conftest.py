"""The real services that these tests run on, started for the session and stopped behind it."""

import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from monitoring import PORTS, Monitoring, services_in

from celebvision.storage.client import client

CEPH = Path(__file__).parent / "services" / "ceph.sh"
CEPH_PORTS = 51  # the gateway's and the daemons'


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row, above 20000 and below those of `faults.cluster`."""
    for first in range(20000 + os.getpid() % 20 * 100, 24000, 100):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError(f"no {count} free ports in a row between 20000 and 24000: end what holds them")


@pytest.fixture(scope="session")
def monitoring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitoring]:
    with services_in(tmp_path_factory.mktemp("monitoring"), free_ports(PORTS)) as monitoring:
        yield monitoring


@pytest.fixture(scope="session")
def ceph(
    tmp_path_factory: pytest.TempPathFactory, s3_environment: Callable[[str], AbstractContextManager[str]]
) -> Iterator[str]:
    """The URL of a Ceph gateway, which checks signatures and conditions; the session's environment names it."""
    missing = [name for name in ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin") if not shutil.which(name)]
    if missing:
        pytest.fail(f"no {', '.join(missing)} here: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd")
    folder, port = tmp_path_factory.mktemp("ceph"), free_ports(CEPH_PORTS)
    try:
        started = subprocess.run([CEPH, "start", folder, str(port)], stderr=subprocess.PIPE, text=True, timeout=300)
        if started.returncode:
            pytest.fail(f"Ceph did not start: {started.stderr}")
        with s3_environment(f"http://127.0.0.1:{port}") as endpoint:
            yield endpoint
    finally:
        subprocess.run([CEPH, "stop", folder], check=True, timeout=60)


@pytest.fixture
def ceph_bucket(ceph: str) -> str:
    """The URI of a new, empty bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    client().create_bucket(Bucket=name)
    return f"s3://{name}"
