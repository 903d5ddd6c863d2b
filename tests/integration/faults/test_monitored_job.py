"""A real Prometheus, Alertmanager and Pushgateway beside jobs on two nodes: what they show, and of what they tell."""

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from labelling import record, rows
from monitoring import STILL_S, Monitoring
from trainings import drawn_shards

from celebvision.batch.clock import STAGES
from celebvision.metrics import Figures, names, push
from cluster.monitoring.grafana.panel import Dashboard, asked
from cluster.monitoring.grafana.write import CLUSTER, JOBS, PIPELINE, TRAINING
from faults.cluster import Cluster, cluster, free_ports
from faults.command import BIN, END_S, kill, parts, wait_until
from faults.conftest import House, Start

ACTOR = "WorkShards"
TOLD_S = STILL_S + 90
FIRING = 'ALERTS{alertstate="firing"}'


@pytest.fixture(scope="module")
def watched(monitoring: Monitoring, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes that Prometheus scrapes."""
    folder = tmp_path_factory.mktemp("watched")
    with cluster(folder) as made:
        dashboard, autoscaler, metrics = (str(free_ports(1)) for _ in range(3))
        made.environment |= {
            "RAY_metrics_report_interval_ms": "1000",
            # Ray forgets a gauge after twice that time: what nodes tell by themselves has to come as often.
            "REPORTER_UPDATE_INTERVAL_MS": "1000",
            # Else all clusters of this machine would have the same.
            "AUTOSCALER_METRIC_PORT": autoscaler,
            "DASHBOARD_METRIC_PORT": metrics,
        }
        made.add(1, "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}")
        made.add(1)
        found = Path(made.rays_folder) / monitoring.nodes.name
        wait_until(
            lambda: found.exists() and len(json.loads(found.read_text())[0]["targets"]) == 4, "two nodes", TOLD_S
        )
        monitoring.nodes.write_bytes(found.read_bytes())
        wait_until(lambda: monitoring.value('count(up{job="ray"} == 1)') == 4, "all are scraped", TOLD_S)
        yield made
    monitoring.nodes.write_text("[]")


class Asked:
    """The queries of dashboards that Prometheus has not answered with a series yet; a panel's name with each."""

    def __init__(self, monitoring: Monitoring, *dashboards: Dashboard) -> None:
        self.monitoring = monitoring
        self.left = [
            (f"{dashboard.name}: {panel.title}", asked(query.expr, "15s"))
            for dashboard in dashboards
            for panel in dashboard.panels
            for query in panel.queries
        ]

    def again(self) -> None:
        self.left = [(panel, query) for panel, query in self.left if not self.monitoring.series(query)]

    def until_all(self, timeout_s: float) -> None:
        """Ask until none is left, or time is over."""
        deadline = time.monotonic() + timeout_s
        while self.left and time.monotonic() < deadline:
            self.again()
            time.sleep(1)


def workers(watched: Cluster) -> list[int]:
    """Processes that work on shards."""
    return [process for node in watched.nodes for process in node.processes(ACTOR)]


def of(output: Path, metric: str, labels: str = "") -> str:
    """A metric of the job that writes there, whoever shows it."""
    return f'{metric}{{output="{output}"{labels}}}'


def test_a_healthy_job_is_seen_to_its_end_and_nobody_is_told(
    house: House, start: Start, watched: Cluster, monitoring: Monitoring, tmp_path: Path
) -> None:
    output, seen = tmp_path / "labels", Counter[str]()
    # What only a second run has, or none here: drift, and a failed share from a hundred images on.
    gone = Figures("classify", "other", str(output))
    gone.set(names.DRIFT, 0.3, distribution="brightness")
    assert push(monitoring.pushgateway, gone) == ""
    dashboards, last = Asked(monitoring, JOBS, PIPELINE, CLUSTER), time.monotonic()
    words = ["--node_type", "g5.xlarge", "--deadline", "2100-01-01T00:00:00Z"]
    done = of(output, "celebvision_images_total", ',stage="write",outcome="ok",job="ray"')
    words = [*house.words(output), *words, "--pushgateway", monitoring.pushgateway]
    # Parts at which the workers are held until Prometheus has seen more: a quick job would be over between two looks.
    holds, held, before = [house.shards // 3, house.shards * 2 // 3], list[int](), 0.0
    with start(words, watched.environment) as command:

        def ended() -> bool:
            nonlocal last, held, before
            if time.monotonic() - last > 1:
                dashboards.again()
                last = time.monotonic()
            amount = monitoring.value(f"max({done})")
            if amount is not None and amount < len(house.keys):
                seen["done"] += 1
                for metric in ("images_per_second", "images_remaining", "eta_seconds", "queue_shards", "workers"):
                    seen[metric] += len(monitoring.series(of(output, f"celebvision_{metric}")))
            if held and amount is not None and amount > before:
                kill(held, signal.SIGCONT)
                held, before = [], amount
            elif not held and holds and parts(output) >= holds[0]:
                held, _ = workers(watched), holds.pop(0)
                kill(held, signal.SIGSTOP)
            assert not monitoring.series(FIRING)
            return command.ended()

        wait_until(ended, "the job did not end", END_S)
        assert command.status() == 0, command.stderr
    assert not holds, "it was over before it was held"
    assert len(+seen) == 6, f"while it ran, Prometheus showed {seen}"

    ends = f"max({of(output, 'celebvision_job_end_timestamp_seconds')}) > 0"
    wait_until(lambda: bool(monitoring.series(ends)), "its end was not seen", TOLD_S)
    dashboards.until_all(TOLD_S)
    failed = Counter(row["stage"] for row in rows(str(output), "failures"))
    told, left = record(str(output)), len(rows(str(output), "results")) + failed.total()
    assert left == len(house.keys)
    for stage in STAGES:
        left -= failed[stage]
        for outcome, amount in (("ok", left), ("failed", failed[stage])):
            labels = f',stage="{stage}",outcome="{outcome}",job="celebvision"'
            assert monitoring.value(of(output, "celebvision_images_total", labels)) == amount
            assert told["figures"][f'celebvision_images_total{{outcome="{outcome}",stage="{stage}"}}'] == amount
    assert told["counts"]["results"] == left
    assert monitoring.value(of(output, "celebvision_images_remaining", ',job="celebvision"')) == 0
    assert not monitoring.series(FIRING)
    assert not monitoring.told
    assert dashboards.left == [], "panels of Grafana that showed nothing of the job"
    top = [str(BIN / "celebvision"), "top", "--metrics", monitoring.prometheus, "--json"]
    looked = json.loads(subprocess.run(top, capture_output=True, text=True, check=True, timeout=60).stdout)
    (job,) = [job for job in looked["jobs"] if job["output"] == str(output) and job["model"] == "cnn"]
    assert job["state"] == "done"
    del told["figures"][names.ENDED.name]  # the record is written before the end
    assert {name: job["figures"][name] for name in told["figures"]} == told["figures"]


def test_a_training_is_on_its_dashboard(start: Start, watched: Cluster, monitoring: Monitoring, tmp_path: Path) -> None:
    registry = str(tmp_path / "models")
    # What a GAN and `retrain` have besides: each takes minutes.
    gan, retrained = Figures("train", "cyclegan", registry), Figures("retrain", "cnn", registry)
    gan.set(names.VALIDATION, 0.2, figure="variety")
    gan.set(names.LOSS, 0.4, loss="discriminator")
    retrained.set_one(names.DECISION, "promoted")
    retrained.set(names.RETRAINED, time.time())
    assert [push(monitoring.pushgateway, figures) for figures in (gan, retrained)] == ["", ""]
    dashboard = Asked(monitoring, TRAINING)
    words = [str(BIN / "celebvision"), "train", "--data", drawn_shards(tmp_path, 60), "--registry", registry]
    words += [
        "--phases",
        '[{"epochs": 3, "learning_rate": 0.001}]',
        "--batch_size",
        "20",
        "--arguments",
        '{"width": 8}',
    ]
    with start([*words, "--pushgateway", monitoring.pushgateway], watched.environment) as command:

        def ended() -> bool:
            dashboard.again()
            return command.ended()

        wait_until(ended, "the training did not end", END_S, every_s=1)
        assert command.status() == 0, command.stderr
    dashboard.again()
    assert dashboard.left == [], "panels of Grafana that showed nothing of the training"


def test_a_job_that_stands_still_is_told_of_and_so_is_that_it_goes_on(
    house: House, start: Start, watched: Cluster, monitoring: Monitoring, tmp_path: Path
) -> None:
    output = tmp_path / "labels"
    with start([*house.words(output), "--pushgateway", monitoring.pushgateway], watched.environment) as command:
        wait_until(lambda: any(output.glob("runs/*/parts/*")) or command.ended(), "nothing was done", END_S)
        still = workers(watched)
        assert still, command.stderr
        kill(still, signal.SIGSTOP)
        wait_until(lambda: bool(monitoring.told), "nobody was told", TOLD_S)
        (told,) = monitoring.told[0]["attachments"]
        assert told["title"] == "page: NoProgress"
        assert "classify with cnn has done nothing for " in told["text"]
        assert str(output) in told["text"]
        assert "cluster/monitoring/RUNBOOK.md#noprogress" in told["text"]
        kill(still, signal.SIGCONT)
        wait_until(lambda: len(monitoring.told) > 1, "nobody was told that it goes on", TOLD_S)
        assert monitoring.told[1]["attachments"][0]["title"] == "over: NoProgress"
        assert command.status() == 0, command.stderr
    assert sum(len(rows(str(output), kind)) for kind in ("results", "failures")) == len(house.keys)
