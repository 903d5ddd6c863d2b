"""Settings of the look at jobs from a terminal."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from celebvision.config.settings import URI, Settings, WebAddress


class TopSettings(Settings):
    """How jobs stand, again and again in a terminal: from the records of their output, or what they tell meanwhile."""

    output: URI | None = Field(None, description="output of `classify` or `stylize`")
    metrics: WebAddress | None = Field(
        None, description="http://HOST:PORT of Prometheus, of a Pushgateway, or of what a Ray node exports"
    )
    once: bool = Field(False, description="show it once and end, as where there is no terminal")
    every_s: float = Field(2.0, ge=0.2, le=3600, description="seconds between looks")

    @model_validator(mode="after")
    def _looks_somewhere(self) -> Self:
        if not (self.output or self.metrics):
            raise ValueError("give --output, --metrics or both: where to look")
        return self
