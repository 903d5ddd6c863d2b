"""What an evaluation leaves in its output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa

from celebvision.evaluation.page import Evaluation, page_of
from celebvision.evaluation.plots import calibration, curves, mistake_sheet
from celebvision.evaluation.sources import Source
from celebvision.job import code_version
from celebvision.page import Picture
from celebvision.storage import Store, write_table

PAGE = "evaluation.html"
SHEETS = 12  # of mistakes, at most
INTERVAL = [("low", pa.float64()), ("high", pa.float64())]
ONE = [("model", pa.string()), ("target", pa.string())]
FIGURES = pa.schema([*ONE, ("figure", pa.string()), ("value", pa.float64()), *INTERVAL])
GROUPS = pa.schema(
    [
        *ONE,
        *(("attribute", pa.string()), ("side", pa.bool_()), ("pictures", pa.int64()), ("errors", pa.int64())),
        *(("error_rate", pa.float64()), *INTERVAL, ("too_few", pa.bool_()), ("proxy", pa.string())),
    ]
)


def write(output: Store, found: Evaluation, source: Source, predictions: Mapping[str, pa.Table]) -> None:
    """Put tables, `evaluation.json` and the page; the page last: who sees it, finds all that it speaks of.

    Args:
        source: of the pictures that are shown.
        predictions: by model, as `predict` gives them.
    """
    for title, table in predictions.items():
        write_table(output, f"predictions/{title}.parquet", table)
    figures: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    for one in found.measured:
        of_one: dict[str, Any] = {"model": one.model, "target": one.target}
        figures += [of_one | {"figure": name} | asdict(figure) for name, figure in one.figures.items()]
        groups += [of_one | asdict(group) for group in one.groups]
    write_table(output, "figures.parquet", pa.Table.from_pylist(figures, FIGURES))
    write_table(output, "groups.parquet", pa.Table.from_pylist(groups, GROUPS))
    head = {"data": found.data, "data_digest": source.digest, "split": found.split, "pictures": found.pictures}
    content: dict[str, Any] = head | {"code_version": code_version(), "sentences": found.sentences}
    content |= _by_model(found)
    content["comparisons"] = [one.to_json() | {"sentence": one.sentence(found.names)} for one in found.comparisons]
    content["failures"] = [{"key": key, "reason": reason} for key, reason in found.failures.items()]
    output.put("evaluation.json", json.dumps(content, indent=1, allow_nan=False).encode())
    output.put(PAGE, page_of(found, _pictures(found, source)).encode())


def _by_model(found: Evaluation) -> dict[str, Any]:
    """What is said of each model on each target: figures under `models`, the rest under names of their own."""
    parts: dict[str, Any] = {"models": {}, "confusion": {}, "calibration": {}, "groups": {}, "mistakes": {}}
    for one in found.measured:
        of_one: dict[str, Any] = {
            "models": {name: asdict(figure) for name, figure in one.figures.items()},
            "confusion": one.confusion,
            "calibration": calibration(one.truth, one.probability),
            "groups": [asdict(group) for group in one.groups],
            "mistakes": [asdict(mistake) for mistake in one.mistakes],
        }
        for part, value in of_one.items():
            parts[part].setdefault(one.model, {})[one.target] = value
    return parts


def _pictures(found: Evaluation, source: Source) -> list[Picture]:
    plots = []
    for target, of_target in found.targets.items():
        lines = {found.names[one.model]: one for one in of_target}
        plots.append(Picture(f"curves of {target}", "png", partial(curves, lines)))
    wrong = [one for one in found.measured if one.mistakes][:SHEETS]
    pictures = dict(source.pictures({mistake.image_id for one in wrong for mistake in one.mistakes}))
    return plots + [
        Picture(f"mistakes of {one.model} about {one.target}", "jpeg", partial(mistake_sheet, one.mistakes, pictures))
        for one in wrong
    ]
