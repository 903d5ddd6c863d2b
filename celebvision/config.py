"""Every job's settings as typed classes, and how words and YAML become one of them.

Flags win over the file, the file over the defaults. Nothing else is read: no environment variable changes a job.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, CliSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

MIB = 2**20
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")  # what names of pictures end in


class WordsError(Exception):
    """The words of a command were wrong: which, and what would be right."""


def _uri(value: str) -> str:
    if not value or (("://" in value) and not value.startswith("s3://")):
        raise ValueError("should be s3://bucket/prefix or a local path")
    if value.startswith("s3://") and not value.removeprefix("s3://").split("/")[0]:
        raise ValueError("should name a bucket: s3://bucket/prefix")
    return value.rstrip("/") or value


URI = Annotated[str, AfterValidator(_uri)]


class Part(BaseModel):
    """A nested group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Settings(BaseSettings):
    """What all jobs have in common."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    summary_as_json: bool = Field(False, alias="json", description="print one JSON line with the outcome to stdout")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


# What the other architectures have no use for.
CLASSIFIERS_ALONE = {"targets", "weights", "schedule", "warmup", "weight_decay", "label_smoothing", "augment"}
CYCLEGAN_ALONE = {"style_data", "cyclegan"}


class IngestSettings(Settings):
    """Original CelebA files, or a folder of style pictures, to Parquet shards for training."""

    source: URI | None = Field(
        None, description="folder with img_align_celeba (folder or .zip) and list_attr_celeba (.txt or .csv)"
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
    def _one_of_both(cls, style_folder: str | None, info: ValidationInfo) -> str | None:
        if "source" in info.data and (info.data["source"] is None) == (style_folder is None):
            raise ValueError("give either --source or --style_folder" + (", not both" if style_folder else ""))
        return style_folder

    @property
    def pictures(self) -> str:
        """The URI that the pictures are under."""
        return self.source or self.style_folder or ""


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
    accumulate: int = Field(1, ge=1, description="parts that a worker's batch is computed in, to save memory")
    style_crop: tuple[float, float] = Field(
        (0.9, 1.0), description="least and largest crop of a style picture, share of its shorter side"
    )
    features: str = Field("inception_v3", description="for KID and FID: inception_v3, or vgg16:relu4_3 and the like")
    features_weights: str = Field("torchvision", description="of those: URI of a safetensors file, or torchvision")
    valid_images: int = Field(500, ge=4, description="validation photos, and style pictures, to measure on")
    grid: int = Field(8, ge=1, description="pictures of each side that an epoch shows")

    @field_validator("style_crop")
    @classmethod
    def _ordered(cls, crop: tuple[float, float]) -> tuple[float, float]:
        if not 0 < crop[0] <= crop[1] <= 1:
            raise ValueError("should be two shares, 0 < least <= largest <= 1")
        return crop


class TrainSettings(Settings):
    """Train a network data-parallel from shards and publish it to the registry."""

    data: URI = Field(description="shards that `ingest` wrote")
    style_data: URI | None = Field(None, description="style shards that `ingest --style_folder` wrote; for cyclegan")
    registry: URI = Field(description="where the model version is published")
    output: URI | None = Field(None, description="checkpoints, history, TensorBoard; none: REGISTRY/_training")
    architecture: Literal["cnn", "inception_v3", "cyclegan"] = Field("cnn", description="kind of network")
    arguments: dict[str, Any] = Field({}, description="the network's own arguments, as JSON")
    name: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9_-]*$", description="in the registry; none: architecture")
    targets: list[str] = Field(["Male"], min_length=1, description="attributes to learn, or all")
    weights: str | None = Field(None, description="pretrained backbone: URI of a safetensors file, or torchvision")
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
    shuffle_buffer: int = Field(4096, ge=1, description="images that a worker mixes")
    max_worker_failures: int = Field(3, ge=0, description="lost workers after which the training gives up")
    seed: int = Field(0, ge=0, description="of weights, order and augmentation")
    promote: bool = Field(False, description="make it the production version even if there is one")

    @model_validator(mode="after")
    def _of_this_architecture(self) -> Self:
        others = CLASSIFIERS_ALONE if self.architecture == "cyclegan" else CYCLEGAN_ALONE
        if wrong := sorted(self.model_fields_set & others):
            raise ValueError(f"{self.architecture} has no setting {', '.join(wrong)}")
        if self.architecture == "cyclegan":
            if self.style_data is None:
                raise ValueError("cyclegan needs style_data: style shards that `ingest --style_folder` wrote")
            if len(self.phases) > 1 or self.phases[0].trainable:
                raise ValueError("phases: cyclegan has one phase, in which all learns")
        return self

    @property
    def model_name(self) -> str:
        return self.name or self.architecture

    @property
    def runs(self) -> str:
        """The URI under which training runs keep their state."""
        return self.output or f"{self.registry}/_training"


class EvaluateSettings(Settings):
    """Measure published models on a split of shards."""

    model: list[str] = Field(min_length=1, description="NAME or NAME@VERSION, one or several")
    registry: URI = Field(description="where the models live")
    data: URI = Field(description="shards that `ingest` wrote")
    output: URI = Field(description="where evaluation.json and predictions.parquet go")
    split: Literal["train", "valid", "test"] = Field("test", description="rows to measure on")
    batch_size: int = Field(128, ge=1, description="images a step")


class BatchSettings(Settings):
    """What all jobs over a bucket have in common."""

    input: URI = Field(description="bucket of photos, or Parquet shards with an image column")
    output: URI = Field(description="where runs, results and failures go")
    model: str = Field(description="NAME (its production version) or NAME@VERSION")
    registry: URI = Field(description="where the model lives")
    input_manifest: URI | None = Field(
        None,
        description="take these keys instead of listing: Parquet or CSV with a column key, or S3 Inventory's manifest",
    )
    suffixes: list[str] = Field(
        list(PICTURES),
        description="endings of the keys to take, in any case; empty: every key",
    )
    glob: str | None = Field(None, description="pattern of the whole key, such as 2024/*/IMG_*.jpg; none: every key")
    min_size_bytes: int | None = Field(None, ge=0, description="leave out smaller objects")
    max_size_bytes: int | None = Field(None, ge=0, description="leave out larger objects")
    modified_since: AwareDatetime | None = Field(None, description="leave out older objects: 2026-01-31T00:00:00Z")
    modified_before: AwareDatetime | None = Field(None, description="leave out objects of that time or newer")
    retry: Literal["failures"] | None = Field(None, description="failures: do those of the earlier runs again")
    batch_size: int = Field(64, ge=1, description="images a forward pass")
    shard_keys: int = Field(1000, ge=1, le=5000, description="keys a worker finishes at a time")
    max_pixels: int = Field(64_000_000, ge=1, description="a larger picture is a failure, not a risk")
    max_bytes: int = Field(64 * MIB, ge=1, description="a larger object is a failure, not a risk")
    fetch_threads: int | None = Field(
        None, ge=1, le=256, description="concurrent requests a worker; none: 16 to a bucket, 2 to a local folder"
    )
    min_actors: int = Field(1, ge=1, description="networks that are loaded at least")
    max_actors: int | None = Field(None, ge=1, description="and at most; none: one for each GPU, or CPU without GPUs")
    stall_timeout_s: float = Field(600.0, gt=0, description="end the run when nothing moves for so long")
    max_failures: int | None = Field(None, ge=0, description="exit status 3 above this many; none: any number is fine")


class ClassifySettings(BatchSettings):
    """Label every picture of a bucket: each once, the broken ones listed with the reason."""

    split_stages: bool | None = Field(
        None, description="fetch and decode in workers of their own, on any node; none: where there are GPUs to feed"
    )


class StylizeSettings(BatchSettings):
    """Redraw every picture of a bucket by a style model: each once, the broken ones listed with the reason."""

    format: Literal["jpeg", "png", "webp"] = Field("jpeg", description="of the pictures that are written")
    quality: int = Field(90, ge=1, le=100, description="of JPEG and WebP")
    size: int | None = Field(None, ge=1, description="pixels of the shorter side; none: as large as the input")
    # A picture takes tens to thousands of times as long to draw as to label.
    batch_size: int = Field(8, ge=1, description="images of one size a forward pass, at most")
    shard_keys: int = Field(50, ge=1, le=5000, description="keys a worker finishes at a time")
    stall_timeout_s: float = Field(1800.0, gt=0, description="end the run when nothing moves for so long")


class PlanSettings(ClassifySettings, StylizeSettings):
    """What `classify` or `stylize` with the same words would do: keys, bytes, time and cost. Writes nothing.

    The model tells which of the two it is, and that verb's defaults hold.
    """

    sample: int = Field(200, ge=1, le=100_000, description="pictures that the forecast is measured on")
    node_type: str | None = Field(None, description="of the price table; none: no cost")
    nodes: int = Field(1, ge=1, description="of that type; the time is this cluster's")
    prices: Path | None = Field(None, description="YAML, dollars an hour by node type; wins over configs/prices.yaml")


class RunsSettings(Settings):
    """What ran on an output, and how it stands."""

    output: URI = Field(description="output of `classify` or `stylize`")


class PromoteSettings(Settings):
    """Make a version the one that the bare name means; name an older one to roll back."""

    model: str = Field(description="NAME@VERSION")
    registry: URI = Field(description="where the model lives")


class DemoSettings(Settings):
    """Everything on this machine: a data set, training, and a messy bucket labelled, over real S3 calls."""

    folder: Path = Field(Path("demo"), description="where pictures, model and results are left for you to look at")
    celeba: Path | None = Field(None, description="folder of the original CelebA files; none: faces drawn by code")
    images: int = Field(1500, ge=200, description="faces to draw for training")
    photos: int = Field(60, ge=7, description="objects in the bucket to label, broken ones among them")
    epochs: int = Field(6, ge=1, description="of training")
    seed: int = Field(0, ge=0, description="of everything")


AnySettings = TypeVar("AnySettings", bound=Settings)


class _Parser(argparse.ArgumentParser):
    known: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        _, _, unknown = message.partition("unrecognized arguments: ")
        if not unknown:
            raise WordsError(message)
        word = unknown.split()[0]
        raise WordsError(f"{word}: there is no such setting{_closest(word, self.known)}")


def parse(settings: type[AnySettings], words: Sequence[str], prog: str) -> AnySettings:
    """Read `[--config FILE.yaml] [--key value …]` into `settings`.

    Raises:
        WordsError: for the first unknown key, wrong type or value out of bounds, with what would be right.
        SystemExit: after `--help`.
    """
    parser = _Parser(prog=prog, description=settings.__doc__, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE.yaml", help="settings from a file; flags win over it")
    source: CliSettingsSource[Any] = CliSettingsSource(
        settings,
        root_parser=parser,
        cli_parse_args=False,
        cli_prog_name=prog,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_implicit_flags=True,
    )
    parser.known = [option for action in parser._actions for option in action.option_strings]
    arguments = parser.parse_args(list(words))
    from_flags = source(parsed_args=arguments)()
    from_file = _read_yaml(Path(arguments.config)) if arguments.config else {}
    try:
        return settings(**_merge(from_file, from_flags))
    except ValidationError as error:
        raise WordsError("\n".join(_sentences(error, settings))) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise WordsError(f"--config {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise WordsError(f"--config {path}: not YAML: {error}") from None
    if not isinstance(content, dict):
        raise WordsError(f"--config {path}: should hold keys and values, holds {type(content).__name__}")
    return content


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _sentences(error: ValidationError, settings: type[BaseModel]) -> list[str]:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            name, known = str(problem["loc"][-1]), _names_beside(problem["loc"], settings)
            lines.append(f"{key}: there is no such setting{_closest(name, known)}")
        elif problem["type"] == "missing":
            lines.append(f"{key}: is missing; give --{key}")
        else:
            right = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            lines.append(f"{key}: {problem['input']!r} is refused: {right}" if key else right)
    return lines


def _names_beside(place: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    for part in place[:-1]:
        annotation = model.model_fields[part].annotation if isinstance(part, str) else None
        for kind in (annotation, *get_args(annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
    return [field.alias or name for name, field in model.model_fields.items()]


def _closest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(sorted(known))}"
