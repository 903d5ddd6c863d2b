"""Draws the dashboards from the same queries, for where no Grafana is.

    python -m cluster.monitoring.grafana.draw http://127.0.0.1:9090 60 docs/monitoring

draws what the last 60 minutes showed.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from cluster.monitoring.grafana.panel import WIDTH, Dashboard, Panel, Query, asked
from cluster.monitoring.grafana.write import DASHBOARDS

POINTS = 120
INTERVAL = "1m"  # of rates
LEGENDS = 8  # lines that are named


def draw(prometheus: str, minutes: float, dashboard: Dashboard) -> Figure:
    """All panels of a dashboard, as Prometheus answers now."""
    rows: list[list[Panel]] = [[]]
    for panel in dashboard.panels:
        if sum(one.columns for one in rows[-1]) + panel.columns > WIDTH:
            rows.append([])
        rows[-1].append(panel)
    figure: Figure = plt.figure(figsize=(15, 3.4 * len(rows)), layout="constrained")
    figure.suptitle(f"{dashboard.name}: {dashboard.question}", fontsize=14)
    grid = figure.add_gridspec(len(rows), WIDTH)
    for number, row in enumerate(rows):
        column = 0
        for panel in row:
            axes = figure.add_subplot(grid[number, column : column + panel.columns])
            axes.set_title(panel.title, fontsize=10, loc="left")
            (_table if panel.kind == "table" else _lines)(axes, panel, prometheus, minutes)
            column += panel.columns
    return figure


def _lines(axes: Axes, panel: Panel, prometheus: str, minutes: float) -> None:
    now = time.time()
    for query in panel.queries:
        words = {"start": now - 60 * minutes, "end": now, "step": 60 * minutes / POINTS}
        for series in _result(prometheus, "query_range", query, words):
            moments, values = zip(*((float(when) - now, float(value)) for when, value in series["values"]), strict=True)
            label = query.legend
            for name in re.findall(r"{{(\w+)}}", query.legend):
                label = label.replace(f"{{{{{name}}}}}", series["metric"].get(name, ""))
            axes.plot([moment / 60 for moment in moments], values, linewidth=1.2, label=label.strip())
    if panel.bad_above is not None and axes.get_ylim()[1] > panel.bad_above:
        axes.axhline(panel.bad_above, color="red", linewidth=0.8, linestyle="--")
    axes.set_ylim(0, panel.most or None)
    axes.set_xlim(-minutes, 0)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("minutes", fontsize=7)
    axes.set_ylabel({"none": "", "percentunit": "share", "currencyUSD": "USD"}.get(panel.unit, panel.unit), fontsize=7)
    axes.grid(alpha=0.3)
    lines, labels = axes.get_legend_handles_labels()
    if any(labels):
        axes.legend(lines[:LEGENDS], labels[:LEGENDS], fontsize=6, loc="best", framealpha=0.6)


def _table(axes: Axes, panel: Panel, prometheus: str, minutes: float) -> None:
    """A row for each set of labels that queries share, as Grafana merges them."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for query in panel.queries:
        for series in _result(prometheus, "query", query, {}):
            labels = series["metric"]
            row = found.setdefault(tuple(labels[name] for name in ("verb", "model", "output")), {})
            row |= {name: textwrap.shorten(value, 40) for name, value in labels.items()}
            row[query.legend] = f"{float(series['value'][1]):,.4g}"
    axes.axis("off")
    heads = list(dict.fromkeys(name for row in found.values() for name in row))
    if cells := [[row.get(head, "") for head in heads] for row in found.values()]:
        height = min(1.0, 0.11 * (len(cells) + 1))
        place = Bbox.from_bounds(0.0, 1.0 - height, 1.0, height)  # else a long table would push the other panels away
        drawn = axes.table(cells, colLabels=heads, bbox=place, cellLoc="left", edges="horizontal")
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(7)
        drawn.auto_set_column_width(list(range(len(heads))))


def _result(prometheus: str, how: str, query: Query, words: dict[str, Any]) -> list[dict[str, Any]]:
    said = urlencode({"query": asked(query.expr, INTERVAL), **words})
    with urlopen(f"{prometheus}/api/v1/{how}?{said}", timeout=30) as answer:  # noqa: S310 - who calls it names it
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return result


if __name__ == "__main__":
    url, last_minutes, folder = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    for one in DASHBOARDS:
        draw(url, last_minutes, one).savefig(folder / f"{one.uid}.png", dpi=80)
