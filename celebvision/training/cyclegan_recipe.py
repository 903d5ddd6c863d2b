"""Training of a CycleGAN: from settings to a published version of each direction."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from numpy.typing import NDArray
from torch import Tensor

from celebvision import images, registry
from celebvision.celeba.shards import DataSet, ReadRowGroup, first_pictures
from celebvision.celeba.styles import StylePictures
from celebvision.config import TrainSettings
from celebvision.job import JobFailed, code_version
from celebvision.models import complete_arguments
from celebvision.models.cyclegan import CycleGAN
from celebvision.models.features import Features, InceptionFeatures, VGGStatistics, make_features
from celebvision.models.stylizer import Stylizer
from celebvision.models.vgg import VGG
from celebvision.pretrained import weights_of
from celebvision.training.cyclegan import LOADED, CycleGANTask, Judged, grid
from celebvision.training.recipe import Parallel

REVERSE = "-reverse"  # behind a model's name: the way back
SAMPLES = 8  # pictures that a version shows


class CycleGANRecipe:
    """Photos drawn in the manner of a style set, and the pictures of the style set as photos."""

    figures: tuple[str, ...] = ("epoch", "kid", "kid_share", "fid", "kid_reverse", "cycle_l1", "variety")

    def __init__(self, settings: TrainSettings, data: DataSet) -> None:
        self.settings, self.data, self.words = settings, data, settings.cyclegan
        if not data.rows("valid"):
            raise JobFailed(f"{settings.data}: the valid split is empty")
        self.style_uri = str(settings.style_data)
        self.style_data = DataSet.load(self.style_uri)
        if self.style_data.rows("train") < 2:
            raise JobFailed(f"{self.style_uri}: holds {self.style_data.rows('train')} pictures; at least 2 are needed")
        both = f"{data.digest} {self.style_data.digest}"
        self.data_digest = hashlib.sha256(both.encode()).hexdigest()
        try:
            self.size = CycleGAN(**settings.arguments).preprocessing.height
        except (TypeError, ValueError) as error:
            raise JobFailed(f"arguments: {settings.arguments} are refused by cyclegan: {error}") from None
        try:
            make_features(self.words.features)
        except ValueError as error:
            raise JobFailed(f"cyclegan.features: {error}") from None
        self._vgg()
        loaded = math.ceil(self.size * LOADED)
        self.read = ReadRowGroup(settings.data, (), loaded, loaded)
        self.judged: Any = None

    def prepare(self) -> None:
        vgg = self._vgg()
        if vgg:
            self._load(vgg, "vgg16")
        self.judged = ray.put(Judged(self._photos(), self._styles(), self._features(), vgg))

    def task(self, device: torch.device, parallel: Parallel) -> CycleGANTask:
        context = ray.train.get_context()
        rank, world = context.get_world_rank(), context.get_world_size()
        return CycleGANTask(self.settings, ray.get(self.judged), device, rank, world, parallel)

    def publish(self, weights: dict[str, Tensor], metrics: dict[str, float]) -> dict[str, str]:
        versions = {}
        name = self.settings.model_name
        for direction, title in (("to_style", name), ("to_photo", f"{name}{REVERSE}")):
            state = {
                key.removeprefix(f"{direction}."): value
                for key, value in weights.items()
                if key.startswith(f"{direction}.")
            }
            network = CycleGAN(**self.settings.arguments)
            network.load_state_dict(state)
            inputs = self._photos(SAMPLES) if direction == "to_style" else self._styles(SAMPLES)
            shown = torch.from_numpy(inputs)
            sheet = grid([shown, Stylizer(network).draw(shown)])
            model = registry.publish(
                self.settings.registry,
                title,
                state=state,
                architecture="cyclegan",
                arguments=complete_arguments("cyclegan", **self.settings.arguments),
                preprocessing=network.preprocessing.to_json(),
                targets=[],
                classes={},
                metrics=metrics,
                data_digest=self.data_digest,
                code_version=code_version(),
                seed=self.settings.seed,
                card=self._card(title, direction, metrics),
                samples={"before-after.png": images.encode(sheet, "png")},
            )
            versions[title] = model.version
        return versions

    def _photos(self, count: int | None = None) -> NDArray[np.uint8]:
        """The first photos of the validation split, uint8 N H W 3: the same for all and always."""
        count = count or self.words.valid_images
        return first_pictures(self.settings.data, self.data, "valid", self.size, count)

    def _styles(self, count: int | None = None) -> NDArray[np.uint8]:
        styles = StylePictures(self.style_uri, self.size, self.words.style_crop)
        styles.load(self.settings.seed)
        return styles.fixed(count or self.words.valid_images)

    def _features(self) -> Features:
        features = make_features(self.words.features)
        self._load(features, features.name)
        return features

    def _vgg(self) -> VGG | None:
        """By which drawn styles are judged besides, without its weights."""
        if not self.words.projected:
            return None
        if not self.words.features.startswith("vgg16:"):
            raise JobFailed(
                f"cyclegan.projected: its weights are features_weights, which are of {self.words.features}; give "
                "features: vgg16:relu4_3"
            )
        try:
            return VGG("vgg16", self.words.projected)
        except ValueError as error:
            raise JobFailed(f"cyclegan.projected: {error}") from None

    def _load(self, network: InceptionFeatures | VGGStatistics | VGG, name: str) -> None:
        weights = self.words.features_weights
        try:
            network.load(weights_of(weights, name))
        except ValueError as error:
            raise JobFailed(f"cyclegan.features_weights: {weights}: {error}") from None

    def _card(self, title: str, direction: str, metrics: dict[str, float]) -> str:
        settings = self.settings
        layers = ", ".join(self.words.projected)
        judged = f" Drawn styles were judged by {layers} of VGG-16 too." if layers else ""
        does = "draws photos in the manner of" if direction == "to_style" else "draws photos of pictures such as"
        return f"""# {title}

A `cyclegan` generator that {does} `{self.style_data.source}` ({self.style_data.rows("train")} pictures, digest
`{self.style_data.digest[:12]}`).

Trained on {self.data.rows("train")} photos of `{self.data.source}` (digest `{self.data.digest[:12]}`) at {self.size}
pixels, seed {settings.seed}.{judged} `kid` and `fid` are of features `{self.words.features}` (weights
`{self.words.features_weights}`), between {min(self.words.valid_images, self.data.rows("valid"))} validation photos as
drawn and the style set; `kid_share` is `kid` as a share of what the photos themselves have. The best epoch was chosen
by `kid`.

{registry.table_of(metrics)}

It learnt from aligned faces of celebrities; what it makes of other pictures was not measured.
"""
