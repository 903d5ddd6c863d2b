"""The one room that knows S3: every read and write of the project, on `s3://bucket/prefix` and on local paths alike.

The standard AWS variables (`AWS_ENDPOINT_URL`, credentials, region, profile) are all the settings there are.
"""

import re

from celebvision.storage.arrow import arrow_filesystem
from celebvision.storage.client import retries
from celebvision.storage.local import LocalStore
from celebvision.storage.parquet import GrowingFile, open_table, read_table, write_table
from celebvision.storage.s3 import S3Store
from celebvision.storage.store import (
    Conflict,
    Denied,
    Expired,
    Full,
    NotFound,
    Stat,
    StorageError,
    Store,
    Throttled,
    Unreachable,
)

__all__ = [
    "Conflict",
    "Denied",
    "Expired",
    "Full",
    "GrowingFile",
    "NotFound",
    "Stat",
    "StorageError",
    "Store",
    "Throttled",
    "Unreachable",
    "arrow_filesystem",
    "join",
    "open_bucket",
    "open_store",
    "open_table",
    "read_table",
    "retries",
    "write_table",
]


def open_store(uri: str) -> Store:
    """The store at `s3://bucket/prefix` or a local path, which need not exist. Raises `ValueError` for other words."""
    if not uri or "\0" in uri:
        raise ValueError(f"{uri!r} is no place for data: write s3://bucket/prefix or a local path")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", uri)
    if scheme is None:
        return LocalStore(uri)
    if not uri.startswith("s3://"):
        raise ValueError(f"{uri!r}: write s3://bucket/prefix, or a local path without {scheme[0]!r}")
    if not re.match(r"s3://[A-Za-z0-9._-]{3,255}(/|$)", uri):
        raise ValueError(f"{uri!r} names no valid bucket: write s3://bucket/prefix")
    return S3Store(uri)


def open_bucket(uri: str) -> tuple[Store, str]:
    """The whole bucket that `uri` lies in, and the prefix of the folder that `uri` names (`s3://b/p` → `p/`).

    Keys are then whole, as the bucket's owner knows them. A local folder is taken as a bucket, with prefix ''.
    """
    store = open_store(uri)
    return (S3Store(f"s3://{store.bucket}"), store.root) if isinstance(store, S3Store) else (store, "")


def join(uri: str, *parts: str) -> str:
    """`uri` with folder or file names put behind it, one slash between."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])
