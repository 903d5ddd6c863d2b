"""What jobs tell Prometheus: names, labels and meaning, and where a finished job leaves its figures."""

from __future__ import annotations

import urllib.error
from collections.abc import Mapping
from http.client import HTTPException

from celebvision.job import console

JOB = "celebvision"
TIMEOUT_S = 10.0
DRIFT = "celebvision_drift_psi"
DRIFT_HELP = "Population stability index of a distribution, since the last run of the model on this output."


def push_drift(gateway: str, psi: Mapping[str, float], *, output: str, model: str) -> None:
    """Leave the indices of a finished `classify` at a Pushgateway, for Prometheus to scrape when the job is gone.

    The gauge has a label `distribution` and, for its group, `job`, `output` and `model`: the next run of the model on
    the output replaces it. Figures are no reason for a run to fail: a gateway that does not take them is warned of.

    Args:
        gateway: its URL.
        psi: by distribution.
    """
    # Its servers take long to import, which only those who push should wait for.
    from prometheus_client import CollectorRegistry, Gauge, push_to_gateway

    registry = CollectorRegistry()
    gauge = Gauge(DRIFT, DRIFT_HELP, ["distribution"], registry=registry)
    for distribution, index in psi.items():
        gauge.labels(distribution).set(index)
    try:
        push_to_gateway(gateway, JOB, registry, {"output": output, "model": model}, TIMEOUT_S)
    except (OSError, HTTPException) as error:
        # The gateway's own words say more than the status.
        words = error.read().decode(errors="replace").strip() if isinstance(error, urllib.error.HTTPError) else ""
        told = f"pushgateway: {gateway} did not take the drift, which run.json keeps: {words or error}"
        console.print(told, markup=False, soft_wrap=True)
