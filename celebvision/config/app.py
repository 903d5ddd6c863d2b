"""Settings of the page that people upload pictures to."""

from __future__ import annotations

from pydantic import Field

from celebvision.config.settings import MIB, URI, Settings
from celebvision.config.style import Arch


class AppSettings(Settings):
    """A page in the browser: upload pictures, have them labelled or redrawn. It stores nothing."""

    registry: URI = Field(description="whose models it offers; one that is published while it runs appears")
    address: str = Field("127.0.0.1", description="to listen on; of others than this machine only behind what asks who")
    port: int = Field(8501, ge=1024, le=65535, description="to listen on")
    metrics_port: int | None = Field(None, ge=1024, le=65535, description="of its own metrics, for Prometheus")
    weights: str = Field("torchvision", description="of VGG, to paint live: URI of a file, or torchvision")
    arch: Arch = Field("vgg19", description="the VGG that measures content and style")
    max_pictures: int = Field(20, ge=1, le=200, description="at a time")
    max_bytes: int = Field(20 * MIB, ge=1, description="of an upload")
    max_pixels: int = Field(40_000_000, ge=1, description="of an upload")
    max_side: int = Field(1024, ge=64, le=4096, description="pixels of the shorter side that is drawn, at most")
    timeout_s: float = Field(120.0, gt=0, description="of one picture that is painted live")
    at_once: int = Field(1, ge=1, le=64, description="requests that compute at a time; others queue")
    memory_bytes: int = Field(2048 * MIB, ge=MIB, description="of weights that stay loaded; the least used go first")
