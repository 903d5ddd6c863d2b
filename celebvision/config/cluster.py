"""Settings of the cluster that is one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from celebvision.config.settings import Settings


class ClusterSettings(Settings):
    """A Ray cluster on this machine that grows with the work and shrinks again: `up`, `status` or `down`."""

    action: Literal["up", "status", "down"] = Field(description="the word behind the verb")
    folder: Path = Field(
        Path("~/.celebvision/cluster"), description="where its token and what is known of it lie; one cluster each"
    )
    max_nodes: int = Field(3, ge=1, le=64, description="workers at most; at first there is none")
    node_cpus: int = Field(2, ge=1, description="CPUs that a worker says it has, whatever the machine has")
    node_gpus: int = Field(0, ge=0, description="GPUs that a worker says it has")
    idle_s: float = Field(60.0, gt=0, description="after which a worker without work goes")
    port: int = Field(6379, ge=1024, le=65535, description="of Ray on the head")
    dashboard_port: int = Field(8265, ge=1024, le=65535, description="of the dashboard, and of jobs for submit")
