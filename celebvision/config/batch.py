"""Settings of jobs over a bucket."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import AwareDatetime, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import CliVariadicArg

from celebvision.config.settings import MIB, PICTURES, URI, Settings
from celebvision.config.style import VGG, StyleWords
from celebvision.config.watched import WatchedSettings


class BatchSettings(WatchedSettings):
    """What all jobs over a bucket have in common."""

    input: URI = Field(description="bucket of photos, or Parquet shards with an image column")
    output: URI = Field(description="where runs, results and failures go")
    model: str = Field(description="NAME (its production version) or NAME@VERSION")
    registry: URI | None = Field(None, validate_default=True, description="where the model lives")
    input_manifest: URI | None = Field(
        None,
        description="take these keys instead of listing: Parquet or CSV with a column key, or S3 Inventory's manifest",
    )
    suffixes: list[str] = Field(
        list(PICTURES),
        description="endings of the keys to take, in any case; empty: every key",
    )
    glob: str | None = Field(None, description="pattern of the whole key, such as 2024/*/IMG_*.jpg; none: every key")
    min_size_bytes: int | None = Field(None, ge=0, description="leave out smaller objects")
    max_size_bytes: int | None = Field(None, ge=0, description="leave out larger objects")
    modified_since: AwareDatetime | None = Field(None, description="leave out older objects: 2026-01-31T00:00:00Z")
    modified_before: AwareDatetime | None = Field(None, description="leave out objects of that time or newer")
    retry: Literal["failures"] | None = Field(None, description="failures: do those of the earlier runs again")
    batch_size: int = Field(64, ge=1, description="images a forward pass")
    shard_keys: int = Field(1000, ge=1, le=5000, description="keys a worker finishes at a time")
    max_pixels: int = Field(64_000_000, ge=1, description="a larger picture is a failure, not a risk")
    max_bytes: int = Field(64 * MIB, ge=1, description="a larger object is a failure, not a risk")
    fetch_threads: int | None = Field(
        None, ge=1, le=256, description="concurrent requests a worker; none: 16 to a bucket, 2 to a local folder"
    )
    min_actors: int = Field(1, ge=1, description="networks that are loaded at least")
    max_actors: int | None = Field(
        None, ge=1, description="and at most; none: two for each GPU, or one for each CPU without"
    )
    stall_timeout_s: float = Field(600.0, gt=0, description="end the run when nothing moves for so long")
    max_failures: int | None = Field(None, ge=0, description="exit status 3 above this many; none: any number is fine")

    @field_validator("registry")
    @classmethod
    def _known_where(cls, registry: str | None, info: ValidationInfo) -> str | None:
        if registry is None and info.data.get("model") != VGG:
            raise PydanticCustomError("missing", "should name where the model lives")
        return registry


class ClassifySettings(BatchSettings):
    """Label every picture of a bucket: each once, the broken ones listed with the reason."""

    uncertain_below: float | None = Field(
        None, ge=0.5, le=1, description="label what is less probable than this `uncertain`; none: nothing"
    )
    split_stages: bool | None = Field(
        None, description="fetch and decode in workers of their own, on any node; none: where there are GPUs to feed"
    )


class StylizeSettings(BatchSettings, StyleWords):
    """Redraw every picture of a bucket by a style model: each once, the broken ones listed with the reason."""

    model: str = Field(description="NAME (its production version) or NAME@VERSION; vgg: optimise each (Gatys et al.)")
    format: Literal["jpeg", "png", "webp"] = Field("jpeg", description="of the pictures that are written")
    quality: int = Field(90, ge=1, le=100, description="of JPEG and WebP")
    size: int | None = Field(None, ge=1, description="pixels of the shorter side; none: as large as the input")
    # A picture takes tens to thousands of times as long to draw as to label.
    batch_size: int = Field(8, ge=1, description="images of one size a forward pass, at most")
    shard_keys: int = Field(50, ge=1, le=5000, description="keys a worker finishes at a time")
    stall_timeout_s: float = Field(1800.0, gt=0, description="end the run when nothing moves for so long")

    @model_validator(mode="after")
    def _of_this_model(self) -> Self:
        if self.model == VGG and not (self.style and self.size):
            raise ValueError("vgg needs --style, a picture or several, and --size, pixels of the shorter side")
        return self


class PlanSettings(ClassifySettings, StylizeSettings):
    """What `classify` or `stylize` with the same words would do: keys, bytes, time and cost. Writes nothing.

    The model tells which of the two it is, and that verb's defaults hold.
    """

    sample: int = Field(200, ge=1, le=100_000, description="pictures that the forecast is measured on")
    nodes: int = Field(1, ge=1, description="of that type; the time is this cluster's")


class RunsSettings(Settings):
    """What ran on an output, and how it stands."""

    output: URI = Field(description="output of `classify` or `stylize`")
    html: bool = Field(False, description="write them as a page, OUTPUT/runs.html, with links to the reports there are")
    compare: CliVariadicArg[tuple[str, str] | None] = Field(
        None, description="two run ids of classify: how far pictures and answers of the second are from the first's"
    )
