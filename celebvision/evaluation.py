"""What a model is worth: its figures on a split of shards, and its answer for every picture of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryF1Score, BinaryPrecision, BinaryRecall

from celebvision import registry, styling
from celebvision.celeba.shards import DataSet, ReadRowGroup, row_groups
from celebvision.config import EvaluateSettings
from celebvision.job import JobFailed, Outcome, console, progress
from celebvision.models.classifier import Classifier
from celebvision.registry import ModelVersion
from celebvision.storage import open_store, write_table
from celebvision.style_evaluation import evaluate_styles

BATCH = 128
METRICS = {
    "accuracy": BinaryAccuracy,
    "precision": BinaryPrecision,
    "recall": BinaryRecall,
    "f1": BinaryF1Score,
    "roc_auc": BinaryAUROC,
}


def evaluate(settings: EvaluateSettings) -> Outcome:
    """Write `evaluation.json` and, for each model, `predictions/<model>.parquet`; print the figures.

    Models that draw are measured by `evaluate_styles`.

    Raises:
        JobFailed: the split is empty, or models and words are of both kinds.
        RegistryError: no such model, or a damaged one.
    """
    data = DataSet.load(settings.data)
    if not data.rows(settings.split):
        raise JobFailed(f"{settings.data}: the {settings.split} split is empty")
    models = [styling.resolve(settings, settings.registry, name, settings.size) for name in settings.model]
    if drawing := [model.name for model in models if not model.targets]:
        if answering := [model.name for model in models if model.targets]:
            raise JobFailed(
                f"model: {', '.join(drawing)} draws pictures and {', '.join(answering)} answers attributes, "
                "which no figure compares; evaluate them in two calls"
            )
        return evaluate_styles(settings, data, models)
    if settings.of_drawing:
        raise JobFailed(
            f"{', '.join(settings.of_drawing)}: of models that draw; {', '.join(settings.model)} answers attributes "
            "and is measured on the whole split; leave it out"
        )
    output = open_store(settings.output)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for model in models:
        title = f"{model.name}@{model.version}"
        predictions = _predict(settings, data, model)
        write_table(output, f"predictions/{title}.parquet", predictions)
        figures[title] = {target: _figures(predictions, target) for target in model.targets}
    content = {"data": settings.data, "data_digest": data.digest, "split": settings.split, "models": figures}
    output.put("evaluation.json", json.dumps(content, indent=1).encode())
    for title, targets in figures.items():
        for target, values in targets.items():
            line = "  ".join(f"{metric} {value:.4f}" for metric, value in values.items())
            console.print(f"{title} {target}: {line}", markup=False, soft_wrap=True)
    return Outcome({"output": settings.output, "rows": data.rows(settings.split), "models": figures})


def _predict(settings: EvaluateSettings, data: DataSet, model: ModelVersion) -> pa.Table:
    """`image_id`, and for each target its label (`<target>`) and probability (`<target>_probability`) of true."""
    network = registry.assemble(model, registry.load_state(str(settings.registry), model))
    classifier = Classifier(network, tuple(model.targets), "cuda" if torch.cuda.is_available() else "cpu")
    size = classifier.preprocessing
    read = ReadRowGroup(settings.data, tuple(model.targets), size.height, size.width, with_image_id=True)
    ids: list[str] = []
    labels: list[NDArray[np.float32]] = []
    answers: list[NDArray[np.float32]] = []
    with progress(f"evaluate {model.name}", data.rows(settings.split), "images") as show:
        for batch in _batches(read, data, settings.split):
            ids.extend(batch["image_id"].tolist())
            labels.append(batch["label"])
            steps = torch.from_numpy(batch["image"]).split(settings.batch_size or BATCH)
            answers.extend(classifier.probabilities(pixels).numpy() for pixels in steps)
            show(len(ids))
    columns: dict[str, Any] = {"image_id": ids}
    label, answer = np.concatenate(labels), np.concatenate(answers)
    for index, target in enumerate(model.targets):
        columns[target] = label[:, index] > 0.5
        columns[f"{target}_probability"] = answer[:, index]
    return pa.table(columns)


def _batches(read: ReadRowGroup, data: DataSet, split: str) -> Iterator[dict[str, NDArray[Any]]]:
    for group in row_groups(data, split):
        yield from read({"path": np.array([group.path]), "number": np.array([group.number])})


def _figures(predictions: pa.Table, target: str) -> dict[str, float]:
    truth = torch.from_numpy(predictions[target].to_numpy()).int()
    answers = torch.from_numpy(predictions[f"{target}_probability"].to_numpy().copy())
    return {name: float(metric()(answers, truth)) for name, metric in METRICS.items()}
