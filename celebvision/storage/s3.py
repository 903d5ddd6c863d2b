"""Objects in an S3 bucket."""

import builtins
import io
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from celebvision.storage.client import client, getter, retried
from celebvision.storage.listing import Ask, in_order
from celebvision.storage.local import local_errors, write_file
from celebvision.storage.store import Conflict, NotFound, Stat, Store, as_folder, check_range

PAGE_KEYS = 1000  # of one answer to a listing; S3 gives no more
OPEN_BUFFER_BYTES = 8 << 20  # what `open` fetches at once
_TRANSFER = TransferConfig(num_download_attempts=1, preferred_transfer_client="classic")  # `retried` retries


class S3Store(Store):
    """Objects under `s3://bucket/root`. Keys are taken as they are: nothing in them is special."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.bucket, _, root = uri.removeprefix("s3://").partition("/")
        self.root = as_folder(root)

    def _name(self, key: str) -> str:
        """The key in messages."""
        return f"s3://{self.bucket}/{self.root}{key}"

    def _target(self, key: str) -> dict[str, str]:
        if not key:
            raise ValueError(f"an empty key names no object in {self.uri}")
        return {"Bucket": self.bucket, "Key": self.root + key}

    def _read(self, key: str, **headers: str) -> tuple[bytes, str]:
        """The object's bytes, or a range of them, and its etag."""

        def read() -> tuple[bytes, str]:
            target = self._target(key)
            try:
                body, etag = getter().get(target["Bucket"], target["Key"], **headers)
            except ClientError as error:
                if error.response["Error"]["Code"] == "InvalidRange":  # it starts behind the end
                    return b"", ""
                raise
            return body, etag.strip('"')

        return retried(self._name(key), read)

    def get(self, key: str) -> bytes:
        return self._read(key)[0]

    def get_range(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        return self._read(key, Range=f"bytes={start}-{start + length - 1}")[0] if length else b""

    def stat(self, key: str) -> Stat:
        answer = retried(self._name(key), lambda: client().head_object(**self._target(key)))
        return _stat(key, {"Size": answer["ContentLength"], **answer})

    def put(self, key: str, data: bytes) -> str:
        return self._write(key, data)

    def create(self, key: str, data: bytes) -> str:
        return self._write(key, data, IfNoneMatch="*")

    def replace(self, key: str, data: bytes, etag: str) -> str:
        return self._write(key, data, IfMatch=etag)  # without quotes: Ceph compares it as it is

    def _write(self, key: str, data: bytes, **condition: str) -> str:
        sent = 0

        def write() -> str:
            nonlocal sent
            sent += 1
            try:
                answer = client().put_object(**self._target(key), Body=data, **condition)
            except ClientError as error:
                if "IfMatch" in condition and error.response["Error"]["Code"] == "NoSuchKey":
                    raise Conflict(f"{self._name(key)}: somebody deleted this key first") from error
                raise
            return str(answer["ETag"]).strip('"')

        try:
            return retried(self._name(key), write)
        except Conflict:
            if sent > 1:  # an answer was lost on the way: what stands there may be our own earlier success
                with suppress(NotFound):
                    stored, etag = self._read(key)
                    if stored == data:
                        return etag
            raise

    def delete(self, key: str) -> None:
        retried(self._name(key), lambda: client().delete_object(**self._target(key)))

    def sweep(self, prefix: str) -> None:
        """See `Store.sweep`. A put that was cut off leaves nothing in S3."""

    def list(self, prefix: str = "") -> Iterator[Stat]:
        for entry in in_order(self.root + prefix, self._page):
            if entry["Key"] != self.root:  # the marker of the folder that we stand in has no key here
                yield _stat(entry["Key"].removeprefix(self.root), entry)

    def _page(self, ask: Ask, **others: str) -> dict[str, Any]:
        words: dict[str, Any] = {"Bucket": self.bucket, "Prefix": ask.prefix, "MaxKeys": PAGE_KEYS, **others}
        if ask.token:
            words["ContinuationToken"] = ask.token
        elif ask.after:
            words["StartAfter"] = ask.after
        # boto3 itself asks for url-encoded keys and decodes them, so that keys which XML cannot hold survive
        uri = f"s3://{self.bucket}/{ask.prefix}"
        answer: dict[str, Any] = retried(uri, lambda: client().list_objects_v2(**words))
        return answer

    def folders(self, prefix: str = "") -> builtins.list[str]:
        inside = self.root + as_folder(prefix)
        names, token = set[str](), ""
        while True:
            page = self._page(Ask(inside, token=token), Delimiter="/")
            names |= {item["Prefix"][len(inside) : -1] for item in page.get("CommonPrefixes", ())}
            if not (token := page.get("NextContinuationToken", "")):
                return sorted(names - {""})

    def upload(self, path: Path, key: str) -> None:
        def send() -> None:
            with path.open("rb") as file:
                client().upload_fileobj(Fileobj=file, **self._target(key), Config=_TRANSFER)

        with local_errors(path):
            retried(self._name(key), send)

    def download(self, key: str, path: Path) -> None:
        def fill(file: BinaryIO) -> None:
            client().download_fileobj(**self._target(key), Fileobj=file, Config=_TRANSFER)

        with local_errors(path):
            retried(self._name(key), lambda: write_file(path, fill))

    def open(self, key: str) -> BinaryIO:
        return io.BufferedReader(_Ranges(self, self.stat(key)), OPEN_BUFFER_BYTES)


def _stat(key: str, entry: dict[str, Any]) -> Stat:
    return Stat(key, entry["Size"], entry["ETag"].strip('"'), entry["LastModified"])


class _Ranges(io.RawIOBase):
    """An object as a file: each read is one request."""

    def __init__(self, store: Store, stat: Stat) -> None:
        self._store, self._stat, self._at = store, stat, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._stat.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._stat.size - self._at))
        data = self._store.get_range(self._stat.key, self._at, length)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
