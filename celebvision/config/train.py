"""Settings of training and of the registry."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from celebvision.config.settings import URI, Crop, Part, Settings
from celebvision.config.style import Arch, PerceptualSettings
from celebvision.config.watched import WatchedSettings
from celebvision.models import architectures

# Settings of a training that not every architecture has a use for: of a classifier, and of those that are none.
OF_CLASSIFIERS = {"targets", "weights", "initial", "schedule", "warmup", "weight_decay", "label_smoothing", "augment"}
OF_OTHERS = {
    "cyclegan": {"style_data", "cyclegan"},
    "style_net": {"weights", "arch", "perceptual", "styles", "valid_images"},
    "adain": {"weights", "arch", "perceptual", "style_data", "valid_images"},
}


class Phase(Part):
    """A stretch of epochs with one optimiser."""

    epochs: int = Field(ge=1, description="passes over the training split")
    learning_rate: float = Field(gt=0, description="peak of the schedule")
    trainable: list[str] = Field([], description="prefixes of the parameters that learn; empty: all")


class Augment(Part):
    """Random changes of the training pictures, drawn anew in each epoch; zero switches one off."""

    flip: float = Field(0.5, ge=0, le=1, description="probability of a mirror image")
    shift: float = Field(0.05, ge=0, le=0.5, description="largest shift, share of the side")
    scale: float = Field(0.1, ge=0, lt=1, description="largest change of size, share")
    rotation_deg: float = Field(8.0, ge=0, le=180, description="largest turn")
    brightness: float = Field(0.2, ge=0, le=2, description="largest change, in units of the normalised input")
    contrast: float = Field(0.2, ge=0, lt=1, description="largest change, share")
    saturation: float = Field(0.2, ge=0, le=1, description="largest change, share")
    erase: float = Field(0.25, ge=0, le=1, description="probability that a rectangle is blanked")


class CycleGANSettings(Part):
    """What only CycleGAN has."""

    cycle_weight: float = Field(10.0, ge=0, description="of the way there and back, in the generators' loss")
    identity_weight: float = Field(5.0, ge=0, description="of a picture that has the manner already; 0: not computed")
    pool: int = Field(50, ge=0, description="earlier drawings that a discriminator is shown again")
    discriminator_width: int = Field(64, ge=1, description="channels of its first convolution")
    discriminator_layers: int = Field(3, ge=1, le=5, description="strided ones; 3: patches of 70 pixels, 2: 34, 1: 16")
    diff_augment: list[Literal["colour", "translation", "cutout"]] = Field(
        [], description="random changes before judging, for style sets of a few hundred pictures or less"
    )
    projected: list[str] = Field(
        [],
        description="layers of VGG-16 by which drawn styles are judged besides, for short trainings and small style "
        "sets, such as conv2_2; its weights are features_weights",
    )
    accumulate: int = Field(1, ge=1, description="parts that a worker's batch is computed in, to save memory")
    style_crop: Crop = Field(
        (0.9, 1.0), description="least and largest crop of a style picture, share of its shorter side"
    )
    features: str = Field("inception_v3", description="for KID and FID: inception_v3, or vgg16:relu4_3 and the like")
    features_weights: str = Field("torchvision", description="of those: URI of a safetensors file, or torchvision")
    valid_images: int = Field(500, ge=4, description="validation photos, and style pictures, to measure on")
    grid: int = Field(8, ge=1, description="pictures of each side that an epoch shows")


class TrainSettings(WatchedSettings):
    """Train a network data-parallel from shards and publish it to the registry."""

    data: URI = Field(description="shards that `ingest` wrote")
    style_data: URI | None = Field(
        None, description="style shards that `ingest --style_folder` wrote; for cyclegan and adain"
    )
    styles: dict[str, URI] = Field({}, description="of a style_net: the picture that each style is of, by its name")
    registry: URI = Field(description="where the model version is published")
    output: URI | None = Field(None, description="checkpoints, history, TensorBoard; none: REGISTRY/_training")
    architecture: str = Field("cnn", description=f"kind of network: {', '.join(architectures())}")
    arguments: dict[str, Any] = Field({}, description="the network's own arguments, as JSON")
    name: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9_-]*$", description="in the registry; none: architecture")
    targets: list[str] = Field(["Male"], min_length=1, description="attributes to learn, or all")
    weights: str | None = Field(
        None, description="pretrained backbone, or VGG: URI of a safetensors or torch file, or torchvision"
    )
    initial: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9_-]*@.+$",
        description="NAME@VERSION of the registry whose weights it begins with: the same architecture and targets",
    )
    arch: Arch = Field("vgg19", description="of style_net and adain: the VGG that measures content and style")
    perceptual: PerceptualSettings = Field(PerceptualSettings(), description="of style_net and adain: their losses")
    valid_images: int = Field(64, ge=1, description="of style_net and adain: validation photos to measure on")
    cyclegan: CycleGANSettings = Field(CycleGANSettings(), description="what only cyclegan has")
    epoch_images: int | None = Field(None, ge=1, description="training images an epoch; none: all there are")
    phases: list[Phase] = Field(
        [Phase(epochs=20, learning_rate=2e-3)], min_length=1, description="run one after another"
    )
    batch_size: int = Field(64, ge=2, le=65536, description="images a step, over all workers together")
    schedule: Literal["one_cycle", "cosine"] = Field("one_cycle", description="of the learning rate, in each phase")
    warmup: float = Field(0.2, gt=0, lt=1, description="share of a phase in which a one_cycle rate rises")
    weight_decay: float = Field(0.05, ge=0, description="of AdamW, on matrices and filters only")
    label_smoothing: float = Field(0.05, ge=0, lt=1, description="share of a target that is one half, not 0 or 1")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="of the averaged weights that are published; 0: none")
    augment: Augment = Field(Augment(), description="random changes of the training pictures")
    patience: int = Field(0, ge=0, description="stop after this many epochs without a better validation; 0: never")
    workers: int = Field(1, ge=1, description="data-parallel processes, one GPU each where there are GPUs")
    min_workers: int | None = Field(
        None, ge=1, description="go on with so few when nodes are lost, and grow again; none: wait for all workers"
    )
    shuffle_buffer: int = Field(4096, ge=1, description="images that a worker mixes")
    max_worker_failures: int = Field(3, ge=0, description="lost workers after which the training gives up")
    seed: int = Field(0, ge=0, description="of weights, order and augmentation")
    promote: bool = Field(False, description="make it the production version even if there is one")

    @field_validator("architecture")
    @classmethod
    def _known(cls, architecture: str) -> str:
        if architecture not in architectures():
            raise ValueError(f"should be one of {', '.join(architectures())}")
        return architecture

    @model_validator(mode="after")
    def _of_this_architecture(self) -> Self:
        own = OF_OTHERS.get(self.architecture, OF_CLASSIFIERS)
        others = OF_CLASSIFIERS.union(*OF_OTHERS.values()) - own
        if wrong := sorted(self.model_fields_set & others):
            raise ValueError(f"{self.architecture} has no setting {', '.join(wrong)}")
        if self.weights and self.initial:
            raise ValueError("weights and initial: give one of both; the version's weights replace the backbone's")
        if "style_data" in own and self.style_data is None:
            raise ValueError(f"{self.architecture} needs style_data: style shards that `ingest --style_folder` wrote")
        if self.architecture == "style_net" and not self.styles:
            raise ValueError("style_net needs styles: names, and the picture that each is of")
        if self.architecture in OF_OTHERS and (len(self.phases) > 1 or self.phases[0].trainable):
            raise ValueError(f"phases: {self.architecture} has one phase, in which all learns")
        return self

    @model_validator(mode="after")
    def _workers_that_fit(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers: {self.min_workers} is more than the {self.workers} of workers")
        if self.batch_size < self.workers:
            raise ValueError(f"batch_size: {self.batch_size} is less than an image for each of {self.workers} workers")
        return self

    @property
    def model_name(self) -> str:
        """Under which it is published."""
        return self.name or self.architecture

    @property
    def runs(self) -> str:
        """The URI under which training runs keep their state."""
        return self.output or f"{self.registry}/_training"


class PromoteSettings(Settings):
    """Make a version the one that the bare name means; name an older one to roll back."""

    model: str = Field(description="NAME@VERSION")
    registry: URI = Field(description="where the model lives")
