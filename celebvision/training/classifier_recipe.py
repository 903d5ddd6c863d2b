"""Training of a classifier: from settings to a published version."""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from torch import Tensor

from celebvision import images, registry
from celebvision.celeba.schema import ATTRIBUTES
from celebvision.celeba.shards import DataSet, ReadRowGroup, check_targets, row_groups
from celebvision.config import TrainSettings
from celebvision.evaluation.groups import Group, groups
from celebvision.job import JobFailed, code_version
from celebvision.models import complete_arguments
from celebvision.models.classifier import Classifier
from celebvision.models.preprocessing import Preprocessing
from celebvision.registry import ModelVersion
from celebvision.sheet import contact_sheet
from celebvision.storage import open_store
from celebvision.training.calibration import calibrate, figures_of, logits_of
from celebvision.training.classification import Classification, network
from celebvision.training.classifier_card import card
from celebvision.training.recipe import Parallel

SAMPLES = 40  # pictures that a version shows


class ClassifierRecipe:
    """Attributes of CelebA, learnt by a `cnn` or an `inception_v3`."""

    figures: tuple[str, ...] = ("epoch", "loss", "valid_loss", "valid_accuracy")

    def __init__(self, settings: TrainSettings, data: DataSet) -> None:
        self.settings, self.data, self.data_digest = settings, data, data.digest
        self.targets = _targets(settings.targets)
        check_targets(settings.data, self.targets, data.positives("train"))
        if not data.rows("valid"):
            raise JobFailed(f"{settings.data}: the valid split is empty")
        untrained = network(settings.model_copy(update={"weights": None}), self.targets)
        self.preprocessing = cast(Preprocessing, untrained.preprocessing)
        self.read = ReadRowGroup(settings.data, self.targets, self.preprocessing.height, self.preprocessing.width)
        self.initial: Any = None

    def prepare(self) -> None:
        """Load the weights of `initial`, where it is named.

        Raises:
            JobFailed: it is another network, or answers other targets.
            RegistryError: there is no such version, or it is damaged.
        """
        if self.settings.initial:
            model = registry.resolve(self.settings.registry, self.settings.initial)
            self._check_initial(model)
            self.initial = ray.put(registry.load_state(self.settings.registry, model))

    def _check_initial(self, model: ModelVersion) -> None:
        found = {"architecture": model.architecture, "arguments": model.arguments, "targets": model.targets}
        wanted = json.loads(  # as they are published: tuples become lists
            json.dumps(
                {
                    "architecture": self.settings.architecture,
                    "arguments": self._arguments(),
                    "targets": list(self.targets),
                }
            )
        )
        for name, value in found.items():
            if value != wanted[name]:
                raise JobFailed(
                    f"initial: {self.settings.initial} has {name} {value}, and this training {wanted[name]}; "
                    "name a version of the same, or begin anew"
                )

    def _arguments(self) -> dict[str, Any]:
        """All of the network's, also those that are left to their default."""
        settings = self.settings
        return complete_arguments(settings.architecture, outputs=len(self.targets), **settings.arguments)

    def task(self, device: torch.device, parallel: Parallel) -> Classification:
        initial = None if self.initial is None else ray.get(self.initial)
        return Classification(self.settings, self.targets, device, parallel, initial)

    def publish(self, weights: dict[str, Tensor], metrics: dict[str, float]) -> dict[str, str]:
        settings, targets = self.settings, self.targets
        made = network(settings.model_copy(update={"weights": None}), targets)
        made.load_state_dict(weights)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        logits, labels = logits_of(Classifier(made, targets, device), self.data, "valid", self._read_all())
        calibrations = calibrate(logits, labels, targets)
        temperatures = {target: calibration.temperature for target, calibration in calibrations.items()}
        setattr(made, "temperatures", list(temperatures.values()))  # noqa: B010 - as `registry.assemble` will
        metrics = metrics | figures_of(calibrations)
        model = registry.publish(
            settings.registry,
            settings.model_name,
            state=weights,
            architecture=settings.architecture,
            arguments=self._arguments(),
            preprocessing=self.preprocessing.to_json(),
            targets=list(targets),
            classes={target: _classes(target) for target in targets},
            metrics=metrics,
            data_digest=self.data_digest,
            code_version=code_version(),
            seed=settings.seed,
            card=card(settings, self.data, targets, metrics, calibrations, self._groups(logits, labels), len(logits)),
            samples={"validation.png": self._samples(Classifier(made, targets, device))},
            temperatures=temperatures,
        )
        return {model.name: model.version}

    def _samples(self, classifier: Classifier) -> bytes:
        """A PNG of some validation pictures with the first target's label, and `wrong` where it is."""
        target = self.targets[0]
        group = row_groups(self.data, "valid")[0]
        with open_store(self.settings.data).open(group.path) as stream:
            rows = pq.ParquetFile(stream).read_row_group(group.number, ["image", target]).slice(0, SAMPLES).to_pylist()
        size = classifier.preprocessing
        pixels = torch.from_numpy(np.stack([images.decode(row["image"], size.height, size.width) for row in rows]))
        tiles = []
        for row, answer in zip(rows, classifier.probabilities(pixels)[:, 0].tolist(), strict=True):
            wrong = "" if (answer > 0.5) == row[target] else ", wrong"
            tiles.append((row["image"], f"{_classes(target)[answer > 0.5]} {max(answer, 1 - answer):.2f}{wrong}"))
        return contact_sheet(tiles)

    def _read_all(self) -> ReadRowGroup:
        """As `read`, with the labels of every other known attribute behind those of the targets."""
        size = self.preprocessing
        return ReadRowGroup(self.settings.data, (*self.targets, *self._others()), size.height, size.width)

    def _others(self) -> list[str]:
        return [name for name in self.data.positives("valid") if name not in self.targets]

    def _groups(self, logits: Tensor, labels: Tensor) -> dict[str, list[Group]]:
        """Whom it errs about, by target; of logits, N T, and the labels that `_read_all` gives."""
        names = (*self.targets, *self._others())
        truth = {name: labels[:, at].numpy() > 0.5 for at, name in enumerate(names)}
        answers = {f"{target}_probability": logits[:, at].sigmoid().numpy() for at, target in enumerate(self.targets)}
        table = pa.table(truth | answers)
        return {target: groups(table, target, names) for target in self.targets}


def _targets(names: list[str]) -> tuple[str, ...]:
    if names == ["all"]:
        return ATTRIBUTES
    unknown = [name for name in names if name not in ATTRIBUTES]
    if unknown or len(set(names)) < len(names):
        raise JobFailed(
            f"targets: {', '.join(unknown or names)}: each should be one of {', '.join(ATTRIBUTES)}, or all"
        )
    return tuple(names)


def _classes(target: str) -> tuple[str, str]:
    return ("female", "male") if target == "Male" else (f"not_{target.lower()}", target.lower())
