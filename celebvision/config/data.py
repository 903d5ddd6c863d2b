"""Settings of what makes shards and shows it all."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from celebvision.config.settings import MIB, URI, Settings


class IngestSettings(Settings):
    """Original CelebA files, or a folder of labelled or of style pictures, to Parquet shards for training."""

    source: URI | None = Field(
        None, description="folder with img_align_celeba (folder or .zip) and list_attr_celeba (.txt or .csv)"
    )
    labelled: URI | None = Field(
        None,
        description="instead: folder of pictures with labels.csv or labels.parquet at its root: key, relative to the "
        "folder, and 1 or 0 for each attribute that is known",
    )
    style_folder: URI | None = Field(
        None, validate_default=True, description="instead: folder of pictures in one style, at any depth"
    )
    output: URI = Field(description="where the shards and dataset.json go")
    seed: int = Field(0, ge=0, description="of the order of rows, and of the split where the source has none")
    shard_bytes: int = Field(128 * MIB, ge=MIB, description="size of a shard, about")
    row_group_bytes: int = Field(16 * MIB, ge=64 * 1024, description="size of a row group, about")
    max_failures: int | None = Field(None, ge=0, description="exit status 3 above this many; none: any number is fine")

    @field_validator("style_folder")
    @classmethod
    def _one_of_three(cls, style_folder: str | None, info: ValidationInfo) -> str | None:
        given = sum(place is not None for place in (info.data.get("source"), info.data.get("labelled"), style_folder))
        if {"source", "labelled"} <= info.data.keys() and given != 1:
            raise ValueError("give one of --source, --labelled and --style_folder" + (", not several" if given else ""))
        return style_folder

    @property
    def pictures(self) -> str:
        """The URI that the pictures are under."""
        return self.source or self.labelled or self.style_folder or ""


class DemoSettings(Settings):
    """Everything on this machine: a data set, training, and a messy bucket labelled, over real S3 calls."""

    folder: Path = Field(Path("demo"), description="where pictures, model and results are left for you to look at")
    celeba: Path | None = Field(None, description="folder of the original CelebA files; none: faces drawn by code")
    images: int = Field(1500, ge=200, description="faces to draw for training")
    photos: int = Field(60, ge=7, description="objects in the bucket to label, broken ones among them")
    epochs: int = Field(6, ge=1, description="of training")
    seed: int = Field(0, ge=0, description="of everything")
