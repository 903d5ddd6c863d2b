"""What there is to say of a run of `classify` or `stylize`."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from functools import partial

import pyarrow.compute as pc

from celebvision.batch.drift import reading
from celebvision.batch.record import LEASE, Run, load_run
from celebvision.batch.runs import state_of
from celebvision.config import SPEECH, WATCHED, BatchSettings, ClassifySettings, Settings, StylizeSettings
from celebvision.lease import holder_of
from celebvision.logs import duration, printable
from celebvision.page import Picture, page
from celebvision.report.plots import bars, progress
from celebvision.report.samples import Failed, failed, labelled, tables
from celebvision.storage import Store, open_store

SLOWEST = 10  # that are shown
STAGES = {"fetch": "fetching", "decode": "decoding", "infer": "the network", "write": "writing"}


def page_of_run(uri: str, run_id: str) -> str:
    """The page of a run of the output at `uri`, however it stands. Raises as `load_run`, and `StorageError`."""
    output = open_store(uri)
    run = load_run(output, run_id)
    settings = settings_of(run)
    state = state_of(run, holder_of(output, LEASE))
    failures = failed(output, run, settings)
    return page(
        "batch.html",
        f"{run.verb} with {run.model['name']}: {state}",
        _pictures(output, run, settings, failures),
        run=run,
        state=state,
        facts=_facts(run),
        stages=_stages(run),
        failures=failures,
        labels=_labels(output, run),
        drift=[(name, index, reading(index)) for name, index in _largest(run.drift.get("psi", {}))],
        slowest=[(seconds, printable(key)) for seconds, key in run.slowest[:SLOWEST]],
        command=command(run.verb, settings),
        words=_given(settings),
        sheet=run.state == "done",
    )


def settings_of(run: Run) -> BatchSettings:
    """What the run was told, without how it spoke and was watched."""
    kind: type[BatchSettings] = StylizeSettings if run.verb == "stylize" else ClassifySettings
    known = kind.model_fields.keys() - SPEECH - WATCHED
    return kind(**{name: value for name, value in run.config.items() if name in known})


def command(verb: str, settings: Settings) -> str:
    """The command that these settings came from, for a shell."""
    words = [word for name, value in _given(settings) for word in (f"--{name}", value)]
    return shlex.join(["celebvision", verb, *words])


def _given(settings: Settings) -> list[tuple[str, str]]:
    """Settings that are not as they are by themselves, as words."""
    given = settings.model_dump(mode="json", exclude_defaults=True)
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in given.items()]


def _facts(run: Run) -> list[tuple[str, str]]:
    counts, done = run.counts, sum(run.counts.get(kind, 0) for kind in ("results", "failures"))
    facts = [
        ("run", run.run_id),
        ("begun", run.created.replace("T", " ").replace("+00:00", " UTC")),
        ("last written", run.updated.replace("T", " ").replace("+00:00", " UTC")),
        ("model", f"{run.model['name']}@{run.model['version']}"),
        ("SHA-256 of its weights", run.model["weights_sha256"]),
        ("version of the code", run.code_version),
        ("images", _listed(run)),
        ("results", f"{counts.get('results', 0):,}"),
        ("failures", f"{counts.get('failures', 0):,}"),
        ("time of work", duration(run.seconds)),
    ]
    if uncertain := counts.get("results_uncertain"):
        facts.append(("uncertain", f"{uncertain:,}"))
    if run.seconds and done:
        facts.append(("images a second", f"{done / run.seconds:,.1f}"))
    for name, words, unit in (
        ("celebvision_cost_usd", "cost", "USD"),
        ('celebvision_bytes_total{direction="read"}', "read", "bytes"),
        ('celebvision_bytes_total{direction="written"}', "written", "bytes"),
        ("celebvision_prefetch_wait_seconds_total", "workers waited for pictures", "s"),
        ("celebvision_accelerator_busy_ratio", "share of the workers' time in the network", ""),
    ):
        if value := run.figures.get(name):
            facts.append((words, f"{value:,.0f} bytes" if unit == "bytes" else f"{value:,.3g} {unit}".strip()))
    if retry := run.retry:
        facts.append(("done again", retry))
    return facts


def _listed(run: Run) -> str:
    if not run.inventory:
        return "not listed yet"
    return f"{run.inventory['keys']:,}" + ("" if run.whole else " so far")


def _stages(run: Run) -> list[tuple[str, float, float]]:
    """Of each stage its seconds in all workers, and its share."""
    seconds = {
        words: run.figures.get(f'celebvision_stage_seconds_sum{{stage="{stage}"}}', 0.0)
        for stage, words in STAGES.items()
    }
    spent = sum(seconds.values())
    return [(words, one, one / spent) for words, one in seconds.items()] if spent else []


def _labels(output: Store, run: Run) -> dict[str, list[tuple[str, int]]]:
    """How many pictures have each label, by column."""
    if run.verb != "classify":
        return {}
    found: dict[str, Counter[str]] = {}
    for table in tables(output, f"results/run={run.run_id}/", lambda name: name.startswith("label")):
        for name in table.column_names:
            for count in pc.value_counts(table[name]).to_pylist():
                found.setdefault(name, Counter())[count["values"]] += count["counts"]
    return {name: counts.most_common() for name, counts in found.items()}


def _largest(values: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(values.items(), key=lambda item: -item[1])


def _pictures(output: Store, run: Run, settings: BatchSettings, failures: list[Failed]) -> list[Picture]:
    """In the order in which they are worth their room."""
    pictures = []
    if run.timeline:
        plot = partial(progress, run.timeline, run.inventory.get("keys", 0))
        pictures.append(Picture("rate over time", "png", plot))
    for name, bins in run.distributions.items():
        if name.startswith("probability"):
            drawn = partial(bars, bins, f"{name.replace('_', ' ')} of the second class, from", "images")
            pictures.append(Picture(name, "png", drawn))
    if run.state == "done":
        stored = {stat.key for stat in output.list(f"{run.folder}/") if stat.key in (run.sheet, run.losses_plot)}
        pictures += [
            Picture(words, "png", partial(output.get, key))
            for key, words in ((run.sheet, "pictures beside what was drawn of them"), (run.losses_plot, "losses"))
            if key in stored
        ]
        if run.verb == "classify" and (sheet := labelled(output, run, settings)):
            pictures.append(Picture("labelled pictures", "png", lambda: sheet))
    pictures += [
        Picture(example.picture, "png", partial(bytes, example.thumbnail))
        for kind in failures
        for example in kind.examples
        if example.thumbnail
    ]
    return pictures
