"""Settings of what is done when new data has landed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from celebvision.config.settings import SPEECH, URI
from celebvision.config.train import OF_OTHERS, TrainSettings


class RetrainSettings(TrainSettings):
    """Train on what has landed since the champion was trained, compare the two, and promote or keep."""

    data: URI = Field(
        description="a data set (dataset.json), and in it a folder for each later drop: shards, or pictures with "
        "labels.csv or labels.parquet beside them; a folder whose name begins with _ is no drop"
    )
    start: Literal["champion", "anew"] = Field(
        "champion", description="what the challenger begins with: the champion's weights, or those of a new network"
    )
    rule: Literal["better", "not_worse"] = Field(
        "better",
        description="better: promote a challenger that is shown better than the champion on the base's test split, or "
        "that is not shown worse there and shown better on the test rows of the drops that the champion has not seen; "
        "not_worse: promote unless it is shown worse on either. Shown: by McNemar's test, over the answers to all "
        "targets together",
    )
    dry_run: bool = Field(False, description="say what would be done, and write nothing")

    @field_validator("architecture")
    @classmethod
    def _answers(cls, architecture: str) -> str:
        if architecture in OF_OTHERS:
            raise ValueError(
                "it draws pictures, which are neither right nor wrong: take one that answers attributes, such as cnn"
            )
        return architecture

    @model_validator(mode="after")
    def _decides_itself(self) -> Self:
        if given := sorted(self.model_fields_set & {"promote", "initial"}):
            raise ValueError(f"{', '.join(given)}: retrain itself decides that, by start and rule; leave it out")
        return self

    def training(self, initial: str | None) -> TrainSettings:
        """The settings of the challenger's training, which begins with the version `initial`, or anew."""
        given = self.model_fields_set & TrainSettings.model_fields.keys() - SPEECH
        words = {name: getattr(self, name) for name in given}
        if initial:
            words.pop("weights", None)  # of the backbone: the version has its own
        return TrainSettings(**words, initial=initial)
