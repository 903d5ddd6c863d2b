"""Settings of the page about a run."""

from __future__ import annotations

from pydantic import Field

from celebvision.config.settings import URI, Settings


class ReportSettings(Settings):
    """A run as one page to look at: what it did, how fast, what failed and why, and pictures."""

    run: URI = Field(description="OUTPUT/runs/RUN of classify or stylize, or the folder of a training")
    output: URI | None = Field(None, description="folder that the page is put into; none: the run's own")
