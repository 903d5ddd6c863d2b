"""The proxy harms what it is told to and nothing else: else the tests behind it would show nothing."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from celebvision.storage.client import client
from faults.proxy import FaultProxy, Faults

TIMEOUT_S = 1  # of the client that meets stalls
BODY = bytes(range(256)) * 400
BROKEN_OFF: set[bytes | str] = {"ConnectionClosedError", "ResponseStreamingError", "IncompleteReadError"}


@pytest.fixture
def bucket(s3_environment: Callable[[str], AbstractContextManager[str]], s3_endpoint: str) -> Iterator[str]:
    with s3_environment(s3_endpoint):
        name = f"test-{uuid.uuid4().hex[:12]}"
        client().create_bucket(Bucket=name)
        client().put_object(Bucket=name, Key="photo.jpg", Body=BODY)
        yield name


def one_get(proxy: FaultProxy, bucket: str) -> bytes | str:
    """What one request without retries brings: the bytes, the code of the service's error or the client's error."""
    config = Config(read_timeout=TIMEOUT_S, retries={"total_max_attempts": 1})
    harmed = boto3.client("s3", endpoint_url=proxy.url, config=config)
    try:
        body: bytes = harmed.get_object(Bucket=bucket, Key="photo.jpg")["Body"].read()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    except BotoCoreError as error:
        return type(error).__name__
    return body


@pytest.mark.parametrize(
    ("faults", "seen"),
    [
        (Faults(), {BODY}),
        (Faults(slow_down=1), {"SlowDown"}),
        (Faults(reset=1), BROKEN_OFF),
        (Faults(stall=1), {"ReadTimeoutError"}),
        (Faults(stall=1, most_stalls=0), {BODY}),
        (Faults(stall=1, stall_on=".png"), {BODY}),
        (Faults(expire_after=0), {"ExpiredToken"}),
    ],
    ids=["none", "slow_down", "reset", "stall", "no stall left", "stall elsewhere", "expired"],
)
def test_a_request_meets_the_fault_it_is_given(faults: Faults, seen: set[bytes | str], bucket: str) -> None:
    with FaultProxy(client().meta.endpoint_url, seed=0, faults=faults) as proxy:
        assert one_get(proxy, bucket) in seen


def test_credentials_expire_after_so_many_requests_and_are_renewed(bucket: str) -> None:
    with FaultProxy(client().meta.endpoint_url, seed=0, faults=Faults(expire_after=2)) as proxy:
        assert [one_get(proxy, bucket) for _ in range(4)] == [BODY, BODY, "ExpiredToken", "ExpiredToken"]
        proxy.renew()
        assert one_get(proxy, bucket) == BODY
        assert proxy.injected == {"passed": 3, "expired": 2}


def test_the_same_seed_harms_the_same_requests(bucket: str) -> None:
    def outcomes(seed: int) -> list[bytes | str]:
        with FaultProxy(client().meta.endpoint_url, seed, Faults(slow_down=0.5)) as proxy:
            return [one_get(proxy, bucket) for _ in range(12)]

    assert outcomes(1) == outcomes(1) != outcomes(2)


def test_what_is_put_arrives_whole_and_its_answer_may_be_lost(bucket: str) -> None:
    with FaultProxy(client().meta.endpoint_url, seed=0, faults=Faults(reset=1)) as proxy:
        harmed = boto3.client("s3", endpoint_url=proxy.url, config=Config(retries={"total_max_attempts": 1}))
        with pytest.raises((BotoCoreError, ClientError)):
            harmed.put_object(Bucket=bucket, Key="new", Body=BODY)
    assert client().get_object(Bucket=bucket, Key="new")["Body"].read() == BODY
