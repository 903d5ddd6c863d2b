"""This process's S3 client, and the one loop that retries what it is asked."""

import logging
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.httpsession import URLLib3Session
from botocore.parsers import ResponseParserError
from botocore.utils import get_environ_proxies
from s3transfer.exceptions import RetriesExceededError

from celebvision.storage.get import Getter
from celebvision.storage.store import Conflict, Denied, Expired, NotFound, StorageError, Throttled, Unreachable

ATTEMPTS = 10  # of one operation before it is given up; they wait about 45 s in all
LONGEST_WAIT_S = 20.0
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 20  # without a byte
CONNECTIONS = 64

log = logging.getLogger(__name__)
T = TypeVar("T")


class _Undecided(Conflict):
    """Two conditional puts met and neither was done; AWS wants it sent again."""


_EXPIRED = Expired, "the credentials have expired: refresh them (a new session token, or `aws sso login`), start again"
_NO_ACCESS = Denied, "access is refused: check the credentials and what they are allowed to do here"
_SLOWER = Throttled, "storage asks for fewer requests: where it keeps on, use fewer workers, or wait"
_RACED = Conflict, "somebody else wrote this key first"
_FAILS = Unreachable, "storage fails: where it keeps on, ask who runs it"
_REFUSES = StorageError, "storage refuses the request"
_ANSWERS: dict[str, tuple[type[StorageError], str]] = {
    "NoSuchBucket": (NotFound, "the bucket does not exist: check its name, AWS_ENDPOINT_URL and AWS_DEFAULT_REGION"),
    "NoSuchKey": (NotFound, "there is no such object"),
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidAccessKeyId": (Denied, "the access key is unknown here: check AWS_ACCESS_KEY_ID or AWS_PROFILE"),
    "SignatureDoesNotMatch": (Denied, "the secret does not fit the access key: check AWS_SECRET_ACCESS_KEY"),
    "RequestTimeTooSkewed": (Denied, "this machine's clock is wrong: set it"),
    "InvalidObjectState": (StorageError, "the object is archived: restore it to a readable storage class first"),
    "ConditionalRequestConflict": (_Undecided, "others keep writing this key: try again later"),
    "SlowDown": _SLOWER,
    "RequestLimitExceeded": _SLOWER,
    "Throttling": _SLOWER,
    "ThrottlingException": _SLOWER,
    "RequestTimeout": (Unreachable, "the request took too long to arrive: check the network"),
}
_STATUSES: dict[int, tuple[type[StorageError], str]] = {
    401: _NO_ACCESS,
    403: _NO_ACCESS,
    404: (NotFound, "there is no such object or bucket"),
    409: _RACED,
    412: _RACED,
    429: _SLOWER,
    501: (StorageError, "this storage lacks the operation: conditional puts and multipart uploads are needed"),
    503: _SLOWER,
}


def _translate(error: BaseException, uri: str) -> StorageError:
    """What boto3 raised, as the error that our callers know."""
    if isinstance(error, RetriesExceededError):  # what a download in parts raises around the real cause
        error = error.last_exception
    name = type(error).__name__
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = error.response.get("Error", {})
        other = _FAILS if status >= 500 else _REFUSES
        kind, advice = _ANSWERS.get(said.get("Code", "")) or _STATUSES.get(status, other)
        return kind(f"{uri}: {advice} ({said.get('Code', status)}: {str(said.get('Message', ''))[:300]})")
    if isinstance(error, HTTPClientError | BotoConnectionError | IncompleteReadError | ResponseParserError):
        advice = "storage cannot be reached, or broke off: check AWS_ENDPOINT_URL, the region and the network"
        return Unreachable(f"{uri}: {advice} ({name})")
    if re.search("Credential|Token|SSO|Login", name):
        advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a role"
        return Denied(f"{uri}: no usable credentials: {advice} ({name})")
    return StorageError(f"{uri}: the AWS settings or the request are not right: {error}")


_retries: Counter[str] = Counter()
_retries_lock = threading.Lock()


def retries() -> Counter[str]:
    """How often this process has sent a request again so far, by the name of the error: Throttled, Unreachable, …"""
    with _retries_lock:
        return _retries.copy()


def retried(uri: str, call: Callable[[], T]) -> T:
    """What `call` returns; called again, whole, after what passes by itself, with full jitter so that workers part."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except (BotoCoreError, ClientError, ResponseParserError, RetriesExceededError) as error:
            failure = _translate(error, uri)
            if attempt == ATTEMPTS or not isinstance(failure, Throttled | Unreachable | _Undecided):
                raise failure from error
        with _retries_lock:
            _retries[Conflict.__name__ if isinstance(failure, Conflict) else type(failure).__name__] += 1
        level, kind = logging.INFO if attempt < 3 else logging.WARNING, {"kind": type(failure).__name__}
        log.log(level, "attempt %d of %d: %s", attempt, ATTEMPTS, failure, extra=kind)
        time.sleep(random.uniform(0, min(LONGEST_WAIT_S, 0.5 * 2 ** (attempt - 1))))  # noqa: S311 - no secret
    raise AssertionError("ATTEMPTS is at least 1")


_client_lock = threading.Lock()


@lru_cache(maxsize=1)
def _new_client() -> tuple[Any, Getter]:
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=CONNECTIONS,
        retries={"total_max_attempts": 1},  # `retried` is the one place that retries: bodies too
    )
    # other services refuse the checksums that newer SDKs add by themselves
    plain = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    core = botocore.session.get_session()
    session = boto3.Session(botocore_session=core)
    try:
        made = session.client("s3", config=config)
        if not is_aws(made.meta.endpoint_url):
            made = session.client("s3", config=config.merge(plain))
        http = URLLib3Session(
            verify=core.get_config_variable("ca_bundle") or True,
            proxies=get_environ_proxies(made.meta.endpoint_url),
            timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
            max_pool_connections=CONNECTIONS,
        )
    except ValueError as error:
        raise StorageError(f"AWS_ENDPOINT_URL or another AWS setting is not right: {error}") from error
    return made, Getter(made, core.get_credentials(), http)


def client() -> Any:
    """This process's S3 client."""
    with _client_lock:  # or each of many threads that start together would build its own
        return _new_client()[0]


def getter() -> Getter:
    """What sends this process's GETs."""
    with _client_lock:
        return _new_client()[1]


def forget_client() -> None:
    """Let the next `client` be a new one: in a forked child, whose connections are its parent's, and for tests."""
    global _client_lock
    _client_lock = threading.Lock()
    _new_client.cache_clear()


os.register_at_fork(after_in_child=forget_client)


def is_aws(endpoint_url: str) -> bool:
    """Whether it is AWS itself and not a service that speaks S3 too."""
    return bool(re.search(r"\.amazonaws\.com(\.cn)?$", urlsplit(endpoint_url).hostname or ""))
