"""The models that the page offers: as the registry has them now, each loaded once, and no more than fit."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from celebvision import registry, styling
from celebvision.config import VGG, AppSettings, StyleWords
from celebvision.models.classifier import Classifier
from celebvision.registry import ModelVersion, RegistryError
from celebvision.storage import StorageError, join, open_store

LISTED_S = 5.0  # for so long the registry is not listed again


@dataclass
class _Loaded:
    ready: Any
    size: int  # bytes of weights


class Models:
    """Any thread may call it; two that want the same model load it once."""

    def __init__(self, settings: AppSettings) -> None:
        self.settings = settings
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()  # the least used first
        self._lock = threading.RLock()
        self._offered: tuple[float, list[ModelVersion], list[str]] = (-LISTED_S, [], [])

    def offered(self) -> tuple[list[ModelVersion], list[str]]:
        """What is in production, by name; and a sentence for each that is damaged, or a registry that is not there."""
        with self._lock:
            listed, models, troubles = self._offered
            if time.monotonic() - listed > LISTED_S:
                models, troubles = self._listed()
                self._offered = (time.monotonic(), models, troubles)
            return models, troubles

    def _listed(self) -> tuple[list[ModelVersion], list[str]]:
        models, troubles = [], []
        try:
            for name in registry.names(self.settings.registry):
                try:
                    if registry.production(self.settings.registry, name):
                        models.append(registry.resolve(self.settings.registry, name))
                except RegistryError as error:
                    troubles.append(str(error))
        except StorageError as error:
            troubles.append(str(error))
        return models, troubles

    def classifiers(self) -> list[ModelVersion]:
        """Those of them that label."""
        return [model for model in self.offered()[0] if model.targets]

    def stylizers(self) -> list[ModelVersion]:
        """Those of them that redraw."""
        return [model for model in self.offered()[0] if not model.targets]

    def card(self, model: ModelVersion) -> str:
        """What its maker says of it, as Markdown."""
        try:
            return open_store(join(self.settings.registry, model.name, model.version)).get("card.md").decode()
        except StorageError as error:
            return f"Its card cannot be read: {error}"

    def classifier(self, model: ModelVersion) -> Classifier:
        """Ready to label. Raises as `registry.load_state`."""

        def load() -> tuple[Classifier, int]:
            state = registry.load_state(self.settings.registry, model)
            return Classifier(registry.assemble(model, state), tuple(model.targets)), _bytes_of(state)

        ready: Classifier = self._get(f"{model.name}@{model.version}", load)
        return ready

    def redraws(self, model: ModelVersion, words: StyleWords, size: int) -> styling.Redraws:
        """Ready to redraw, in the style that the words choose. Raises as `styling.load`."""

        def load() -> tuple[styling.Redraws, int]:
            tensors = styling.load(words, self.settings.registry, model, size)
            return styling.redraws(words, model, tensors, "cpu"), _bytes_of(tensors)

        chosen = f"{words.style} {words.mixture} {size if model.name == VGG else ''}"
        ready: styling.Redraws = self._get(f"{model.name}@{model.version} {chosen}", load)
        return ready

    def _get(self, key: str, load: Callable[[], tuple[Any, int]]) -> Any:
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = _Loaded(*load())
                while len(self._loaded) > 1 and self.held_bytes > self.settings.memory_bytes:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key].ready

    @property
    def held_bytes(self) -> int:
        """Of weights that are loaded."""
        return sum(one.size for one in self._loaded.values())


def _bytes_of(tensors: dict[str, Tensor]) -> int:
    return sum(value.nbytes for value in tensors.values())
