"""Who waits for a job is told how it ended, and no secret gets out on the way."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import boto3
import pytest

from celebvision import notices
from celebvision.config import WatchedSettings
from celebvision.metrics import Figures, names, telling
from celebvision.notices import Notice, send

DONE = Notice(
    verb="classify",
    model="cnn",
    state="done",
    seconds=3723.4,
    output="s3://photos/<labels>",
    record="s3://photos/<labels>/runs/20260131T070000Z-0a1b2c3d",
    results=12_340,
    failures={"fetch NotFound": 2, "decode UndecodableImage": 1_005},
    cost_usd=4.256,
)
SECRET = "T000/B000/secret"


class Webhook:
    """Answers with the statuses that it is given, the last one again and again."""

    def __init__(self, *statuses: int) -> None:
        webhook, self.bodies, self.statuses = self, list[dict[str, Any]](), list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                webhook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                left = webhook.statuses
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the overridden one's name)
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{SECRET}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    made = Webhook(200)
    monkeypatch.setenv(notices.VARIABLE, made.url)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_the_webhook_is_told_counts_failures_cost_and_where_to_look(webhook: Webhook) -> None:
    assert send(DONE, None) == []
    (body,) = webhook.bodies
    assert body["text"].splitlines() == [
        "classify with cnn: done after 1 h 02 min",
        "12,340 images done, 1,007 failed",
        "  1,005 × decode UndecodableImage",
        "  2 × fetch NotFound",
        "cost: 4.26 USD",
        "output: s3://photos/&lt;labels&gt;",
        "record: s3://photos/&lt;labels&gt;/runs/20260131T070000Z-0a1b2c3d",
        "a page of it: celebvision report --run s3://photos/&lt;labels&gt;/runs/20260131T070000Z-0a1b2c3d",
        "The same command with --retry failures does the failures again.",
    ]


def test_a_job_that_failed_says_why_and_how_it_goes_on(webhook: Webhook) -> None:
    send(replace(DONE, state="failed", error="s3://photos: access is refused\n…"), None)
    assert r"error: s3://photos: access is refused\n…" in webhook.bodies[0]["text"]
    assert webhook.bodies[0]["text"].endswith("\nThe same command continues it.")


def test_a_webhook_that_fails_is_asked_once_more(webhook: Webhook) -> None:
    webhook.statuses = [503, 200]
    assert send(DONE, None) == []
    assert len(webhook.bodies) == 2
    webhook.statuses = [404]
    assert send(DONE, None) == ["CELEBVISION_WEBHOOK_URL: the notice was not taken: it answered 404"]


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:9/{SECRET}",
        f"ftp://127.0.0.1/{SECRET}",
        f"http://127.0.0.1:none/{SECRET}",
        SECRET,
        f"http://a\nb/{SECRET}",
    ],
)
def test_a_webhook_that_is_none_costs_a_line_without_its_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(notices.VARIABLE, url)
    (refused,) = send(DONE, None)
    assert refused.startswith("CELEBVISION_WEBHOOK_URL: the notice was not ")
    assert "secret" not in refused


def test_a_topic_is_told_too(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(notices.VARIABLE, raising=False)
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    topic = sns.create_topic(Name="ends")["TopicArn"]
    queue = sqs.create_queue(QueueName="ends")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=attributes["QueueArn"])
    assert send(replace(DONE, model="skizze-ä\n" + 200 * "x"), topic) == []
    (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    told = json.loads(message["Body"])
    assert told["Message"].splitlines()[1] == "12,340 images done, 1,007 failed"
    assert told["Subject"].startswith(r"classify with skizze-?\nxxx")
    assert len(told["Subject"]) == notices.SUBJECT
    assert "the notice was not taken" in send(DONE, f"{topic}-that-is-none")[0]


def told_of(settings: WatchedSettings, ends: BaseException | None) -> None:
    figures = Figures("classify", "cnn", "/labels")
    with telling(settings, figures, "/labels/runs/one") as told:
        told.figures.add(names.IMAGES, 3, stage="write", outcome="ok")
        told.figures.add(names.FAILURES, 1, stage="decode", reason="UndecodableImage")
        if ends:
            raise ends


@pytest.mark.parametrize(
    ("ends", "state"), [(None, "done"), (ValueError("no"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_each_end_of_a_job_is_told(webhook: Webhook, ends: BaseException | None, state: str) -> None:
    if ends:
        with pytest.raises(type(ends)):
            told_of(WatchedSettings(), ends)
    else:
        told_of(WatchedSettings(), None)
    (body,) = webhook.bodies
    lines = body["text"].splitlines()
    assert lines[0].startswith(f"classify with cnn: {state} after ")
    assert lines[1:3] == ["3 images done, 1 failed", "  1 × decode UndecodableImage"]
    assert "record: /labels/runs/one" in lines
    assert ("error: no" in lines) is (state == "failed")


def test_a_job_within_a_job_moves_it_and_only_the_whole_is_told_of(webhook: Webhook) -> None:
    whole = Figures("retrain", "cnn", "/models")
    with telling(WatchedSettings(), whole, "/models/retrain") as retraining:
        retraining.notice = "kept: it was not shown better"
        whole.set(names.MOVED, 0.0)
        with telling(WatchedSettings(), Figures("train", "cnn", "/models"), "/models/_training/one") as training:
            whole.set(names.MOVED, 0.0)
            training.done(1, 10)
            assert whole.value(names.MOVED)
    (body,) = webhook.bodies
    assert body["text"].splitlines()[:2] == ["retrain with cnn: done after 0 s", "kept: it was not shown better"]


def test_a_notice_that_is_not_taken_harms_no_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(notices.VARIABLE, f"http://127.0.0.1:9/{SECRET}")
    told_of(WatchedSettings(), None)
    said = capsys.readouterr().err
    assert "warning: CELEBVISION_WEBHOOK_URL: the notice was not taken: ConnectionRefusedError" in said
    assert "secret" not in said
