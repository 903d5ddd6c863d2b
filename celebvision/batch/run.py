"""`classify` and `stylize`: from the words of the command to a finished run."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

import ray
from ray.data import ActorPoolStrategy
from torch import Tensor

from celebvision import capacity, registry, styling
from celebvision.batch import drift
from celebvision.batch.gallery import put_losses, put_sheet, refuse_mixture, refuse_own_pictures, standing
from celebvision.batch.listing import FollowListing, Listing
from celebvision.batch.pipeline import DecodeShards, WorkShards
from celebvision.batch.record import IMAGES, LEASE, SLOWEST, Run, delete_run, find_runs, new_run_id, now, numbers_of
from celebvision.batch.sink import Results, delete_parts, finished_shards
from celebvision.batch.tell import Teller
from celebvision.batch.watch import watch
from celebvision.config import STYLE_WORDS, BatchSettings, ClassifySettings, StylizeSettings
from celebvision.job import JobFailed, Outcome, code_version, digest, progress
from celebvision.lease import lease
from celebvision.logs import say
from celebvision.metrics import Figures, telling
from celebvision.models.preprocessing import Preprocessing
from celebvision.ray_session import Board, clear_errors, root_cause
from celebvision.registry import ModelVersion
from celebvision.storage import Store, join, open_store

ACTOR_CPUS = 0.45  # an actor computes on one core and takes less of Ray's count, so that reads and writes find room
ACTOR_CPUS_TO_COME = 0.9  # where nodes are still to be started: no more actors on one than it has cores
ACTORS_A_GPU = 2  # one has the next batch at hand, or puts what it drew, while the other's is computed
DECODE_CPUS = 0.5  # of a decoding task beside actors on CPUs; beside GPUs it takes a whole one
SAVE_INTERVAL_S = 5.0  # between updates of run.json
# What makes a run another run.
WORDS = {"input", "output", "model", "registry", "input_manifest", "suffixes", "glob", "min_size_bytes"} | {
    "max_size_bytes",
    "modified_since",
    "modified_before",
    "max_pixels",
    "max_bytes",
    "format",
    "quality",
    "size",
    "uncertain_below",
    *STYLE_WORDS,
}
# Words that earlier versions did not know: unset they are no part of the digest, so that their runs are continued.
LATER_WORDS = {"uncertain_below"}


def classify(settings: ClassifySettings) -> Outcome:
    """Label every picture of the input that no earlier run of the same words has answered.

    Raises:
        JobFailed, StorageError, RegistryError: with what to do; the same command continues the run.
    """
    return _run(settings)


def stylize(settings: StylizeSettings) -> Outcome:
    """Redraw every picture of the input that no earlier run of the same words has answered.

    Raises:
        JobFailed, StorageError, RegistryError: with what to do; the same command continues the run.
    """
    refuse_own_pictures(settings)
    return _run(settings)


def _run(settings: BatchSettings) -> Outcome:
    output = open_store(settings.output)
    with lease(output, LEASE) as check:
        return _run_alone(settings, output, check)


def _run_alone(settings: BatchSettings, output: Store, check: Callable[[], None]) -> Outcome:
    words = words_of(settings)
    runs = find_runs(output, words)
    run = _unfinished(runs, settings.retry)
    wanted = settings.model if run is None else f"{run.model['name']}@{run.model['version']}"
    model, weights = loaded(settings, wanted)
    if isinstance(settings, StylizeSettings):
        refuse_mixture(settings, output, model, words)
    earlier = done_with(model, runs, output)
    if settings.retry and not earlier:
        raise JobFailed(f"retry: no run of {model.name}@{model.version} with these words is done in {settings.output}")
    run = run or new_run(settings, model, words)
    record = join(output.uri, run.folder)
    with telling(settings, Figures(run.verb, model.name, output.uri), record) as told:
        return _outcome(settings, _worked(settings, output, run, model, weights, earlier, check, Teller(told)))


def _worked(
    settings: BatchSettings,
    output: Store,
    run: Run,
    model: ModelVersion,
    weights: dict[str, Tensor],
    earlier: list[Run],
    check: Callable[[], None],
    teller: Teller,
) -> Run:
    """The run, done; or the last one before it where there is nothing to do."""
    run.config = run.config or settings.model_dump(mode="json")
    on_shard = teller.told.moved
    with _recorded(run, output, teller) as write, Listing(settings, output, run, earlier, check, on_shard) as listing:

        def save() -> None:
            check()
            run.inventory, run.whole = listing.stands()
            write()

        listing.wait(shards=1)
        if listing.counts["keys"]:
            with Results(output, run) as results:
                _work(settings, output, run, model, weights, listing, results, save, teller)
                check()
                run.counts, run.reasons, run.distributions = results.finish()
            if isinstance(settings, StylizeSettings):
                put_sheet(settings, output, run)
                run.losses = put_losses(output, run)
            run.drift = drift.since_last(run, find_runs(output))
            check()
            run.state = "done"
    if run.state == "done":
        delete_parts(output, run)
        return run
    delete_run(output, run)
    if not listing.listed:
        endings = ", ".join(settings.suffixes) or "any name"
        raise JobFailed(f"{settings.input}: holds no picture (key that ends in {endings})")
    delete_parts(output, earlier[-1])
    say("no failure to retry" if settings.retry else "nothing new in the input since the last run")
    teller.stands(earlier[-1])
    teller.told.notice = None
    return earlier[-1]


def words_of(settings: BatchSettings) -> str:
    """What tells the runs of these words from those of others."""
    words = settings.model_dump(mode="json", include=WORDS)
    said = {name: word for name, word in words.items() if word is not None or name not in LATER_WORDS}
    return digest({"verb": verb_of(settings), **said})


def verb_of(settings: BatchSettings) -> str:
    """Whose settings they are."""
    return "stylize" if isinstance(settings, StylizeSettings) else "classify"


def loaded(settings: BatchSettings, wanted: str) -> tuple[ModelVersion, dict[str, Tensor]]:
    """The model NAME or NAME@VERSION, and the tensors that every worker takes.

    What is damaged, is of the other verb or does not fit is told by it, before anything is listed.

    Raises:
        JobFailed, RegistryError: with what there is.
    """
    if isinstance(settings, StylizeSettings):
        model = styling.resolve(settings, settings.registry, wanted, settings.size)
        refuse_model(settings, model)
        weights = styling.load(settings, settings.registry, model, settings.size)
        styling.redraws(settings, model, weights, "cpu")
    else:
        model = registry.resolve(str(settings.registry), wanted)
        refuse_model(settings, model)
        weights = registry.load_state(str(settings.registry), model)
        registry.assemble(model, weights)
    return model, weights


def refuse_model(settings: BatchSettings, model: ModelVersion) -> None:
    """Raises `JobFailed` if the model is not of this verb's kind."""
    verb = "classify" if model.targets else "stylize"
    if verb != verb_of(settings):
        does = "labels pictures" if model.targets else "redraws pictures"
        raise JobFailed(f"model: {model.name}@{model.version} {does}; the verb for it is {verb}")


def done_with(model: ModelVersion, runs: list[Run], output: Store) -> list[Run]:
    """Runs whose answers stand as long as the model is this one."""
    done = [run for run in runs if run.state == "done" and run.model["version"] == model.version]
    return done if model.targets else standing(output, model, done)


@dataclass(frozen=True)
class Spread:
    """How the work is laid out on the cluster.

    One stage saves the copies between processes, and is the faster where one kind of node does all. Where GPUs are to
    be fed, decoding has its own, and Ray Data gives each as many nodes as keep the other busy.
    """

    apart: bool
    actors: int
    actor_cpus: float
    actor_gpus: float
    decoders: int
    decoder_cpus: float

    @classmethod
    def of(cls, settings: BatchSettings, shards: float) -> Spread:
        most = capacity.most()  # a cluster without workers grows to that when it is asked
        gpus, cpus = (int(most.get(kind, 0)) for kind in ("GPU", "CPU"))
        split = settings.split_stages if isinstance(settings, ClassifySettings) else False
        apart = bool(gpus) if split is None else split
        actors = settings.max_actors or gpus * ACTORS_A_GPU or (cpus // 2 if apart else cpus) or 1
        actors = int(min(actors, shards))
        actor_cpus, decoder_cpus = (1 / ACTORS_A_GPU, 1.0) if gpus else (ACTOR_CPUS, DECODE_CPUS)
        if not (apart or gpus) and cpus > ray.cluster_resources().get("CPU", 0):
            actor_cpus = ACTOR_CPUS_TO_COME
        decoders = max(1, int((cpus - actors * actor_cpus) / decoder_cpus)) if apart else 0
        return cls(apart, actors, actor_cpus, 1 / ACTORS_A_GPU if gpus else 0, decoders, decoder_cpus)


def _unfinished(runs: list[Run], retry: str | None) -> Run | None:
    """The run that these words continue.

    Raises:
        JobFailed: there are failures to be retried only when what they are of is done.
    """
    left = [run for run in runs if run.state != "done"]
    if retry and (first := next((run for run in left if not run.retry), None)):
        raise JobFailed(f"retry: run {first.run_id} is not done; the same command without --retry continues it")
    return next((run for run in reversed(left) if run.retry == retry), None)


def new_run(settings: BatchSettings, model: ModelVersion, words: str) -> Run:
    """A record for a job that begins now."""
    return Run(
        run_id=new_run_id(words),
        verb=verb_of(settings),
        state="listing",
        created=now(),
        config={},
        model={"name": model.name, "version": model.version, "weights_sha256": model.weights_sha256},
        code_version=code_version(),
        retry=settings.retry,
    )


@contextmanager
def _recorded(run: Run, output: Store, teller: Teller) -> Iterator[Callable[[], None]]:
    """Whatever happens, `run.json` tells it: how the state stands and how long it took. Gives what writes it."""
    started, before = time.monotonic(), run.seconds

    def save() -> None:
        run.seconds = before + time.monotonic() - started
        teller.stands(run)
        run.figures = teller.figures.numbers()
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
    settings: BatchSettings,
    output: Store,
    run: Run,
    model: ModelVersion,
    weights: dict[str, Tensor],
    listing: Listing,
    results: Results,
    save: Callable[[], None],
    teller: Teller,
) -> None:
    """Have every shard worked on that has no rows yet, and those that are listed meanwhile."""
    finished = finished_shards(output, run)
    listing.wait(shards=len(finished) + Spread.of(settings, math.inf).actors)
    run.state = "running"
    save()
    if run.whole and finished.issuperset(range(run.inventory["shards"])):
        return
    results.add(finished)
    shard_keys = run.config["shard_keys"]  # in each shard but the last
    before = sum(min(shard_keys, run.inventory["keys"] - number * shard_keys) for number in finished)
    counts: Counter[str] = Counter(shards=len(finished))
    shown, saved = 0.0, time.monotonic()

    def count(row: dict[str, Any]) -> None:
        listing.free.set()
        number, of_shard, measured = numbers_of(row)
        results.add([number])
        counts.update(of_shard + Counter(shards=1))
        run.counts = dict(counts)
        run.slowest = nlargest(SLOWEST, [*run.slowest, *((seconds, key) for seconds, key in measured.slowest)])
        teller.shard(of_shard, measured, listing.counts["shards"] - counts["shards"])
        tell(0.0)

    def look(done: float) -> float:
        listing.refuse_if_it_failed()
        inventory, whole = listing.stands()
        board.announce(inventory["shards"], whole)
        tell(done)
        return listing.seen + listing.listed

    def tell(done: float) -> None:
        nonlocal shown, saved
        inventory, whole = listing.stands()
        keys_left = inventory["keys"] - before
        # The board is ahead of the rows, and counts twice what a lost worker had done.
        shown = max(shown, counts["results"] + counts["failures"], min(done, keys_left - 1))
        total, words = (keys_left, "") if whole else (None, f", {inventory['keys']} listed so far")
        show(shown, f"{counts['failures']} failed{words}", total)
        teller.told.done(shown, total)
        if done:  # as the watchdog sees it, now and then
            teller.workers(board.workers())
        if time.monotonic() - saved > SAVE_INTERVAL_S:
            saved = time.monotonic()
            save()
            run.mark(before + counts["results"] + counts["failures"])

    listing.give_way()  # else the start takes the longer, the more there is to be listed
    with clear_errors(), progress(run.verb, None, "images") as show, Board() as board:
        worked = _pipeline(settings, run, model, ray.put(weights), finished, board)
        try:
            watch(worked, board, settings.stall_timeout_s, count, look)
        finally:
            teller.failures.rest()
    listing.free.set()
    listing.wait(math.inf)
    save()
    run.mark(before + counts["results"] + counts["failures"])


def _pipeline(
    settings: BatchSettings, run: Run, model: ModelVersion, weights: ray.ObjectRef, finished: set[int], board: Board
) -> ray.data.Dataset:
    """The shards that are not finished, each on its way to its part."""
    spread = Spread.of(settings, run.inventory["shards"] - len(finished))
    shards = ray.data.from_items([{"follows": True}], override_num_blocks=1)
    shards.context.target_max_block_size = 1  # a block for each number, as soon as it is given
    shards = shards.map_batches(
        FollowListing(board, finished),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=0,  # it waits; and what has other num_cpus than the next one is a stage of its own
        label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
    )
    if spread.apart:
        shards = shards.map_batches(
            DecodeShards(settings, run, Preprocessing.from_json(model.preprocessing), board),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=spread.decoder_cpus,
        )
    least = min(settings.min_actors, spread.actors)
    return shards.map_batches(
        WorkShards,
        fn_constructor_args=(settings, run, model, weights, board),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=least, max_size=spread.actors, initial_size=spread.actors),
        num_cpus=spread.actor_cpus,
        num_gpus=spread.actor_gpus or None,
    )


def _outcome(settings: BatchSettings, run: Run) -> Outcome:
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
    if run.drift:
        distribution, psi = drift.largest(run.drift["psi"])
        summary["drift"] = f"{distribution} {psi:.3f}, {drift.reading(psi)}, since {run.drift['baseline']}"
    if run.verb == "stylize":
        summary["images_at"] = join(settings.output, IMAGES)
    if failures:
        summary["failures_at"] = join(settings.output, "failures", f"run={run.run_id}")
    return Outcome(summary, failures)
