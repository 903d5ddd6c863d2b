"""Settings of what models are measured by."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from celebvision.config.settings import URI, Crop
from celebvision.config.style import STYLE_WORDS, VGG, StyleWords


class EvaluateSettings(StyleWords):
    """Measure models on labelled pictures: classifiers, or what draws, side by side on the same pictures."""

    model: list[str] = Field(min_length=1, description="NAME, NAME@VERSION or vgg, one or several")
    registry: URI | None = Field(None, description="where the models live")
    data: URI = Field(
        description="shards that `ingest` wrote; for classifiers also a folder of pictures with labels.csv or "
        "labels.parquet at its root: key, relative to the folder, and a column for each attribute that is known"
    )
    output: URI = Field(description="where evaluation.html, .json, tables, predictions or a sheet of what was drawn go")
    split: Literal["train", "valid", "test"] = Field("test", description="of shards: rows to measure on")
    batch_size: int | None = Field(None, ge=1, description="images a step; none: 128, and 16 where they are drawn")
    images: int = Field(100, ge=2, description="that are drawn, the first of the split")
    size: int = Field(128, ge=32, description="pixels of a side of what is drawn")
    style_data: URI | None = Field(
        None, description="style shards that fid and kid are measured to; none: crops of --style"
    )
    style_crop: Crop = Field(
        (0.5, 1.0), description="least and largest crop for that set, share of a style picture's shorter side"
    )
    features: str = Field("inception_v3", description="for KID and FID: inception_v3, or vgg16:relu4_3 and the like")
    features_weights: str = Field("torchvision", description="of those: URI of a file, or torchvision")
    lpips_weights: str = Field("torchvision", description="of the VGG-16 of LPIPS: URI of a file, or torchvision")

    @model_validator(mode="after")
    def _of_these_models(self) -> Self:
        names = [model.partition("@")[0] for model in self.model]
        if self.registry is None and set(names) != {VGG}:
            raise ValueError("registry: is missing; give --registry, unless every model is vgg")
        if VGG in names and not self.style:
            raise ValueError("vgg needs --style, a picture or several")
        return self

    @property
    def of_drawing(self) -> list[str]:
        """The words that were given and that no classifier has a use for."""
        own = {"images", "size", "style_data", "style_crop", "features", "features_weights", "lpips_weights"}
        return sorted(self.model_fields_set & own.union(STYLE_WORDS))
