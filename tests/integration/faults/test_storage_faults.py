"""A bad service costs time and no key: throttled, torn and hanging answers, credentials that expire in the middle."""

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from celebvision.storage import open_store
from celebvision.storage.client import client
from faults.command import Marked
from faults.conftest import Exact, House, Start
from faults.proxy import FaultProxy, Faults

# A stall costs the client's READ_TIMEOUT_S. Where threads fetch beside each other, some stalls cost no more than one.
BAD = Faults(slow_down=0.1, reset=0.1, stall=0.1, most_stalls=3, stall_on=".jpg")
S3Environment = Callable[[str], AbstractContextManager[str]]
ETAG = ("etag",)  # the service's own, where the undisturbed run had a folder's


class Buckets:
    """The house on a service: pictures and registry in one bucket each, and one for the output."""

    def __init__(self, house: House) -> None:
        self.house = house
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.pictures, self.registry, self.output = (f"s3://{name}-{kind}" for kind in ("in", "models", "out"))
        for uri, folder in ((self.pictures, house.pictures), (self.registry, house.registry), (self.output, None)):
            client().create_bucket(Bucket=uri.removeprefix("s3://"))
            for path in folder.rglob("*") if folder else ():
                if path.is_file():
                    open_store(uri).put(path.relative_to(folder).as_posix(), path.read_bytes())

    def label(self, start: Start, proxy: FaultProxy) -> Marked:
        """The command, with all that it asks of the service going through the proxy."""
        words = self.house.words(self.output, self.pictures, self.registry)
        return start(words, {"AWS_ENDPOINT_URL": proxy.url})


@pytest.mark.parametrize("service", ["s3_endpoint", "ceph"])
def test_thirty_of_a_hundred_requests_fail_and_no_key_is_lost(
    service: str,
    house: House,
    start: Start,
    exactly_once: Exact,
    s3_environment: S3Environment,
    request: pytest.FixtureRequest,
) -> None:
    with s3_environment(request.getfixturevalue(service)) as upstream:
        buckets = Buckets(house)
        with FaultProxy(upstream, seed=5, faults=BAD) as proxy:
            with buckets.label(start, proxy) as command:
                assert command.status() == 0, command.stderr
            shares = {fault: proxy.injected[fault] / proxy.requests for fault in ("slow_down", "reset")}
            assert all(0.05 < share < 0.15 for share in shares.values()), proxy.injected
            assert proxy.injected["stall"] == BAD.most_stalls
        exactly_once(f"30 % of requests to {service}", buckets.output, without=ETAG)


def test_credentials_that_expire_in_the_middle_lose_no_key(
    house: House, start: Start, exactly_once: Exact, s3_environment: S3Environment, s3_endpoint: str
) -> None:
    with s3_environment(s3_endpoint) as upstream:
        buckets = Buckets(house)
        with FaultProxy(upstream, seed=0, faults=Faults(expire_after=len(house.keys) // 2)) as proxy:
            with buckets.label(start, proxy) as command:
                assert command.status() == 1
                assert "the credentials have expired: refresh them" in command.stderr
                assert "Traceback" not in command.stderr
            done = list(open_store(buckets.output).list("runs/"))
            assert any("/parts/" in stat.key for stat in done), "they expired before anything was done"
            proxy.renew()
            with buckets.label(start, proxy) as again:
                assert again.status() == 0, again.stderr
        exactly_once("credentials expire", buckets.output, without=ETAG)
