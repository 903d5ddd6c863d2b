"""`classify`: from the words of the command to a finished run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.data import ActorPoolStrategy
from torch import Tensor

from celebvision import registry
from celebvision.batch.inventory import write_inventory
from celebvision.batch.pipeline import ClassifyShards, numbers_of
from celebvision.batch.record import Run, delete_run, find_runs, new_run_id, now
from celebvision.batch.sink import delete_parts, finish, finished_shards
from celebvision.config import ClassifySettings
from celebvision.job import JobFailed, Outcome, code_version, console, digest, progress
from celebvision.ray_session import clear_errors, root_cause
from celebvision.registry import ModelVersion
from celebvision.storage import Store, join, open_store

ACTOR_CPUS = 0.45  # an actor computes on one core and takes less of Ray's count, so that reads and writes find room
SAVE_INTERVAL_S = 5.0  # between updates of run.json
WORDS = {"input", "output", "model", "registry", "suffixes", "max_pixels", "max_bytes"}  # what makes a run another run


def classify(settings: ClassifySettings) -> Outcome:
    """Label every picture of the input that no earlier run of the same words has answered.

    Raises:
        JobFailed, StorageError, RegistryError: with what to do; the same command continues the run.
    """
    output = open_store(settings.output)
    words = digest({"verb": "classify", **settings.model_dump(mode="json", include=WORDS)})
    runs = find_runs(output, words)
    run = next((run for run in reversed(runs) if run.state != "done"), None)
    wanted = settings.model if run is None else f"{run.model['name']}@{run.model['version']}"
    model = registry.resolve(settings.registry, wanted)
    weights = registry.load_state(settings.registry, model)
    registry.assemble(model, weights)  # what is damaged or does not fit is told before anything is listed
    earlier = [run for run in runs if run.state == "done" and run.model["version"] == model.version]
    run = run or _new_run(settings, model, words)
    if run.state == "listing" and not _list(settings, output, run, earlier):
        delete_parts(output, earlier[-1])
        console.print("nothing new in the input since the last run", markup=False)
        return _outcome(settings, earlier[-1])
    with _recorded(run, output) as save:
        _work(settings, output, run, model, weights, save)
        run.counts = finish(output, run)
        run.state = "done"
    delete_parts(output, run)
    return _outcome(settings, run)


def _new_run(settings: ClassifySettings, model: ModelVersion, words: str) -> Run:
    return Run(
        run_id=new_run_id(words),
        verb="classify",
        state="listing",
        created=now(),
        config={},
        model={"name": model.name, "version": model.version, "weights_sha256": model.weights_sha256},
        code_version=code_version(),
    )


def _list(settings: ClassifySettings, output: Store, run: Run, earlier: list[Run]) -> bool:
    """Write the inventory, anew if it was cut off. False if there is nothing to do; then nothing is left of the run.

    Raises:
        JobFailed: the input holds no picture at all.
    """
    run.config = settings.model_dump(mode="json")
    with _recorded(run, output):
        counts = write_inventory(settings, output, run, earlier)
        listed = counts.pop("listed")
        if counts["keys"]:
            run.inventory, run.state = counts, "running"
            return True
    delete_run(output, run)
    if not listed:
        endings = ", ".join(settings.suffixes) or "any name"
        raise JobFailed(f"{settings.input}: holds no picture (key that ends in {endings})")
    return False


@contextmanager
def _recorded(run: Run, output: Store) -> Iterator[Callable[[], None]]:
    """Whatever happens, `run.json` tells it: how the state stands and how long it took. Gives what writes it."""
    started, before = time.monotonic(), run.seconds

    def save() -> None:
        run.seconds = before + time.monotonic() - started
        run.save(output)

    run.state, run.error = "listing" if run.state == "listing" else "running", ""
    save()
    try:
        yield save
    except KeyboardInterrupt:
        run.state = "listing" if run.state == "listing" else "interrupted"
        raise
    except Exception as error:
        run.state, run.error = "listing" if run.state == "listing" else "failed", str(root_cause(error))
        raise
    finally:
        save()


def _work(
    settings: ClassifySettings,
    output: Store,
    run: Run,
    model: ModelVersion,
    weights: dict[str, Tensor],
    save: Callable[[], None],
) -> None:
    """Have every shard worked on that has no rows yet."""
    finished = finished_shards(output, run)
    left = [number for number in range(run.inventory["shards"]) if number not in finished]
    if not left:
        return
    gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
    labelled = ray.data.from_items([{"shard": number} for number in left], override_num_blocks=len(left)).map_batches(
        ClassifyShards,
        fn_constructor_args=(settings, run, model, ray.put(weights)),
        batch_size=1,
        compute=ActorPoolStrategy(size=min(gpus or max(cpus, 1), len(left))),
        num_cpus=1 if gpus else ACTOR_CPUS,
        num_gpus=1 if gpus else None,
    )
    shard_keys = run.config["shard_keys"]  # in each shard but the last
    keys_left = sum(min(shard_keys, run.inventory["keys"] - number * shard_keys) for number in left)
    counts: Counter[str] = Counter()
    saved = time.monotonic()
    with clear_errors(), progress("classify", keys_left, "images") as show:
        for done, row in enumerate(labelled.iter_rows(), start=1):
            counts += numbers_of(row)
            run.counts = {**counts, "shards": len(finished) + done}
            show(counts["results"] + counts["failures"], f"{counts['failures']} failed")
            if time.monotonic() - saved > SAVE_INTERVAL_S:
                save()
                saved = time.monotonic()


def _outcome(settings: ClassifySettings, run: Run) -> Outcome:
    failures = run.counts.get("failures", 0)
    rate = run.inventory["keys"] / run.seconds if run.seconds else 0.0
    summary = {
        "run_id": run.run_id,
        "state": run.state,
        "model": f"{run.model['name']}@{run.model['version']}",
        "keys": run.inventory["keys"],
        **{name: count for name, count in sorted(run.counts.items()) if name.startswith(("results", "failures"))},
        "images_per_s": round(rate, 1),
        "results_at": join(settings.output, "results", f"run={run.run_id}"),
    }
    if failures:
        summary["failures_at"] = join(settings.output, "failures", f"run={run.run_id}")
    return Outcome(summary, failures)
