"""Settings of a job that runs on a cluster elsewhere."""

from __future__ import annotations

import re
import shlex
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from celebvision.config.batch import ClassifySettings, PlanSettings, StylizeSettings
from celebvision.config.data import IngestSettings
from celebvision.config.evaluate import EvaluateSettings
from celebvision.config.parse import parse
from celebvision.config.retrain import RetrainSettings
from celebvision.config.settings import Settings, WebAddress, WordsError
from celebvision.config.train import TrainSettings

JOBS: dict[str, type[Settings]] = {
    "ingest": IngestSettings,
    "train": TrainSettings,
    "retrain": RetrainSettings,
    "evaluate": EvaluateSettings,
    "classify": ClassifySettings,
    "stylize": StylizeSettings,
    "plan": PlanSettings,
}


class SubmitSettings(Settings):
    """Run another verb on a Ray cluster: `submit VERB --address URL -- words of that verb`; alone: what ran there."""

    address: WebAddress = Field(description="http://HOST:PORT of the cluster's dashboard, or of a tunnel to it")
    verb: Literal["ingest", "train", "retrain", "evaluate", "classify", "stylize", "plan"] | None = Field(
        None, description="the word behind submit"
    )
    words: str = Field("", description="of that verb: what stands behind --")
    follow: bool = Field(True, description="show what the job says until it ends, and end with its exit status")
    code: Literal["here", "image"] = Field(
        "here", description="here: send the code of this command; image: use what the cluster has installed"
    )
    gpus: int | None = Field(None, ge=1, description="refuse a cluster that cannot have so many; none: any will do")
    env: list[str] = Field([], description="names of variables that the job is given as they are here; no secrets")
    status: str | None = Field(None, description="ID of a job: how it stands")
    logs: str | None = Field(None, description="ID of a job: what it says, followed until it ends")
    stop: str | None = Field(None, description="ID of a job: end it; the same submission continues it")

    @field_validator("env")
    @classmethod
    def _no_secrets(cls, names: list[str]) -> list[str]:
        for name in names:
            if re.search("SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|KEY|AUTH|WEBHOOK|^AWS_PROFILE$", name, re.IGNORECASE):
                raise ValueError(f"{name} looks like a secret: the dashboard shows it; give the cluster a role instead")
        return names

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        asked = [name for name in ("verb", "status", "logs", "stop") if getattr(self, name) is not None]
        if len(asked) > 1:
            raise ValueError(f"{', '.join(asked)}: give one of them")
        if self.verb is None and self.words:
            raise ValueError(f"{self.words}: of which verb? write submit VERB --address URL -- {self.words}")
        if self.verb is not None:
            try:
                self.job()
            except WordsError as error:
                raise ValueError(str(error)) from None
        return self

    def job(self) -> Settings:
        """The settings of the verb. Raises `WordsError`, and `SystemExit` after `--help`."""
        return parse(JOBS[str(self.verb)], shlex.split(self.words), f"celebvision {self.verb}")
