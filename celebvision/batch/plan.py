"""`plan`: what a batch job would do, measured on a sample of its own keys. It writes nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from contextlib import closing
from itertools import cycle
from operator import attrgetter
from statistics import fmean
from typing import Any, cast

import ray

from celebvision import registry
from celebvision.batch.draw import Drawing
from celebvision.batch.fetch import Answer, Key
from celebvision.batch.inventory import due
from celebvision.batch.pipeline import WorkShards, refuse_if_storage_is_at_fault
from celebvision.batch.record import Run, find_runs
from celebvision.batch.run import DECODE_CPUS, Spread, done_with, loaded, new_run, words_of
from celebvision.config import VGG, ClassifySettings, PlanSettings, StylizeSettings
from celebvision.cost import usd_per_hour
from celebvision.job import JobFailed, Outcome, age_s
from celebvision.logs import say
from celebvision.ray_session import Board, clear_errors
from celebvision.registry import ModelVersion
from celebvision.storage import Stat, open_store
from celebvision.styling import Optimised

MEASURE_S = 8.0  # of steady work, after a pass that warms up
FEW_STEPS, MORE_STEPS = 8, 24  # of an optimisation, that its cost is measured on
PART_BATCHES = 4  # of the sample are measured at a time
STAGES = ("fetch", "decode", "infer")


def plan(settings: PlanSettings) -> Outcome:
    """Forecast keys, bytes, seconds of each stage and cost of `classify` or `stylize` with the same words.

    Raises:
        JobFailed: nothing to do, an unknown node type, or words that the model's verb does not know.
    """
    price = usd_per_hour(settings)
    output = open_store(settings.output)
    job = _job(settings)
    model, weights = loaded(job, job.model)
    started_s = age_s()
    listing = time.monotonic()
    earlier = done_with(model, find_runs(output, words_of(job)), output)
    sample, keys, size = _sampled(due(job, output, earlier), settings.sample)
    listing_s = time.monotonic() - listing
    if not keys:
        raise JobFailed(f"{settings.input}: nothing to do: no key, or every one has been answered")
    say(f"measuring on {len(sample)} of {keys} keys …")
    spread = Spread.of(job, shards=-(-keys // job.shard_keys))
    run = new_run(job, model, "plan")
    with clear_errors(), Board() as board:
        ray_data_s = _ray_data_s()
        loading = time.monotonic()
        actors: list[Any] = [
            ray.remote(_Measured)
            .options(num_cpus=spread.actor_cpus, num_gpus=spread.actor_gpus)
            .remote(job, run, model, [ray.put(weights)], board)
            for _ in range(spread.actors)
        ]
        ray.get([actor.ready.remote() for actor in actors])
        loading_s = time.monotonic() - loading
        measured = ray.get([actor.measure.remote(sample, MEASURE_S) for actor in actors])
    stages = {stage: fmean(one[stage] for one in measured) for stage in STAGES}
    if spread.apart:
        fetched = spread.decoders / max(stages["fetch"], stages["decode"])
        rate = min(fetched, spread.actors / stages["infer"])
    else:
        rate = sum(one["images_per_s"] for one in measured)
    start_s = started_s + loading_s + 2 * ray_data_s  # to begin, and to lay the results together and end
    total_s = start_s + listing_s + keys / rate
    workers = {stage: spread.decoders if spread.apart and stage != "infer" else spread.actors for stage in STAGES}
    summary = {
        "model": f"{model.name}@{model.version}",
        "keys": keys,
        "bytes": size,
        "start_s": round(start_s, 1),
        "listing_s": round(listing_s, 1),
        **{f"{stage}_s": round(stages[stage] * keys / workers[stage], 1) for stage in STAGES},
        "images_per_s": round(rate, 1),
        "seconds": round(total_s, 1),
    }
    if price is not None:
        summary["usd"] = round(price * settings.nodes * total_s / 3600, 4)
    return Outcome(summary)


def _job(settings: PlanSettings) -> ClassifySettings | StylizeSettings:
    """The settings of the job that is forecast: the words that were given, with that verb's own defaults."""
    labels = settings.model != VGG and bool(registry.resolve(str(settings.registry), settings.model).targets)
    kind = ClassifySettings if labels else StylizeSettings
    own = set(PlanSettings.model_fields) - set(ClassifySettings.model_fields) - set(StylizeSettings.model_fields)
    given = settings.model_fields_set - own
    if foreign := sorted(given - set(kind.model_fields)):
        raise JobFailed(f"{foreign[0]}: is no setting of the verb for {settings.model}")
    return kind(**settings.model_dump(include=given, by_alias=True))


class _Measured(WorkShards):
    """The worker of the job, doing its work on the same keys over and over, and leaving nothing anywhere."""

    def __init__(
        self,
        settings: ClassifySettings | StylizeSettings,
        run: Run,
        model: ModelVersion,
        weights: list[ray.ObjectRef],
        board: Board,
    ) -> None:
        # in a list, since Ray itself puts an object in the place of a bare reference, as Ray Data does not
        super().__init__(settings, run, model, weights[0], board)
        self.batch_size = settings.batch_size
        if isinstance(self.work, Drawing):
            self.work.put = _nowhere

    def ready(self) -> None:
        """Answered once the network is loaded."""

    def measure(self, keys: list[Key], seconds: float) -> dict[str, float]:
        """`images_per_s` of the whole, and seconds an image on one worker of each stage by itself.

        `fetch` is what passes until pictures are there, `decode` what the processor does of it.
        """
        if isinstance(self.work, Drawing) and self.work.redraws.steps:
            return self._extrapolated(self.work, keys)
        parts = max(1, len(keys) // (PART_BATCHES * self.batch_size))
        sample = [keys[first::parts] for first in range(parts)]  # however few are done in time, they are of all
        self._rate(sample, 0)
        self.work.computed, self.work.compute_s = 0, 0.0
        rate = self._rate(sample, seconds)
        fetch, decode = self._fetched(sample[0])
        infer = self.work.compute_s / max(1, self.work.computed)
        return {"images_per_s": rate, "fetch": fetch, "decode": decode, "infer": infer}

    def _extrapolated(self, drawing: Drawing, keys: list[Key]) -> dict[str, float]:
        """The same of an optimisation, whose first steps are measured: to the last is a straight line.

        Pictures that converge before make it faster.
        """
        whole, sample = cast(Optimised, drawing.redraws), keys[: self.batch_size]

        def spent_s(steps: int) -> tuple[float, float]:
            """Seconds of the whole, and those of the optimisation."""
            drawing.redraws, drawing.compute_s = whole.of_steps(steps), 0.0
            started = time.monotonic()
            self._rate([sample], 0)
            return time.monotonic() - started, drawing.compute_s

        spent_s(FEW_STEPS)  # which warms up
        few, more = spent_s(FEW_STEPS), spent_s(MORE_STEPS)
        beyond = (drawing.settings.steps - FEW_STEPS) / (MORE_STEPS - FEW_STEPS)
        whole_s, infer_s = (first + (last - first) * beyond for first, last in zip(few, more, strict=True))
        fetch, decode = self._fetched(sample)
        count = len(sample)
        return {"images_per_s": count / whole_s, "fetch": fetch, "decode": decode, "infer": infer_s / count}

    def _fetched(self, keys: list[Key]) -> tuple[float, float]:
        """Seconds a picture until it is there, and those of the processor."""
        started, spent = time.monotonic(), time.process_time()
        done = sum(1 for _ in self.work.pictures(keys))
        return (time.monotonic() - started) / done, (time.process_time() - spent) / done

    def _rate(self, sample: list[list[Key]], seconds: float) -> float:
        """Images a second, measured for so long, or as long as the first of them take."""
        started, done = time.monotonic(), 0
        for keys in cycle(sample):
            with closing(self.work.pictures(keys)) as pictures:
                outcomes: list[Answer] = []
                with closing(self.work.answers(keys, pictures, _in_silence)) as answers:
                    for answered in answers:
                        outcomes += answered
                        refuse_if_storage_is_at_fault(outcomes, of=len(keys))
                        done += len(answered)
                        if (took_s := time.monotonic() - started) > seconds:
                            return done / took_s
            self.table(keys, outcomes)
        raise AssertionError("a cycle has no end")


def _nowhere(key: str, data: bytes) -> str:
    """A put that puts nothing."""
    return ""


def _in_silence(words: str, done: float) -> None:
    """A pulse that tells nobody."""


def _ray_data_s() -> float:
    """What a job of Ray Data costs that does nothing."""
    started = time.monotonic()
    ray.data.from_items([0]).map_batches(lambda batch: batch, batch_size=1, num_cpus=DECODE_CPUS).materialize()
    return time.monotonic() - started


def _sampled(stats: Iterable[Stat], size: int) -> tuple[list[Key], int, int]:
    """So many keys, each as likely as any other (Vitter 1985, algorithm R); how many there are, and their bytes."""
    rng = random.Random(0)  # noqa: S311 - no secret
    sample: list[Stat] = []
    keys = total = 0
    for stat in stats:
        keys += 1
        total += stat.size
        if len(sample) < size:
            sample.append(stat)
        elif (place := rng.randrange(keys)) < size:
            sample[place] = stat
    sample.sort(key=attrgetter("key"))
    return [Key.of(stat) for stat in sample], keys, total
