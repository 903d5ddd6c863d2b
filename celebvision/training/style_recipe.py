"""Training of a feed-forward style network: from settings and style pictures to a published version."""

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
from celebvision.models.adain import AdaIN
from celebvision.models.style_net import StyleNet
from celebvision.models.stylizer import Stylizer
from celebvision.pretrained import weights_of
from celebvision.sheet import contact_sheet
from celebvision.storage import open_store
from celebvision.styling import perceptual
from celebvision.training.cyclegan import LOADED, grid
from celebvision.training.recipe import Parallel
from celebvision.training.style import STYLE_CROP, Judged, StyleTask, adain, loss_settings, middle, style_net

SAMPLES = 8  # photos that a version shows
SHOWN_STYLES = 8  # style pictures that a version of adain shows
COLUMNS = 8  # of the sheet of styles
VGG_KEYS = "features."  # what the names of VGG's convolutions begin with; the rest of it is not needed

Pictures = dict[str, NDArray[np.uint8]]  # H W 3, by name


class StyleRecipe:
    """Photos drawn in the styles of pictures: of named ones (`style_net`), or of any (`adain`)."""

    def __init__(self, settings: TrainSettings, data: DataSet) -> None:
        self.settings, self.data = settings, data
        if not data.rows("valid"):
            raise JobFailed(f"{settings.data}: the valid split is empty")
        self.is_style_net = settings.architecture == "style_net"
        self.words = loss_settings(settings)
        network = self._network()
        self.preprocessing, self.size = network.preprocessing, network.preprocessing.height
        self.styles, digests = self._named() if self.is_style_net else self._of_set()
        self.data_digest = hashlib.sha256(" ".join((data.digest, *digests)).encode()).hexdigest()
        named = [f"style_loss_{name}" for name in settings.styles]
        self.figures: tuple[str, ...] = ("epoch", "loss", "content_loss", "style_loss", *named)
        loaded = math.ceil(self.size * LOADED)
        self.read = ReadRowGroup(settings.data, (), loaded, loaded)
        self.judged: Any = None

    def prepare(self) -> None:
        weights = weights_of(self.settings.weights or "torchvision", self.settings.arch)
        perceptual(self.words, self.settings.arch, weights, torch.device("cpu"))  # refuses what does not fit
        vgg = {key: value for key, value in weights.items() if key.startswith(VGG_KEYS)}
        self.judged = ray.put(Judged(self._photos(self.settings.valid_images), self.styles, vgg))

    def task(self, device: torch.device, parallel: Parallel) -> StyleTask:
        context = ray.train.get_context()
        rank, world = context.get_world_rank(), context.get_world_size()
        return StyleTask(self.settings, ray.get(self.judged), device, rank, world, parallel)

    def publish(self, weights: dict[str, Tensor], metrics: dict[str, float]) -> dict[str, str]:
        settings = self.settings
        network = self._network()
        network.load_state_dict(weights)
        own = {"styles": list(settings.styles)} if self.is_style_net else {"arch": settings.arch}
        model = registry.publish(
            settings.registry,
            settings.model_name,
            state=weights,
            architecture=settings.architecture,
            arguments=complete_arguments(settings.architecture, **own, **settings.arguments),
            preprocessing=self.preprocessing.to_json(),
            targets=[],
            classes={},
            metrics=metrics,
            data_digest=self.data_digest,
            code_version=code_version(),
            seed=settings.seed,
            card=self._card(metrics),
            samples={"styles.png": self._thumbnails(), "before-after.png": self._before_after(network)},
        )
        return {model.name: model.version}

    def _network(self) -> StyleNet | AdaIN:
        return style_net(self.settings) if self.is_style_net else adain(self.settings)

    def _named(self) -> tuple[Pictures, list[str]]:
        """The style pictures of a `style_net`, their shorter side that of the training, and a digest of each."""
        pictures, digests = {}, []
        for name, uri in self.settings.styles.items():
            folder, slash, key = uri.rpartition("/")
            data = open_store(folder + slash or ".").get(key)
            digests.append(hashlib.sha256(data).hexdigest())
            try:
                pictures[name] = images.decode_whole(data, self.size)
            except images.UndecodableImage as error:
                raise JobFailed(f"styles.{name}: {uri}: {error}") from None
        return pictures, digests

    def _of_set(self) -> tuple[Pictures, list[str]]:
        """Squares of a style set's pictures, to measure an `adain` on and to show, and the set's digest."""
        uri = str(self.settings.style_data)
        style_data = DataSet.load(uri)
        fixed = StylePictures(uri, self.size, STYLE_CROP)
        fixed.load(self.settings.seed)
        count = min(style_data.rows("train"), self.settings.valid_images)
        return {str(number): crop for number, crop in enumerate(fixed.fixed(count), start=1)}, [style_data.digest]

    def _photos(self, count: int) -> NDArray[np.uint8]:
        """The first photos of the validation split, uint8 N H W 3: the same for all and always."""
        photos = first_pictures(self.settings.data, self.data, "valid", self.size, count)
        if len(photos) < self.settings.workers:
            raise JobFailed(f"{self.settings.data}: {len(photos)} validation photos; each worker needs one at least")
        return photos

    def _thumbnails(self) -> bytes:
        """A PNG of the style pictures, with their names where they have some."""
        shown = list(self.styles.items())[: None if self.is_style_net else SHOWN_STYLES]
        return contact_sheet([(images.encode(pixels, "png"), name) for name, pixels in shown], COLUMNS)

    def _before_after(self, network: StyleNet | AdaIN) -> bytes:
        """A PNG with a column a photo and a row a style; what it is drawn after stands first."""
        photos = torch.from_numpy(self._photos(SAMPLES))
        rows = [torch.cat((torch.full_like(photos[:1], 255), photos))]
        shown = list(self.styles.values())[: None if self.is_style_net else SHOWN_STYLES]
        for number, style in enumerate(shown):
            if isinstance(network, StyleNet):
                network.choose([float(other == number) for other in range(len(shown))])
            else:
                network.choose(network.statistics([torch.from_numpy(style.copy())[None]], [1.0]))
            drawn = Stylizer(network).draw(photos)
            rows.append(torch.cat((torch.from_numpy(middle(style, self.size))[None], drawn)))
        return images.encode(grid(rows), "png")

    def _card(self, metrics: dict[str, float]) -> str:
        settings, words, data = self.settings, self.words, self.data
        if self.is_style_net:
            does = f"draws photos in {len(settings.styles)} styles, or in a mixture of them"
            of = "\n".join(f"- `{name}`: `{uri}`" for name, uri in settings.styles.items())
        else:
            does = "draws photos in the style of any picture"
            style_data = DataSet.load(str(settings.style_data))
            of = (
                f"It learnt after the {style_data.rows('train')} pictures of `{style_data.source}` (digest "
                f"`{style_data.digest[:12]}`)."
            )
        photos = min(settings.valid_images, data.rows("valid"))
        return f"""# {settings.model_name}

A `{settings.architecture}` that {does}, in one forward pass.

{of}

Trained on {data.rows("train")} photos of `{data.source}` (digest `{data.digest[:12]}`) at {self.size} pixels, seed
{settings.seed}. Content and style are measured by `{settings.arch}` (weights `{settings.weights or "torchvision"}`):

| loss | layers | weight |
| --- | --- | --- |
| content | {", ".join(words.content_layers)} | {words.content_weight:g} |
| style | {", ".join(words.style_layers)} | {words.style_weight:g} |
| variation | pixels | {words.variation_weight:g} |

A loss is a share: 0 is the same, 1 is as far as nothing at all. The figures below are of {photos} validation photos;
the best epoch was chosen by the weighted sum.

{registry.table_of(metrics)}

It learnt from aligned faces of celebrities; what it makes of other pictures was not measured.
"""
