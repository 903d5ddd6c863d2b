"""GET of an object, the one request that a job sends for each picture.

What boto3 does around it takes more of a core than to decode a small picture and infer from it. So only the first of a
bucket is boto3's; those after it are sent to the same place, signed for the same region, by botocore's own signer and
connections, and raise what boto3 would.
"""

from __future__ import annotations

import re
import threading
from typing import Any
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from botocore.parsers import RestXMLParser
from botocore.response import StreamingBody

SAFE = "/~"  # characters of a key that stand in a URL as they are
SIGNED_FOR_S3 = re.compile(r"AWS4-HMAC-SHA256 Credential=[^,]*/([^/,]+)/s3/aws4_request,")
# The bucket lies in another region than the one it was asked in; boto3 finds it.
MOVED = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}


class Getter:
    """Sends GETs as `client` would. Safe to share between threads."""

    def __init__(self, client: Any, credentials: Any, http: URLLib3Session) -> None:
        self.client, self.credentials, self.http = client, credentials, http
        self.places: dict[str, tuple[str, str]] = {}  # by bucket: the URL before a key, and the region to sign for
        self.of_thread = threading.local()
        client.meta.events.register("before-send.s3.GetObject", self._see)

    def _see(self, request: AWSPreparedRequest, **_: object) -> None:
        self.of_thread.request = request

    def get(self, bucket: str, key: str, **headers: str) -> tuple[bytes, str]:
        """An object's bytes, and its etag as S3 writes it; `headers` may have `Range`.

        Raises:
            BotoCoreError, ClientError: what `client.get_object` would raise.
        """
        if place := self.places.get(bucket):
            try:
                return self._get(*place, key, headers)
            except ClientError as error:
                if error.response["Error"]["Code"] not in MOVED:
                    raise
        answer = self.client.get_object(Bucket=bucket, Key=key, **headers)
        self._learn(bucket, key)
        # not `with`: that gives the stream below, whose errors and short reads botocore does not see
        return answer["Body"].read(), answer["ETag"]

    def _learn(self, bucket: str, key: str) -> None:
        """Where the client has just found the bucket; not of one that it signs for in ways of its own."""
        request: AWSPreparedRequest = self.of_thread.request
        authorization = request.headers.get("Authorization", b"")
        text = authorization.decode() if isinstance(authorization, bytes) else authorization
        name = quote(key, safe=SAFE)
        if (signed := SIGNED_FOR_S3.match(text)) and request.url.endswith(name):
            self.places[bucket] = request.url.removesuffix(name), signed[1]

    def _get(self, base: str, region: str, key: str, headers: dict[str, str]) -> tuple[bytes, str]:
        request = AWSRequest("GET", base + quote(key, safe=SAFE), headers=headers, stream_output=True)
        S3SigV4Auth(self.credentials.get_frozen_credentials(), "s3", region).add_auth(request)
        sent = self.http.send(request.prepare())
        # It knows a body that is cut short.
        body: bytes = StreamingBody(sent.raw, sent.headers.get("Content-Length")).read()
        if sent.status_code < 300:
            return body, sent.headers["ETag"]
        answer = {"status_code": sent.status_code, "headers": sent.headers, "body": body}
        raise ClientError(RestXMLParser().parse(answer, shape=None), "GetObject")
