"""The same places, for what reads and writes through Arrow."""

import os
from contextlib import suppress

import pyarrow.fs

from celebvision.storage.client import ATTEMPTS, CONNECT_TIMEOUT_S, client, is_aws, retried
from celebvision.storage.local import LocalStore
from celebvision.storage.s3 import S3Store


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The Arrow file system that holds `uri`, and its path in there; for Ray Train's `storage_filesystem`.

    For an S3 service that is not AWS it sets the AWS checksum variables to `when_required` where they are unset: Arrow
    has no other setting for it, and such services refuse the checksums that AWS takes. A process that unpickles the
    file system must inherit them.
    """
    if not uri.startswith("s3://"):
        return pyarrow.fs.LocalFileSystem(), LocalStore(uri).uri
    store = S3Store(uri)
    meta = retried(uri, client).meta
    words = {"region": meta.region_name or "us-east-1"}
    if is_aws(meta.endpoint_url):
        with suppress(OSError):  # then it is the configured region
            words["region"] = pyarrow.fs.resolve_s3_region(store.bucket)
    else:
        words["endpoint_override"] = meta.endpoint_url
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    retries = pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
    system = pyarrow.fs.S3FileSystem(connect_timeout=CONNECT_TIMEOUT_S, retry_strategy=retries, **words)
    return system, f"{store.bucket}/{store.root}".strip("/")
