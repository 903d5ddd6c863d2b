"""The verb `evaluate`: classifiers on labelled pictures, their figures, comparisons and every answer."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from celebvision import styling
from celebvision.config import EvaluateSettings
from celebvision.evaluation.measure import comparisons, measure
from celebvision.evaluation.page import Evaluation
from celebvision.evaluation.predict import IMAGE_ID
from celebvision.evaluation.sources import Shards, Source, open_source
from celebvision.evaluation.write import PAGE, write
from celebvision.job import JobFailed, Outcome
from celebvision.logs import say
from celebvision.registry import ModelVersion
from celebvision.storage import join, open_store
from celebvision.style_evaluation import evaluate_styles

BATCH = 128
PRINTED = 10  # pictures that could not be read


def evaluate(settings: EvaluateSettings) -> Outcome:
    """Measure classifiers on labelled pictures and compare them; print the figures and what they come to.

    `evaluation.html` shows all of it and `evaluation.json` holds it; `figures.parquet` and `groups.parquet` are its
    tables, `predictions/<model>.parquet` each answer. Models that draw are measured by `evaluate_styles`.

    Raises:
        JobFailed: nothing to measure on, labels that lack a target, or models and words are of both kinds.
        RegistryError: no such model, or a damaged one.
    """
    source = open_source(settings.data, settings.split)
    models = [styling.resolve(settings, settings.registry, name, settings.size) for name in settings.model]
    if _draw(models):
        if not isinstance(source, Shards):
            raise JobFailed(f"data: {settings.data} is a folder with labels; models that draw are measured on shards")
        return evaluate_styles(settings, source.data, models)
    if settings.of_drawing:
        raise JobFailed(
            f"{', '.join(settings.of_drawing)}: of models that draw; {', '.join(settings.model)} answers attributes "
            "and is measured on the whole split; leave it out"
        )
    if source.split is None and "split" in settings.model_fields_set:
        raise JobFailed(f"split: {settings.data} is a folder with labels and has no splits; leave it out")
    titles = {f"{model.name}@{model.version}": model for model in models}
    predictions = _predictions(settings, source, titles)
    rows = len(next(iter(predictions.values())))
    targets = {title: model.targets for title, model in titles.items()}
    measured = measure(predictions, targets, source.attributes)
    found = Evaluation(settings.data, source.split, rows, measured, comparisons(measured), source.failures)
    write(open_store(settings.output), found, source, predictions)
    _print(found)
    values: dict[str, dict[str, dict[str, float | None]]] = {title: {} for title in titles}
    for one in measured:
        values[one.model][one.target] = {name: figure.value for name, figure in one.figures.items()}
    words = {
        "output": settings.output,
        "page": join(settings.output, PAGE),
        "rows": rows,
        "failures": len(source.failures),
    }
    return Outcome(words | {"models": values}, failures=len(source.failures))


def _draw(models: Sequence[ModelVersion]) -> bool:
    """Whether they are models that draw; raises `JobFailed` where they are of both kinds."""
    drawing = [model.name for model in models if not model.targets]
    answering = [model.name for model in models if model.targets]
    if drawing and answering:
        raise JobFailed(
            f"model: {', '.join(drawing)} draws pictures and {', '.join(answering)} answers attributes, "
            "which no figure compares; evaluate them in two calls"
        )
    return bool(drawing)


def _predictions(settings: EvaluateSettings, source: Source, models: dict[str, ModelVersion]) -> dict[str, pa.Table]:
    """By model, its answers to the pictures that every model could be asked about, in one order."""
    found = {
        title: source.predict(str(settings.registry), model, settings.batch_size or BATCH)
        for title, model in models.items()
    }
    failed = pa.array(list(source.failures), pa.string())
    found = {title: table.filter(pc.invert(pc.is_in(table[IMAGE_ID], failed))) for title, table in found.items()}
    if not all(len(table) for table in found.values()):
        first = next(iter(source.failures.items()), ("none", "there is no row"))
        raise JobFailed(f"{settings.data}: no picture of its labels can be read; the first, {first[0]}: {first[1]}")
    return found


def _print(found: Evaluation) -> None:
    for one in found.measured:
        line = "  ".join(f"{name} {figure.text}" for name, figure in one.figures.items())
        say(f"{one.model} {one.target}: {line}")
    for key, reason in list(found.failures.items())[:PRINTED]:
        say(f"could not be read: {key}: {reason}")
    if len(found.failures) > PRINTED:
        say(f"and {len(found.failures) - PRINTED} more, in evaluation.json")
    for compared in found.comparisons:
        say(compared.sentence(found.names))
