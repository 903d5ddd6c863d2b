"""`celebvision VERB [--config FILE.yaml] [--key value …]`: one verb, one settings class, one function.

Exit status: 0 done; 1 the job failed; 2 the words were wrong; 3 done, but more failures than `--max_failures`;
130 interrupted.
"""

from __future__ import annotations

import importlib
import json
import logging
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from celebvision import __version__, config, logs
from celebvision.job import JobFailed, Outcome
from celebvision.logs import console, say, says_json
from celebvision.registry import RegistryError
from celebvision.storage import StorageError


@dataclass(frozen=True)
class Verb:
    """What a word stands for: `function` is imported only when it is called, so that `--help` is quick."""

    settings: type[config.Settings]
    function: str
    on_ray: bool = True
    first: str | None = None  # the setting that the word behind the verb is, without its flag
    behind: str | None = None  # the setting that all words behind -- are

    def load(self) -> Callable[[Any], Outcome]:
        module, _, name = self.function.partition(":")
        function: Callable[[Any], Outcome] = getattr(importlib.import_module(module), name)
        return function


VERBS = {
    "ingest": Verb(config.IngestSettings, "celebvision.celeba.ingest:ingest"),
    "train": Verb(config.TrainSettings, "celebvision.training.run:train"),
    # It starts Ray itself, when something has landed.
    "retrain": Verb(config.RetrainSettings, "celebvision.retrain.run:retrain", on_ray=False),
    "evaluate": Verb(config.EvaluateSettings, "celebvision.evaluation.run:evaluate", on_ray=False),
    "promote": Verb(config.PromoteSettings, "celebvision.registry:promote_version", on_ray=False),
    "classify": Verb(config.ClassifySettings, "celebvision.batch.run:classify"),
    "stylize": Verb(config.StylizeSettings, "celebvision.batch.run:stylize"),
    "plan": Verb(config.PlanSettings, "celebvision.batch.plan:plan"),
    "runs": Verb(config.RunsSettings, "celebvision.batch.runs:runs", on_ray=False),
    "app": Verb(config.AppSettings, "celebvision.app:app", on_ray=False),
    "report": Verb(config.ReportSettings, "celebvision.report:report", on_ray=False),
    "top": Verb(config.TopSettings, "celebvision.top:top", on_ray=False),
    "demo": Verb(config.DemoSettings, "celebvision.demo:demo", on_ray=False),
    "cluster": Verb(config.ClusterSettings, "celebvision.local_cluster:cluster", on_ray=False, first="action"),
    "submit": Verb(config.SubmitSettings, "celebvision.submit:submit", on_ray=False, first="verb", behind="words"),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit status."""
    words = sys.argv[1:] if words is None else list(words)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(__version__)
        return 0
    name, *rest = words
    if name not in VERBS:
        print(f"celebvision: {name}: there is no such verb; there are: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    try:
        settings = config.parse(VERBS[name].settings, _with_flags(VERBS[name], rest), f"celebvision {name}")
    except config.WordsError as error:
        print(f"celebvision {name}: {error}", file=sys.stderr)
        return 2
    namespace = getattr(settings, "cloudwatch", None)
    logs.configure(as_json=settings.log_json or namespace is not None, namespace=namespace)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job that is stopped says how it stands
    try:
        outcome = _run(VERBS[name], settings)
    except KeyboardInterrupt:
        say(f"celebvision {name}: interrupted; the same command continues", logging.ERROR)
        return 130
    except (JobFailed, StorageError, RegistryError) as error:
        say(f"celebvision {name}: {error}", logging.ERROR)
        return 1
    _print_summary(outcome, settings.summary_as_json)
    allowed = getattr(settings, "max_failures", None)
    if outcome.status:
        return outcome.status
    return 3 if allowed is not None and outcome.failures > allowed else 0


def _with_flags(verb: Verb, words: list[str]) -> list[str]:
    """`classify --address URL -- --input PLACE` as `--verb classify --address URL --words='--input PLACE'`."""
    if verb.first and words and not words[0].startswith("-"):
        words = [f"--{verb.first}", *words]
    if verb.behind and "--" in words:
        at = words.index("--")
        words = [*words[:at], f"--{verb.behind}={shlex.join(words[at + 1 :])}"]
    return words


def _run(verb: Verb, settings: config.Settings) -> Outcome:
    if not verb.on_ray:
        return verb.load()(settings)
    import ray

    from celebvision import ray_session

    # Ray prints what it hears of lost workers, and stdout is for the outcome.
    with redirect_stdout(sys.stderr):
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(verb.load)  # torch takes as long to import as Ray's own processes to start
            ray_session.start()
        try:
            return loading.result()(settings)
        finally:
            ray.shutdown()


def _print_summary(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        print(json.dumps(outcome.summary, sort_keys=True))
        return
    if says_json():
        say("outcome", outcome=outcome.summary)
        return
    for key, value in outcome.summary.items():
        console.print(f"  {key:<16} {value}", markup=False, soft_wrap=True)


def _overview() -> str:
    lines = ["usage: celebvision VERB [--config FILE.yaml] [--key value …]", ""]
    for name, verb in VERBS.items():
        lines.append(f"  {name:<10} {(verb.settings.__doc__ or '').splitlines()[0]}")
    return "\n".join([*lines, "", "celebvision VERB --help tells a verb's settings."])
