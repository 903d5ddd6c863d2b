"""Makes the dashboards' JSON: `python -m cluster.monitoring.grafana.write`, or `make dashboards`."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from cluster.monitoring.grafana.jobs import JOBS, PIPELINE
from cluster.monitoring.grafana.others import CLUSTER, TRAINING
from cluster.monitoring.grafana.panel import Dashboard, built

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = (JOBS, PIPELINE, TRAINING, CLUSTER)


def as_json(dashboard: Dashboard) -> str:
    """What Grafana is given."""
    return JSONEncoder(sort_keys=True, indent=1).encode(built(dashboard, DASHBOARDS)) + "\n"


def write() -> None:
    """Write each anew."""
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.uid}.json").write_text(as_json(dashboard))


if __name__ == "__main__":
    write()
