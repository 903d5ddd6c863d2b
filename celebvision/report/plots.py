"""Plots of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from celebvision.sheet import png

BLUE = "#4c72b0"
Points = Sequence[tuple[float, float]]


def progress(timeline: Points, total: int) -> bytes:
    """A PNG: how many of `total` images had ended after so many seconds of work, and how many a second in between."""
    seconds, done = (np.array(column, dtype=float) for column in zip((0.0, 0.0), *timeline, strict=True))
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(seconds, done, color=BLUE)
    left.axhline(total, color="#999999", linestyle="--", linewidth=0.8)
    left.set(xlabel="seconds of work", ylabel="images that had ended")
    lasted = np.maximum(np.diff(seconds), 1e-9)
    right.step(seconds[1:], np.diff(done) / lasted, where="mid", color=BLUE)
    right.set(xlabel="seconds of work", ylabel="images a second", ylim=(0, None))
    return png(figure)


def bars(counts: Mapping[str, float], x: str, y: str) -> bytes:
    """A PNG with a bar for each name, in their order."""
    figure = Figure(figsize=(min(9.0, 2 + 0.4 * len(counts)), 3), layout="constrained")
    axes = figure.subplots()
    axes.bar(list(counts), list(counts.values()), color=BLUE)
    axes.tick_params(axis="x", rotation=60 if len(counts) > 6 else 0)
    axes.set(xlabel=x, ylabel=y)
    return png(figure)


def curves(epochs: Sequence[float], groups: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """A PNG with a plot for each group, a line for each of its columns, over epochs counted from 1."""
    columns = min(2, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(4.5 * columns, 2.8 * rows), layout="constrained")
    every = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes, (title, lines) in zip(every, groups.items(), strict=False):
        for name, values in lines.items():
            axes.plot([epoch + 1 for epoch in epochs], values, label=name.replace("_", " "), marker=".", markersize=3)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=7)
    for axes in every[len(groups) :]:
        axes.axis("off")
    return png(figure)
