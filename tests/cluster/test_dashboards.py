"""Grafana's dashboards are what the code makes, and ask for nothing that nobody measures."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from celebvision.metrics import METRICS
from celebvision.metrics.names import JOB_LABELS, VERBS
from cluster.monitoring.grafana.panel import WIDTH, Dashboard
from cluster.monitoring.grafana.write import DASHBOARDS, FOLDER, as_json

GRAFANA = FOLDER.parent
UNITS = {"none", "s", "percent", "percentunit", "bytes", "Bps", "currencyUSD"}


@pytest.fixture(params=DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def dashboard(request: pytest.FixtureRequest) -> Dashboard:
    made: Dashboard = request.param
    return made


def panels(dashboard: Dashboard) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(as_json(dashboard))["panels"]
    return found


def test_what_lies_there_is_what_the_code_makes() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{one.uid}.json" for one in DASHBOARDS}
    for one in DASHBOARDS:
        assert (FOLDER / f"{one.uid}.json").read_text() == as_json(one), "run `make dashboards`"


def test_each_panel_says_what_it_is_and_what_to_do(dashboard: Dashboard) -> None:
    ids = [panel["id"] for panel in panels(dashboard)]
    assert len(ids) == len(set(ids))
    for panel in panels(dashboard):
        assert panel["title"]
        assert len(panel["description"]) > 20
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["targets"]
        assert all(target["legendFormat"] for target in panel["targets"])


def test_no_panel_hides_another(dashboard: Dashboard) -> None:
    places = [panel["gridPos"] for panel in panels(dashboard)]
    for place in places:
        assert place["x"] + place["w"] <= WIDTH
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


def test_it_asks_the_source_that_is_provisioned_and_finds_its_sisters(dashboard: Dashboard) -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    content = json.loads(as_json(dashboard))
    asked = {panel["datasource"]["uid"] for panel in content["panels"]}
    asked |= {variable["datasource"]["uid"] for variable in content["templating"]["list"]}
    assert asked == {sources[0]["uid"]}
    assert {variable["name"] for variable in content["templating"]["list"]} == set(JOB_LABELS)
    assert {link["url"] for link in content["links"]} == {f"/d/{one.uid}" for one in DASHBOARDS if one is not dashboard}
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "celebvision.yml").read_text())["providers"]
    services = yaml.safe_load((GRAFANA.parent / "docker-compose.yml").read_text())["services"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in services["grafana"]["volumes"]


def test_it_asks_for_what_jobs_measure(dashboard: Dashboard) -> None:
    known = {}
    for metric in METRICS.values():
        for suffix in ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",):
            known[metric.exported + suffix] = {*metric.labels, *JOB_LABELS, *(("le",) if suffix == "_bucket" else ())}
    for panel in panels(dashboard):
        for target in panel["targets"]:
            asked = re.findall(r"(?:max|min) by \(([^)]*)\) \((?:rate\()?(celebvision_\w+)\{([^}]*)\}", target["expr"])
            assert len(asked) == len(re.findall(r"celebvision_\w+", target["expr"])), "it would count twice"
            for by, name, chosen in asked:
                labels = {*by.split(", "), *re.findall(r"(\w+)=", chosen)}
                assert labels <= known[name], name
                for label, value in re.findall(r'(\w+)="([^"]*)"', chosen):
                    assert value in (VERBS if label == "verb" else METRICS[name.removesuffix("_total")].labels[label])
            legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            if asked and "sum by" not in target["expr"]:
                assert legend <= {label for by, _, _ in asked for label in by.split(", ")}


def test_documents_show_each_dashboard() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "monitoring.md").read_text()
    for one in DASHBOARDS:
        picture = root / "docs" / "monitoring" / f"{one.uid}.png"
        assert f"](monitoring/{picture.name})" in page
        assert picture.stat().st_size < 300_000
