"""`classify`: from the words of the command to a finished run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.data import ActorPoolStrategy

from celebvision import registry
from celebvision.batch.inventory import write_inventory
from celebvision.batch.pipeline import ClassifyShards
from celebvision.batch.record import Run, find_runs, new_run_id, now
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
    if run is None:
        run = _begin(settings, output, model, words, [run for run in runs if run.model["version"] == model.version])
        if run is None:
            last = runs[-1]
            delete_parts(output, last)
            console.print("nothing new in the input since the last run", markup=False)
            return _outcome(settings, last)
    elif run.state == "listing":
        _list(settings, output, run, [other for other in runs if other.model["version"] == model.version])
    with _recorded(run, output):
        _work(settings, output, run, model)
        with clear_errors():
            run.counts = finish(output, run)
        run.state = "done"
    delete_parts(output, run)
    return _outcome(settings, run)


def _begin(
    settings: ClassifySettings, output: Store, model: ModelVersion, words: str, earlier: list[Run]
) -> Run | None:
    """A new run with its inventory, or None if there is nothing new for it."""
    run = Run(
        run_id=new_run_id(words),
        verb="classify",
        state="listing",
        created=now(),
        config=settings.model_dump(mode="json"),
        model={"name": model.name, "version": model.version, "weights_sha256": model.weights_sha256},
        code_version=code_version(),
    )
    run.save(output)
    listed = _list(settings, output, run, earlier)
    if run.inventory["keys"]:
        return run
    for stat in list(output.list(f"{run.folder}/")):
        output.delete(stat.key)
    if not listed:
        endings = ", ".join(settings.suffixes) or "any name"
        raise JobFailed(f"{settings.input}: holds no picture (key that ends in {endings})")
    return None


def _list(settings: ClassifySettings, output: Store, run: Run, earlier: list[Run]) -> int:
    """Write the inventory and say so in the record; gives the number of pictures that were listed."""
    with _recorded(run, output):
        counts = write_inventory(settings, output, run, [other for other in earlier if other.state == "done"])
        listed = counts.pop("listed")
        run.inventory, run.state = counts, "running"
    return listed


@contextmanager
def _recorded(run: Run, output: Store) -> Iterator[None]:
    """Whatever happens, `run.json` tells it: how the state stands and how long it took."""
    started, before, state = time.monotonic(), run.seconds, run.state
    try:
        yield
    except KeyboardInterrupt:
        run.state = "listing" if state == "listing" else "interrupted"
        raise
    except Exception as error:
        run.state, run.error = "listing" if state == "listing" else "failed", str(root_cause(error))
        raise
    finally:
        run.seconds = before + time.monotonic() - started
        run.save(output)


def _work(settings: ClassifySettings, output: Store, run: Run, model: ModelVersion) -> None:
    """Have every shard worked on that has no rows yet."""
    finished = finished_shards(output, run)
    left = [number for number in range(run.inventory["shards"]) if number not in finished]
    if not left:
        return
    run.state, run.error = "running", ""
    state = registry.load_state(settings.registry, model)
    registry.assemble(model, state)  # what does not fit is told here, before any actor starts
    weights = ray.put(state)
    gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
    labelled = ray.data.from_items([{"shard": number} for number in left], override_num_blocks=len(left)).map_batches(
        ClassifyShards,
        fn_constructor_args=(settings, run, model, weights),
        batch_size=1,
        compute=ActorPoolStrategy(size=min(gpus or max(cpus, 1), len(left))),
        num_cpus=1 if gpus else ACTOR_CPUS,
        num_gpus=1 if gpus else None,
    )
    counts: Counter[str] = Counter()
    saved, already = time.monotonic(), len(finished)
    with clear_errors(), progress("classify", run.inventory["keys"], "images") as show:
        for done, row in enumerate(labelled.iter_rows(), start=1):
            counts.update({name: count for name, count in row["counts"].items() if count})
            run.counts = {**counts, "shards": already + done}
            show(counts["results"] + counts["failures"], f"{counts['failures']} failed")
            if time.monotonic() - saved > SAVE_INTERVAL_S:
                run.save(output)
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
