"""Jobs as `top` finds them: in the records of an output, and in what they tell meanwhile."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

from celebvision.batch.record import LEASE, Run, load_run
from celebvision.batch.runs import state_of
from celebvision.lease import holder_of
from celebvision.metrics import METRICS, names
from celebvision.metrics.names import JOB_LABELS, STATES, Metric
from celebvision.storage import NotFound, Store

RUNS = 5  # of an output, the latest
TIMEOUT_S = 5.0
OF_RAY = "WorkerId"  # a label of what Ray shows
SUFFIXES = ("", "_sum", "_count")  # of a histogram; its buckets are not shown
METRIC = {
    f"{metric.exported}{suffix}": metric
    for metric in METRICS.values()
    for suffix in (SUFFIXES if metric.kind == "histogram" else ("",))
}


@dataclass
class Job:
    """A job and its figures, named as in `run.json`: the name in Prometheus with the labels that are not the job's."""

    verb: str
    model: str
    output: str
    state: str = ""
    figures: dict[str, float] = field(default_factory=dict)

    def value(self, metric: Metric, suffix: str = "", **labels: str) -> float | None:
        """A figure; nothing if it was not told."""
        return self.figures.get(_named(f"{metric.exported}{suffix}", labels))

    def values(self, metric: Metric, label: str, suffix: str = "") -> dict[str, float]:
        """Those of a metric by one of its labels, summed over the others."""
        found: dict[str, float] = {}
        for name, value in self.figures.items():
            before, _, labels = name.partition("{")
            if before == f"{metric.exported}{suffix}" and (said := re.search(rf'\b{label}="([^"]*)"', labels)):
                found[said[1]] = found.get(said[1], 0.0) + value
        return found


def of_output(output: Store) -> list[Job]:
    """The latest runs of an output, by their records."""
    held, jobs = holder_of(output, LEASE), []
    for run_id in output.folders("runs/")[-RUNS:]:
        try:
            run = load_run(output, run_id)
        except NotFound:
            continue  # it is just being made, or deleted
        jobs.append(_of_run(run, output.uri, held))
    return jobs


def _of_run(run: Run, uri: str, held: str | None) -> Job:
    return Job(run.verb, run.model["name"], uri, state_of(run, held), run.figures)


def of_metrics(url: str) -> list[Job]:
    """Jobs that Prometheus, a Pushgateway or a Ray node shows.

    Raises:
        OSError: it does not answer, with what it said instead.
        ValueError: what it answers is of neither.
    """
    try:
        return _jobs(_of_prometheus(url))
    except HTTPError as error:
        if error.code not in (404, 405):
            raise
    return _jobs(_of_text(_get(f"{url.removesuffix('/metrics')}/metrics")))


def merged(jobs: Iterable[Job]) -> list[Job]:
    """One of each verb, model and output: the latest, with all figures; those that run first, then the latest."""
    found: dict[tuple[str, str, str], Job] = {}
    for job in sorted(jobs, key=_began):
        before = found.get(key := (job.verb, job.model, job.output))
        same = before is not None and _began(before) == _began(job)
        known = before.figures if before is not None and same else {}
        state = before.state if before is not None and same and before.state == "stopped" else job.state
        found[key] = Job(*key, state, {**known, **job.figures})
    return sorted(found.values(), key=lambda job: (job.state not in ("running", "listing"), -_began(job)))


def _began(job: Job) -> float:
    return round(job.value(names.STARTED) or 0.0, 3)


Series = Iterator[tuple[str, dict[str, str], float]]


def _jobs(series: Series) -> list[Job]:
    """What is shown twice, by Ray and by the Pushgateway, is one job."""
    found: dict[tuple[str, str, str], tuple[dict[str, float], dict[str, float]]] = {}
    for shown, labels, value in series:
        name = shown.removeprefix("ray_")
        if name not in METRIC or not labels.keys() >= set(JOB_LABELS):
            continue
        by_ray, left = found.setdefault((labels["verb"], labels["model"], labels["output"]), ({}, {}))
        figures = by_ray if OF_RAY in labels else left
        full = _named(name, {label: labels.get(label, "") for label in METRIC[name].labels})
        figures[full] = max(value, figures.get(full, value))
    jobs = [Job(*key, figures=_latest(*shown)) for key, shown in found.items()]
    for job in jobs:
        states = [state for state in STATES if job.value(names.STATE, state=state)]
        job.state = states[-1] if job.value(names.ENDED) else (states or ["running"])[0]
    return jobs


def _latest(by_ray: dict[str, float], left: dict[str, float]) -> dict[str, float]:
    """Ray's are the later while a job lives, and the Pushgateway's at its end, when Ray still shows the last but one.

    Of a histogram's sum it is the Pushgateway's: Ray adds up the middles of buckets.
    """
    began = names.STARTED.name
    if round(by_ray.get(began, 0.0), 3) > round(left.get(began, 0.0), 3):
        return by_ray  # those of a run before were left
    if left.get(names.ENDED.name):
        return left
    return {**left, **by_ray, **{name: value for name, value in left.items() if _of_histogram(name)}}


def _of_histogram(full: str) -> bool:
    return METRIC[full.partition("{")[0]].kind == "histogram"


def _of_prometheus(url: str) -> Series:
    query = urlencode({"query": '{__name__=~"(ray_)?celebvision_.*"}'})
    answer: Any = json.loads(_get(f"{url}/api/v1/query?{query}"))
    for one in answer["data"]["result"]:
        labels = one["metric"]
        yield labels.pop("__name__"), labels, float(one["value"][1])


def _of_text(text: str) -> Series:
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def _get(url: str) -> str:
    try:
        with urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - the settings take http and https alone
            content: bytes = answer.read()
    except HTTPException as error:
        raise OSError(f"it does not speak HTTP: {error}") from error
    return content.decode()


def _named(name: str, labels: dict[str, str]) -> str:
    own = ",".join(f'{label}="{labels[label]}"' for label in sorted(labels))
    return f"{name}{{{own}}}" if own else name
