"""What watches jobs, as it is written: nothing here starts it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

MONITORING = Path(__file__).parents[2] / "cluster" / "monitoring"
PORTS = {"prometheus": "9090", "alertmanager": "9093", "pushgateway": "9091", "grafana": "3000"}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture
def services() -> dict[str, Any]:
    services: dict[str, Any] = read(MONITORING / "docker-compose.yml")["services"]
    assert services.keys() == PORTS.keys()
    return services


def test_services_listen_on_loopback_alone(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["network_mode"] == "host"
        assert "ports" not in service
        words = service.get("command", [f"http://{service.get('environment', {}).get('GF_SERVER_HTTP_ADDR')}:3000"])
        assert [word for word in words if f"127.0.0.1:{PORTS[name]}" in word], f"{name} listens to others"


def test_services_are_pinned_and_may_do_nothing_special(services: dict[str, Any]) -> None:
    for service in services.values():
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", service["image"])
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service["user"].startswith("0")
        assert service["mem_limit"]


def test_what_they_are_given_is_there_and_read_only(services: dict[str, Any]) -> None:
    kept = read(MONITORING / "docker-compose.yml")["volumes"]
    for service in services.values():
        for volume in service["volumes"]:
            source, _, target = re.sub(r"\$\{[^}]*\}", "/given", volume).partition(":")
            if source in kept:
                continue
            assert target.endswith(":ro")
            assert source.startswith("/given") or (MONITORING / source).exists()


def test_secrets_come_from_whoever_starts_it() -> None:
    words = (MONITORING / "docker-compose.yml").read_text()
    for name in ("GRAFANA_PASSWORD", "WEBHOOK_URL_FILE"):
        assert re.search(rf"\$\{{{name}:\?", words), f"{name} unset is refused"
    settings = read(MONITORING / "alertmanager.yml")
    assert settings["global"] == {"slack_api_url_file": "/etc/alertmanager/webhook_url"}
    assert "http" not in (MONITORING / "alertmanager.yml").read_text()


def test_prometheus_asks_where_the_others_listen() -> None:
    settings = read(MONITORING / "prometheus.yml")
    static = [
        target
        for job in settings["scrape_configs"]
        for one in job.get("static_configs", [])
        for target in one["targets"]
    ]
    assert sorted(static) == sorted(
        f"127.0.0.1:{PORTS[name]}" for name in ("prometheus", "alertmanager", "pushgateway")
    )
    (told,) = settings["alerting"]["alertmanagers"]
    assert told["static_configs"] == [{"targets": [f"127.0.0.1:{PORTS['alertmanager']}"]}]


def test_on_kubernetes_series_have_the_names_that_the_rules_speak_of() -> None:
    (ray,) = [job for job in read(MONITORING / "prometheus.yml")["scrape_configs"] if job["job_name"] == "ray"]
    (monitored,) = read(MONITORING.parent / "kuberay" / "base" / "podmonitor.yaml")["spec"]["podMetricsEndpoints"]
    camel = {"source_labels": "sourceLabels", "target_label": "targetLabel"}
    relabelled = [
        {camel.get(name, name): value for name, value in rule.items()} for rule in ray["metric_relabel_configs"]
    ]
    assert monitored["metricRelabelings"] == relabelled
    assert monitored["interval"] == ray["scrape_interval"]
    assert monitored["relabelings"] == [{"targetLabel": "job", "replacement": "ray"}]
