"""A model's answer for every picture of a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from celebvision import registry as models
from celebvision.celeba.shards import DataSet, ReadRowGroup, row_groups
from celebvision.job import JobFailed, progress
from celebvision.models.classifier import Classifier
from celebvision.registry import ModelVersion

IMAGE_ID = "image_id"
Batch = dict[str, NDArray[Any]]  # image_id: N; image: uint8 N H W 3; label: float32 N T, 0 or 1


def predict(
    uri: str,
    data: DataSet,
    split: str,
    registry: str,
    model: ModelVersion,
    batch_size: int,
    attributes: Sequence[str] = (),
) -> pa.Table:
    """Answers of a model to all pictures of a split, in the order of the shards.

    Args:
        uri: what the paths of `data` are relative to; `data` itself need not be stored there.
        attributes: whose labels come along.

    Returns:
        `image_id` string; for each target its label, `<target>` bool, and `<target>_probability` float32 of true; then
        a bool column for each of `attributes` that is no target.

    Raises:
        JobFailed: the split is empty, the shards have no labels of a target or an attribute, or an answer is no number.
        RegistryError: the model is damaged.
    """
    if not data.rows(split):
        raise JobFailed(f"{uri}: the {split} split is empty")
    classifier = load(registry, model)
    size, labels = classifier.preprocessing, tuple(dict.fromkeys((*model.targets, *attributes)))
    read = ReadRowGroup(uri, labels, size.height, size.width, with_image_id=True)
    return answers(classifier, model.name, _batches(read, data, split), data.rows(split), labels, batch_size)


def load(registry: str, model: ModelVersion) -> Classifier:
    """The network of a version, ready to answer, on the GPU where there is one. Raises `RegistryError`."""
    network = models.assemble(model, models.load_state(registry, model))
    return Classifier(network, tuple(model.targets), "cuda" if torch.cuda.is_available() else "cpu")


def answers(
    classifier: Classifier, name: str, batches: Iterable[Batch], rows: int, labels: Sequence[str], batch_size: int
) -> pa.Table:
    """The table of `predict`, of any batches.

    Args:
        name: of the model, for the progress.
        rows: pictures that are expected.
        labels: what the columns of a batch's `label` are of.

    Raises:
        JobFailed: an answer is no number.
    """
    ids: list[str] = []
    truths = [np.empty((0, len(labels)), np.bool_)]
    found = [np.empty((0, len(classifier.classes)), np.float32)]
    with progress(f"evaluate {name}", rows, "images") as show:
        for batch in batches:
            ids.extend(batch[IMAGE_ID].tolist())
            truths.append(batch["label"] > 0.5)
            steps = torch.from_numpy(batch["image"]).split(batch_size)
            found.extend(classifier.probabilities(pixels).numpy() for pixels in steps)
            show(len(ids))
    truth, probability = np.concatenate(truths), np.concatenate(found)
    if len(odd := np.flatnonzero(~np.isfinite(probability).all(axis=1))):
        raise JobFailed(
            f"{name}: its answer to {len(odd)} of {len(ids)} pictures is no number, the first of them {ids[odd[0]]}; "
            "its weights hold infinities, or overflow: train it again"
        )
    columns: dict[str, Any] = {IMAGE_ID: pa.array(ids, pa.string())}
    for index, target in enumerate(classifier.classes):
        columns[target] = truth[:, labels.index(target)]
        columns[f"{target}_probability"] = probability[:, index]
    rest = {label: truth[:, index] for index, label in enumerate(labels) if label not in classifier.classes}
    return pa.table(columns | rest)


def _batches(read: ReadRowGroup, data: DataSet, split: str) -> Iterator[Batch]:
    for group in row_groups(data, split):
        yield from read({"path": np.array([group.path]), "number": np.array([group.number])})
