"""What tells a style: its pictures, the losses that VGG measures, and how a picture is optimised."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from celebvision.config.settings import Part, Settings

VGG = "vgg"  # the name of the model that is no network of the registry: pictures are optimised, one by one


Arch = Literal["vgg19", "vgg16"]


class PerceptualSettings(Part):
    """What content and style are measured by: layers of VGG, and what each loss weighs."""

    content_layers: list[str] = Field(["conv5_2"], min_length=1, description="of VGG, whose features are content")
    style_layers: list[str] = Field(
        [f"conv{block}_1" for block in range(1, 6)], min_length=1, description="of VGG, whose Gram matrices are style"
    )
    content_weight: float = Field(1.0, ge=0, description="of the content loss, a share of the picture's own features")
    style_weight: float = Field(5.0, ge=0, description="of the style loss, a share of the style's own Gram matrices")
    variation_weight: float = Field(0.0, ge=0, description="of the squared difference between neighbouring pixels")
    pooling: Literal["max", "average"] = Field("max", description="between VGG's blocks")
    padding: Literal["zeros", "replicate"] = Field("zeros", description="of VGG's first layer")


class GatysSettings(Part):
    """How a picture is optimised."""

    optimizer: Literal["lbfgs", "adam"] = Field("lbfgs", description="of the pixels")
    learning_rate: float = Field(0.03, gt=0, description="of adam, in units of the pixels' range")
    start: Literal["content", "style", "noise"] = Field("content", description="what a picture begins as")
    scales: int | None = Field(
        None, ge=1, le=6, description="sizes that a picture is drawn at, each twice the one before; none: from 256 on"
    )
    tolerance: float = Field(0.005, ge=0, lt=1, description="a picture is done when ten steps change its loss by less")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="of the average over steps that is given; 0: the last one")
    original_colours: bool = Field(False, description="take the brightness that was drawn, and the picture's colours")
    show_every: int | None = Field(None, ge=1, description="steps between pictures put in the run's folder; none: no")
    seed: int = Field(0, ge=0, description="of the noise")


class StyleWords(Settings):
    """What tells a style, for all verbs that draw."""

    style: list[str] = Field(
        [], description="pictures to draw after (vgg, adain: URIs), or styles of a style_net by their names"
    )
    style_weights: list[float] = Field([], description="of the styles, in their mixture; empty: all alike")
    weights: str = Field("torchvision", description="of VGG: URI of a safetensors or torch file, or torchvision")
    arch: Arch = Field("vgg19", description="the VGG that measures content and style")
    steps: int = Field(300, ge=1, description="of a picture's optimisation, at most")
    perceptual: PerceptualSettings = Field(PerceptualSettings(), description="what vgg optimises")
    gatys: GatysSettings = Field(GatysSettings(), description="how vgg optimises")

    @field_validator("style_weights")
    @classmethod
    def _one_a_style(cls, weights: list[float], info: ValidationInfo) -> list[float]:
        styles = info.data.get("style", [])
        if weights and (len(weights) != len(styles) or min(weights) < 0 or not sum(weights)):
            raise ValueError(f"should be one for each of the {len(styles)} styles, none below 0 and one above")
        return weights

    @property
    def mixture(self) -> list[float]:
        """The weight of each style."""
        return self.style_weights or [1.0] * len(self.style)


STYLE_WORDS = sorted(StyleWords.model_fields.keys() - Settings.model_fields.keys())
