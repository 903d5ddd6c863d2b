"""What all settings are made of: groups of them, URIs, and what wrong words are told by."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

MIB = 2**20
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")  # what names of pictures end in


class WordsError(Exception):
    """The words of a command were wrong: which, and what would be right."""


def _uri(value: str) -> str:
    if not value or (("://" in value) and not value.startswith("s3://")):
        raise ValueError("should be s3://bucket/prefix or a local path")
    if value.startswith("s3://") and not value.removeprefix("s3://").split("/")[0]:
        raise ValueError("should name a bucket: s3://bucket/prefix")
    return value.rstrip("/") or value


URI = Annotated[str, AfterValidator(_uri)]


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("should be http://HOST:PORT")
    if parts.username or parts.password:
        raise ValueError("should hold no user or password: it is written to the run's record")
    return value.rstrip("/")


WebAddress = Annotated[str, AfterValidator(_web_address)]


def _ordered(crop: tuple[float, float]) -> tuple[float, float]:
    if not 0 < crop[0] <= crop[1] <= 1:
        raise ValueError("should be two shares, 0 < least <= largest <= 1")
    return crop


Crop = Annotated[tuple[float, float], AfterValidator(_ordered)]


class Part(BaseModel):
    """A nested group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Settings(BaseSettings):
    """What all jobs have in common."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    summary_as_json: bool = Field(False, alias="json", description="print one JSON line with the outcome to stdout")
    log_json: bool = Field(False, description="say all on stderr as lines of JSON, for what collects logs")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Of pydantic-settings: words alone, and neither the environment nor a file of secrets."""
        return (init_settings,)


# How a job speaks, which changes nothing of what it does.
SPEECH = set(Settings.model_fields)

# Settings of a training that not every architecture has a use for.
