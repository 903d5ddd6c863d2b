"""The same places, for what reads and writes through Arrow."""

import os
from contextlib import suppress
from typing import Any

import pyarrow.fs

from celebvision.storage.client import ATTEMPTS, CONNECT_TIMEOUT_S, client, is_aws, retried
from celebvision.storage.local import LocalStore
from celebvision.storage.s3 import S3Store


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The Arrow file system that holds `uri`, and its path in there; for Ray Train's `storage_filesystem`.

    For an S3 service that is not AWS, the AWS checksum variables are set to `when_required` where they are unset: Arrow
    has no other setting for it, and with its default such services refuse every upload.
    """
    if not uri.startswith("s3://"):
        return pyarrow.fs.LocalFileSystem(), LocalStore(uri).uri
    store = S3Store(uri)
    return _S3FileSystem(uri), f"{store.bucket}/{store.root}".strip("/")


class _S3FileSystem(pyarrow.fs.S3FileSystem):  # type: ignore[misc]
    """Travels as its URI and is made anew where it arrives, since that process must have the variables set too."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        meta = retried(uri, client).meta
        words: dict[str, Any] = {"region": meta.region_name or "us-east-1"}
        if is_aws(meta.endpoint_url):
            with suppress(OSError):  # then it is the configured region
                words["region"] = pyarrow.fs.resolve_s3_region(S3Store(uri).bucket)
        else:
            words["endpoint_override"] = meta.endpoint_url
            os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
            os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
        retries = pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
        super().__init__(connect_timeout=CONNECT_TIMEOUT_S, retry_strategy=retries, **words)

    def __reduce__(self) -> tuple[type["_S3FileSystem"], tuple[str]]:
        return type(self), (self._uri,)
