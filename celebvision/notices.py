"""A few words at the end of a job to those who wait for it: by a webhook, and by AWS SNS."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from celebvision.logs import duration, printable

# The URL is a secret, as whoever has it can post there: it is no setting, which the run's record would hold.
VARIABLE = "CELEBVISION_WEBHOOK_URL"
TIMEOUT_S = 5.0
TRIES = 2
SUBJECT = 100  # characters, SNS's limit, of ASCII on one line


@dataclass(frozen=True)
class Notice:
    """How a job ended."""

    verb: str
    model: str
    state: str  # done, failed or interrupted
    seconds: float
    output: str
    record: str  # URI of what was kept of it
    results: int = 0
    failures: Mapping[str, int] | None = None  # by stage and error, a blank between
    cost_usd: float | None = None
    result: str = ""
    error: str = ""

    @property
    def title(self) -> str:
        """The line that is seen first."""
        return f"{self.verb} with {printable(self.model)}: {self.state} after {duration(self.seconds)}"

    @property
    def text(self) -> str:
        """Lines for people."""
        lines = [self.title, *([self.result] if self.result else [])]
        failures = dict(self.failures or {})
        if self.results or failures:
            lines.append(f"{self.results:,} images done, {sum(failures.values()):,} failed")
            most_first = sorted(failures.items(), key=lambda item: -item[1])
            lines += [f"  {count:,} × {kind}" for kind, count in most_first]
        if self.cost_usd is not None:
            lines.append(f"cost: {self.cost_usd:,.2f} USD")
        if self.error:
            lines.append(f"error: {printable(self.error)}")
        lines += [f"output: {printable(self.output)}", f"record: {printable(self.record)}"]
        if self.verb != "retrain":
            lines.append(f"a page of it: celebvision report --run {printable(self.record)}")
        if self.state != "done":
            lines.append("The same command continues it.")
        elif failures:
            lines.append("The same command with --retry failures does the failures again.")
        return "\n".join(lines)


def send(notice: Notice, sns_topic: str | None) -> list[str]:
    """Tell the webhook that the environment names, and the SNS topic (its ARN), where there are such.

    Returns:
        Why somebody was not told, as a notice is no reason for a job to fail; nothing of a secret.
    """
    refused = [_to_webhook(os.environ[VARIABLE], notice)] if os.environ.get(VARIABLE) else []
    refused += [_to_sns(sns_topic, notice)] if sns_topic else []
    return [words for words in refused if words]


def _to_webhook(url: str, notice: Notice) -> str:
    if urlsplit(url).scheme not in ("http", "https"):
        return f"{VARIABLE}: the notice was not sent: it should be https://…"
    escaped = notice.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")  # as Slack wants it
    body = json.dumps({"text": escaped}).encode()
    refused = ""
    for _ in range(TRIES):
        try:
            with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=TIMEOUT_S):  # noqa: S310
                return ""
        except HTTPError as error:
            refused = f"it answered {error.code}"
        except (URLError, OSError, HTTPException, ValueError) as error:
            # No error's own words: some hold the URL.
            refused = type(getattr(error, "reason", error)).__name__
    return f"{VARIABLE}: the notice was not taken: {refused}"


def _to_sns(topic: str, notice: Notice) -> str:
    timeouts = Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": TRIES})
    try:
        sns: Any = boto3.client("sns", region_name=topic.split(":")[3], config=timeouts)
        subject = notice.title.encode("ascii", "replace").decode()[:SUBJECT]
        sns.publish(TopicArn=topic, Subject=subject, Message=notice.text)
    except (BotoCoreError, ClientError) as error:
        return f"{topic}: the notice was not taken: {error}"
    return ""
