"""What S3 does wrong on the way: what passes is asked again, what does not is told, and no GET is any worse for it."""

import io
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse, HeadersDict
from urllib3 import HTTPResponse

from celebvision.storage import (
    Conflict,
    Denied,
    Expired,
    NotFound,
    StorageError,
    Store,
    Throttled,
    Unreachable,
    client,
    open_store,
    retries,
)


@dataclass
class Answer:
    """One answer of a faulty S3 service."""

    status: int = 200
    code: str = ""  # of S3's error document
    body: bytes = b""
    keep: int | None = None  # bytes of the body to send before the connection is closed; -1: not even a status

    def send(self, handler: BaseHTTPRequestHandler) -> None:
        if self.keep == -1:
            handler.close_connection = True
            return
        body = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>".encode() if self.code else self.body
        handler.send_response(self.status)
        for name, value in {"Content-Length": len(body), "ETag": '"abc"'}.items():
            handler.send_header(name, str(value))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body[: self.keep])
        handler.close_connection = self.keep is not None


@dataclass
class FaultyS3:
    """Gives its answers one by one, the last one for ever, and keeps the requests that it got."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        faulty = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                faulty.requests.append(self.command)
                (faulty.answers.pop(0) if len(faulty.answers) > 1 else faulty.answers[0]).send(self)

            do_PUT = do_HEAD = do_GET  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def faulty(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    service = FaultyS3()
    server = ThreadingHTTPServer(("127.0.0.1", 0), service.handler())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(client, "LONGEST_WAIT_S", 0.0)
    client.forget_client()
    yield service
    server.shutdown()
    server.server_close()
    thread.join()
    client.forget_client()


FAR = "s3://far-away/p"
PAGE = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


@pytest.mark.parametrize(
    "fault",
    [
        Answer(503, "SlowDown"),
        Answer(503, "ServiceUnavailable"),
        Answer(429, "TooManyRequests"),
        Answer(400, "RequestLimitExceeded"),
        Answer(400, "ThrottlingException"),
        Answer(500, "InternalError"),
        Answer(502, body=b"<html>a proxy's page</html>"),
        Answer(keep=-1),
        Answer(body=b"whole", keep=2),
    ],
    ids=lambda answer: answer.code or f"{answer.status}, {answer.keep} bytes",
)
def test_what_passes_by_itself_is_asked_again(faulty: FaultyS3, fault: Answer) -> None:
    faulty.answers = [fault, fault, Answer(body=b"whole")]
    assert open_store(FAR).get("key") == b"whole"
    assert len(faulty.requests) == 3


def test_what_was_sent_again_is_counted_by_its_reason(faulty: FaultyS3) -> None:
    before, slower = retries(), Answer(503, "SlowDown")
    faulty.answers = [slower, Answer(500, "InternalError"), slower, Answer(body=b"whole")]
    open_store(FAR).get("key")
    faulty.answers = [Answer(409, "ConditionalRequestConflict"), Answer()]
    open_store(FAR).create("key", b"ours")
    assert retries() - before == {"Throttled": 2, "Unreachable": 1, "Conflict": 1}


def test_a_body_cut_short_is_fetched_again(faulty: FaultyS3, tmp_path: Path) -> None:
    cut, whole = Answer(body=b"x" * 100_000, keep=70_000), Answer(body=b"x" * 100_000)
    faulty.answers = [cut, cut, whole]
    assert open_store(FAR).get("key") == whole.body
    faulty.answers = [cut, cut, whole]
    assert open_store(FAR).get_range("key", 0, 100_000) == whole.body
    faulty.answers = [cut, cut, whole]
    open_store(FAR).download("key", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == whole.body


def test_a_page_cut_short_is_fetched_again(faulty: FaultyS3) -> None:
    faulty.answers = [Answer(body=PAGE, keep=20), Answer(body=PAGE[:20]), Answer(body=PAGE)]
    assert list(open_store(FAR).list()) == []
    assert len(faulty.requests) == 3


def test_a_silent_service_is_asked_again(faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "READ_TIMEOUT_S", 0.2)
    client.forget_client()
    heard = threading.Event()

    class Silent(Answer):
        def send(self, handler: BaseHTTPRequestHandler) -> None:
            heard.wait(30)
            handler.close_connection = True

    faulty.answers = [Silent(), Answer(body=b"whole")]
    assert open_store(FAR).get("key") == b"whole"
    heard.set()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Answer(503, "SlowDown"), Throttled), (Answer(500, "InternalError"), Unreachable), (Answer(keep=-1), Unreachable)],
)
def test_what_does_not_pass_is_told_after_a_bounded_number_of_attempts(
    faulty: FaultyS3, fault: Answer, kind: type[StorageError], caplog: pytest.LogCaptureFixture
) -> None:
    faulty.answers = [fault]
    with pytest.raises(kind, match=r"s3://far-away/p/key: "):
        open_store(FAR).get("key")
    assert len(faulty.requests) == client.ATTEMPTS
    assert f"attempt 3 of {client.ATTEMPTS}" in caplog.text


def test_waits_grow_to_a_bound_and_differ_between_workers(faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[tuple[float, float]] = []

    def no_wait(low: float, high: float) -> float:
        waits.append((low, high))
        return 0

    monkeypatch.setattr(client, "LONGEST_WAIT_S", 20.0)
    monkeypatch.setattr("random.uniform", no_wait)
    faulty.answers = [Answer(503, "SlowDown")]
    with pytest.raises(Throttled):
        open_store(FAR).get("key")
    assert waits == [(0, high) for high in (0.5, 1, 2, 4, 8, 16, 20, 20, 20)]


def test_nobody_at_the_address_is_unreachable(faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    client.forget_client()
    with pytest.raises(Unreachable, match="AWS_ENDPOINT_URL"):
        open_store(FAR).get("key")


@pytest.mark.parametrize(
    ("answer", "kind", "advice"),
    [
        (Answer(403, "AccessDenied"), Denied, "allowed"),
        (Answer(403, "SignatureDoesNotMatch"), Denied, "AWS_SECRET_ACCESS_KEY"),
        (Answer(403, "InvalidAccessKeyId"), Denied, "AWS_ACCESS_KEY_ID"),
        (Answer(400, "ExpiredToken"), Expired, "refresh"),
        (Answer(403, "RequestTimeTooSkewed"), Denied, "clock"),
        (Answer(404, "NoSuchKey"), NotFound, "no such object"),
        (Answer(404, "NoSuchBucket"), NotFound, "bucket does not exist"),
        (Answer(403, "InvalidObjectState"), StorageError, "restore"),
        (Answer(501, "NotImplemented"), StorageError, "lacks"),
        (Answer(400, "KeyTooLongError"), StorageError, "refuses"),
    ],
    ids=lambda value: value.code if isinstance(value, Answer) else "",
)
def test_what_no_retry_mends_is_told_at_once(
    faulty: FaultyS3, answer: Answer, kind: type[StorageError], advice: str
) -> None:
    faulty.answers = [answer]
    with pytest.raises(kind, match=f"s3://far-away/p/key: .*{advice}") as caught:
        open_store(FAR).get("key")
    assert type(caught.value) is kind
    assert len(faulty.requests) == 1


SECRET, TOKEN = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY", "FwoGZXIvYXdzEXAMPLETOKEN"


def test_no_error_tells_a_secret(faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    caplog.set_level("INFO", logger="celebvision")
    told = ""
    for answer in (Answer(403, "SignatureDoesNotMatch"), Answer(400, "ExpiredToken"), Answer(keep=-1), Answer(503)):
        client.forget_client()
        faulty.answers = [answer]
        with pytest.raises(StorageError) as caught:
            open_store(FAR).put("key", b"")
        told += "".join(traceback.format_exception(caught.value)) + repr(caught.value.__cause__)
    assert SECRET not in told + caplog.text
    assert TOKEN not in told + caplog.text


def test_missing_credentials_say_what_to_set(faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    client.forget_client()
    for use in (lambda store: store.get("key"), lambda store: list(store.list())):
        with pytest.raises(Denied, match=r"s3://far-away/p.*AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
            use(open_store(FAR))


@pytest.mark.parametrize(("name", "value"), [("AWS_PROFILE", "nobody"), ("AWS_ENDPOINT_URL", "not a url")])
def test_a_wrong_setting_is_an_error_of_storage(
    faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    client.forget_client()
    with pytest.raises(StorageError, match=value):
        open_store(FAR).get("key")


Put = Callable[[Store, bytes], str]
CONDITIONAL: list[Put] = [
    lambda store, data: store.create("k", data),
    lambda store, data: store.replace("k", data, "e"),
]


@pytest.mark.parametrize("put", CONDITIONAL, ids=["create", "replace"])
def test_an_own_success_whose_answer_was_lost_counts(faulty: FaultyS3, put: Put) -> None:
    faulty.answers = [Answer(keep=-1), Answer(412, "PreconditionFailed"), Answer(body=b"ours")]
    assert put(open_store(FAR), b"ours") == "abc"
    assert faulty.requests == ["PUT", "PUT", "GET"]


@pytest.mark.parametrize("put", CONDITIONAL, ids=["create", "replace"])
def test_after_a_lost_answer_another_s_object_is_still_a_conflict(faulty: FaultyS3, put: Put) -> None:
    faulty.answers = [Answer(keep=-1), Answer(412, "PreconditionFailed"), Answer(body=b"theirs")]
    with pytest.raises(Conflict):
        put(open_store(FAR), b"ours")


@pytest.mark.parametrize("put", CONDITIONAL, ids=["create", "replace"])
def test_a_plain_conflict_is_not_looked_into(faulty: FaultyS3, put: Put) -> None:
    faulty.answers = [Answer(412, "PreconditionFailed"), Answer(body=b"ours")]
    with pytest.raises(Conflict):
        put(open_store(FAR), b"ours")
    assert faulty.requests == ["PUT"]


def test_two_conditional_puts_that_met_are_sent_again(faulty: FaultyS3) -> None:
    faulty.answers = [Answer(409, "ConditionalRequestConflict"), Answer()]
    assert open_store(FAR).create("key", b"ours") == "abc"


@pytest.fixture
def aws(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Any]]]:
    """AWS itself, which nobody asks anything: gives the requests that were about to be sent."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    client.forget_client()
    sent: list[Any] = []

    def answer(request: Any, **_: object) -> Any:
        sent.append(request)
        raw = HTTPResponse(io.BytesIO(b"whole"), preload_content=False)
        return AWSResponse(request.url, 200, HeadersDict({"ETag": '"abc"', "Content-Length": "5"}), raw)

    client.client().meta.events.register("before-send.s3", answer)
    monkeypatch.setattr(client.getter().http, "send", answer)
    yield lambda: sent
    client.forget_client()


def _text(header: str | bytes) -> str:
    return header.decode() if isinstance(header, bytes) else header


@pytest.mark.parametrize("bucket", ["photos", "dotted.name"])
@pytest.mark.parametrize("key", ["k", "a b/ü?#%+~&=.jpg", "x//../y/", "k" * 1024])
def test_later_gets_of_a_bucket_are_sent_as_the_first_which_is_boto3_s(
    aws: Callable[[], list[Any]], bucket: str, key: str
) -> None:
    store = open_store(f"s3://{bucket}")
    assert [store.get_range(key, 0, 5), store.get_range(key, 0, 5)] == [b"whole", b"whole"]
    first, second = aws()
    assert client.getter().places.keys() == {bucket}
    assert second.url == first.url
    for name in ("Range", "X-Amz-Security-Token", "X-Amz-Content-SHA256"):
        assert _text(second.headers[name]) == _text(first.headers[name])
    scopes = {_text(request.headers["Authorization"]).partition(",")[0] for request in (first, second)}
    assert len(scopes) == 1
    assert "/eu-central-1/s3/" in scopes.pop()


@pytest.mark.parametrize("moved", [Answer(301, "PermanentRedirect"), Answer(400, "AuthorizationHeaderMalformed")])
def test_where_a_bucket_has_moved_to_boto3_finds_it(faulty: FaultyS3, moved: Answer) -> None:
    store, whole = open_store(FAR), Answer(body=b"whole")
    faulty.answers = [whole, moved, whole]
    assert [store.get("key") for _ in range(3)] == [b"whole"] * 3
    assert faulty.requests == ["GET"] * 4


@pytest.mark.parametrize("later", [False, True], ids=["first", "later"])
@pytest.mark.parametrize(
    ("answer", "kind"), [(Answer(404, "NoSuchKey"), NotFound), (Answer(400, "ExpiredToken"), Expired)]
)
def test_errors_of_a_later_get_are_those_of_a_first(
    faulty: FaultyS3, later: bool, answer: Answer, kind: type[StorageError]
) -> None:
    store = open_store(FAR)
    if later:
        faulty.answers = [Answer(body=b"whole")]
        store.get("key")
    faulty.answers = [Answer(503, "SlowDown"), Answer(body=b"whole", keep=2), Answer(keep=-1), answer]
    with pytest.raises(kind, match="s3://far-away/p/key: "):
        store.get("key")
    assert len(faulty.requests) == 4 + later
