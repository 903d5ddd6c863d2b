"""Training of a classifier: from settings to a published version."""

from __future__ import annotations

from typing import cast

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from celebvision import images, registry
from celebvision.celeba.schema import ATTRIBUTES
from celebvision.celeba.shards import DataSet, ReadRowGroup, check_targets, row_groups
from celebvision.config import TrainSettings
from celebvision.job import JobFailed, code_version
from celebvision.models import complete_arguments
from celebvision.models.classifier import Classifier
from celebvision.models.preprocessing import Preprocessing
from celebvision.sheet import contact_sheet
from celebvision.storage import open_store
from celebvision.training.classification import Classification, network
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

    def prepare(self) -> None:
        """Nothing."""

    def task(self, device: torch.device, parallel: Parallel) -> Classification:
        return Classification(self.settings, self.targets, device, parallel)

    def publish(self, weights: dict[str, Tensor], metrics: dict[str, float]) -> dict[str, str]:
        settings, targets = self.settings, self.targets
        model = registry.publish(
            settings.registry,
            settings.model_name,
            state=weights,
            architecture=settings.architecture,
            arguments=complete_arguments(settings.architecture, outputs=len(targets), **settings.arguments),
            preprocessing=self.preprocessing.to_json(),
            targets=list(targets),
            classes={target: _classes(target) for target in targets},
            metrics=metrics,
            data_digest=self.data_digest,
            code_version=code_version(),
            seed=settings.seed,
            card=self._card(metrics),
            samples={"validation.png": self._samples(weights)},
        )
        return {model.name: model.version}

    def _samples(self, weights: dict[str, Tensor]) -> bytes:
        """A PNG of some validation pictures with the first target's label, and `wrong` where it is."""
        made = network(self.settings.model_copy(update={"weights": None}), self.targets)
        made.load_state_dict(weights)
        classifier, target = Classifier(made, self.targets), self.targets[0]
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

    def _card(self, metrics: dict[str, float]) -> str:
        settings, data, targets = self.settings, self.data, self.targets
        return f"""# {settings.model_name}

`{settings.architecture}` that answers {len(targets)} of CelebA's attributes: {", ".join(targets)}.

Trained on {data.rows("train")} pictures of `{data.source}` (digest `{data.digest[:12]}`), seed {settings.seed}; the
best epoch was chosen on {data.rows("valid")} validation pictures.

{registry.table_of(metrics)}

CelebA's labels are binary guesses of annotators, with errors among them; `Male` says how a face was seen, not who the
person is. The faces are of celebrities, aligned and cropped; on other pictures the figures above do not hold.
"""


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
