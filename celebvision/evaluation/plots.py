"""Pictures of how a classifier does: its curves, and what it was most wrong about."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from celebvision import images
from celebvision.evaluation.measure import Measured, Mistake
from celebvision.evaluation.resampling import BINS, bins
from celebvision.images import UndecodableImage
from celebvision.sheet import TILE, contact_sheet

LETTERS = 14  # of a picture's name, its last
QUALITY = 85  # of a sheet's JPEG
DPI = 80


def curves(measured: Mapping[str, Measured]) -> bytes:
    """A PNG of ROC curves, precision over recall, and reliability: a line for each model on the same target."""
    figure = Figure(figsize=(13.5, 4.2), layout="constrained")
    roc, precision, reliability = figure.subplots(1, 3)
    for name, one in measured.items():
        _draw_curves(roc, precision, name, one.truth, one.probability)
        found = calibration(one.truth, one.probability)
        reliability.plot(
            [row["mean_probability"] for row in found], [row["share_true"] for row in found], "o-", label=name
        )
    for axes in (roc, reliability):
        axes.plot([0, 1], [0, 1], color="#999999", linestyle=":")
    roc.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    precision.set(title="precision and recall", xlabel="recall", ylabel="precision")
    reliability.set(title="reliability", xlabel="mean probability of the bin", ylabel="share that is true")
    for axes in (roc, precision, reliability):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
    reliability.legend(loc="upper left")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()


def calibration(truth: NDArray[np.bool_], probability: NDArray[np.float32]) -> list[dict[str, Any]]:
    """For each bin of probabilities that holds pictures: how many, their mean probability, the share that is true."""
    numbers = bins(probability)
    rows = []
    for number in np.unique(numbers):
        of_bin = numbers == number
        rows.append(
            {
                "bin": f"{number / BINS:.3f}",
                "pictures": int(of_bin.sum()),
                "mean_probability": float(probability[of_bin].mean()),
                "share_true": float(truth[of_bin].mean()),
            }
        )
    return rows


def mistake_sheet(mistakes: Sequence[Mistake], pictures: Mapping[str, bytes]) -> bytes:
    """A JPEG of pictures, each above its name and the model's probability of true; what cannot be shown is grey."""
    tiles = [
        (_small(pictures.get(one.image_id, b"")), f"{one.image_id[-LETTERS:]} {one.probability:.2f}")
        for one in mistakes
    ]
    tiles = [(data, words.encode("ascii", "replace").decode()) for data, words in tiles]  # all that the font has
    return images.encode(images.decode_whole(contact_sheet(tiles)), "jpeg", QUALITY)


def _small(data: bytes) -> bytes:
    try:
        return images.encode(images.decode_whole(data, TILE), "png")
    except UndecodableImage:
        return b""


def _draw_curves(
    roc: Axes, precision: Axes, name: str, truth: NDArray[np.bool_], probability: NDArray[np.float32]
) -> None:
    """Nothing where all pictures are of one side: there is no such curve."""
    order = np.argsort(-probability, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(probability[order]) != 0, True))  # equal ones stand or fall together
    hits, alarms = np.cumsum(truth[order])[ends], np.cumsum(~truth[order])[ends]
    if hits[-1] and alarms[-1]:
        roc.plot(np.append(0, alarms / alarms[-1]), np.append(0, hits / hits[-1]), label=name)
        precision.step(hits / hits[-1], hits / (hits + alarms), where="pre", label=name)
