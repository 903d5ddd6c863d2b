"""What a dashboard is made of, and what Grafana wants to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from grafana_foundation_sdk.builders import common, prometheus, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from celebvision.metrics import names

SOURCE = models.DataSourceRef("prometheus", "celebvision-prometheus")  # as it is provisioned
JOB = ("verb", "model", "output")
FALLING = {
    metric.name for metric in (names.REMAINING, names.ETA, names.QUEUE)
}  # of what is left, the less is the later
WIDTH, HEIGHT = 24, 8  # of Grafana's grid: all columns, and the rows of a panel


@dataclass(frozen=True)
class Query:
    """PromQL, and what a series of it is called; in a table the latter is its column."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A picture of some queries. `says` tells what to do when it looks bad."""

    title: str
    says: str
    unit: str  # Grafana's name of it
    queries: Sequence[Query]
    kind: Literal["lines", "table"] = "lines"
    columns: int = 12  # of WIDTH
    bad_above: float | None = None  # from there on it is red
    most: float | None = None  # the scale ends there


@dataclass(frozen=True)
class Dashboard:
    """A question, and the panels that answer it, in the order of reading."""

    name: str
    question: str
    panels: Sequence[Panel]

    @property
    def uid(self) -> str:
        return f"celebvision-{self.name.lower().replace(' ', '-')}"


def of_job(metric: str, *labels: str, **chosen: str) -> str:
    """The job's metric, once, though Ray and the Pushgateway both show it: the later value."""
    later = "min" if metric in FALLING else "max"
    return f"{later} by ({', '.join((*JOB, *labels))}) ({_chosen(metric, chosen)})"


def rate(metric: str, *labels: str, **chosen: str) -> str:
    """How fast the job's counter grows, a second."""
    return f"max by ({', '.join((*JOB, *labels))}) (rate({_chosen(metric, chosen)}[$__rate_interval]))"


def asked(expr: str, interval: str) -> str:
    """The PromQL that Grafana would send: all jobs, rates over `interval`."""
    for name in JOB:
        expr = expr.replace(f"${name}", ".*")
    return expr.replace("$__rate_interval", interval)


def _chosen(metric: str, chosen: dict[str, str]) -> str:
    words = [f'{name}=~"${name}"' for name in JOB] + [f'{name}="{value}"' for name, value in chosen.items()]
    return f"{metric}{{{', '.join(words)}}}"


def built(dashboard: Dashboard, others: Sequence[Dashboard]) -> models.Dashboard:
    """As Grafana reads it, with links to the others."""
    made = (
        build.Dashboard(f"{dashboard.name}: {dashboard.question}")
        .uid(dashboard.uid)
        .tags(["celebvision"])
        .refresh("30s")
        .time("now-12h", "now")
        .timezone("browser")
        .readonly()
    )
    for name in JOB:
        made.with_variable(_variable(name))
    for other in others:
        if other is not dashboard:
            link = build.DashboardLink(other.name).type(models.DashboardLinkType.LINK).url(f"/d/{other.uid}")
            made.link(link.keep_time(True).include_vars(True).tooltip(other.question))
    column = row = 0
    for number, panel in enumerate(dashboard.panels, 1):
        if column + panel.columns > WIDTH:
            column, row = 0, row + HEIGHT
        place = models.GridPos(h=HEIGHT, w=panel.columns, x=column, y=row)
        made.with_panel(_built(panel).id(number).grid_pos(place))
        column += panel.columns
    return made.build()


def _variable(name: str) -> build.QueryVariable:
    chosen = (
        build.QueryVariable(name)
        .label(name)
        .datasource(SOURCE)
        .query(f"label_values(celebvision_job_state, {name})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
    everything = models.VariableOption(text="All", value="$__all", selected=True)
    return chosen.multi(True).include_all(True).all_value(".*").current(everything)


def _built(panel: Panel) -> Any:
    kind: Any = timeseries.Panel if panel.kind == "lines" else table.Panel
    made = kind().title(panel.title).description(panel.says).unit(panel.unit).datasource(SOURCE)
    steps = [models.Threshold(value=None, color="green")]
    if panel.bad_above is not None:
        steps.append(models.Threshold(value=panel.bad_above, color="red"))
    made.thresholds(build.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.kind == "lines":
        made.min(0)
        if panel.most is not None:
            made.max(panel.most)
        below = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
        made.legend(below.show_legend(True).calcs([]))
    for number, query in enumerate(panel.queries):
        asked = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + number))
        if panel.kind == "table":
            asked.instant().format(PromQueryFormat.TABLE)
        else:
            asked.range()
        made.with_target(asked)
    if panel.kind == "table":
        columns = {f"Value #{chr(ord('A') + number)}": query.legend for number, query in enumerate(panel.queries)}
        renamed = columns if len(panel.queries) > 1 else {"Value": panel.queries[0].legend}
        made.transformations(
            [
                models.DataTransformerConfig(id_val="merge", options={}),
                models.DataTransformerConfig(
                    id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": renamed}
                ),
            ]
        )
    return made
