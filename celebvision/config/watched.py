"""Settings of how a job is watched: they change nothing of what it does."""

from __future__ import annotations

from pathlib import Path

from pydantic import AwareDatetime, Field

from celebvision.config.settings import Settings, WebAddress


class WatchedSettings(Settings):
    """Where a job's figures go, and what they are held against."""

    pushgateway: WebAddress | None = Field(
        None, description="http://HOST:PORT of a Prometheus Pushgateway, which keeps the figures when the job is gone"
    )
    cloudwatch: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.#-]{0,254}$",
        description="namespace of AWS CloudWatch that key figures go to, and failures by JSON logs (see --log_json)",
    )
    sns_topic: str | None = Field(
        None,
        pattern=r"^arn:aws[\w-]*:sns:[\w-]+:\d{12}:[\w-]+$",
        description="ARN of an SNS topic that is told when the job ends, as the webhook is whose URL the environment "
        "has as CELEBVISION_WEBHOOK_URL",
    )
    deadline: AwareDatetime | None = Field(
        None, description="when it is to be done, for an alert if it won't: 2026-01-31T07:00:00Z; none: any time"
    )
    node_type: str | None = Field(
        None, description="of the price table: what the nodes are that work, for the cost; none: no cost"
    )
    prices: Path | None = Field(None, description="YAML, dollars an hour by node type; wins over configs/prices.yaml")


WATCHED = set(WatchedSettings.model_fields) - set(Settings.model_fields)
