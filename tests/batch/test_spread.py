"""How the work is laid out on what a cluster has, or can grow to."""

import math
from collections.abc import Callable

import pytest

from celebvision import capacity
from celebvision.batch import run
from celebvision.batch.run import Spread
from celebvision.config import BatchSettings, ClassifySettings, StylizeSettings

PLACES = {"input": "in", "output": "out", "registry": "models", "model": "cnn"}

Spreads = Callable[..., Spread]


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> Spreads:
    def of(settings: BatchSettings, shards: float, **cluster: float) -> Spread:
        monkeypatch.setattr(capacity, "most", lambda: cluster)
        monkeypatch.setattr(run.ray, "cluster_resources", lambda: cluster)
        return Spread.of(settings, shards)

    return of


def test_two_actors_share_a_gpu_and_its_cpu_and_the_other_cpus_decode(spread: Spreads) -> None:
    made = spread(ClassifySettings(**PLACES), math.inf, CPU=16.0, GPU=2.0)
    assert (made.apart, made.actors, made.actor_gpus, made.actor_cpus) == (True, 4, 0.5, 0.5)
    assert (made.decoders, made.decoder_cpus) == (14, 1.0)


@pytest.mark.parametrize(("words", "shards", "actors"), [({}, 1, 1), ({"max_actors": 1}, 9, 1), ({}, 3, 3), ({}, 9, 8)])
def test_there_are_no_more_actors_than_shards_or_were_asked_for(
    spread: Spreads, words: dict[str, int], shards: int, actors: int
) -> None:
    assert spread(ClassifySettings(**PLACES, **words), shards, CPU=16.0, GPU=4.0).actors == actors


def test_drawing_is_one_stage_on_gpus_too(spread: Spreads) -> None:
    made = spread(StylizeSettings(**PLACES), math.inf, CPU=4.0, GPU=1.0)
    assert (made.apart, made.actors, made.actor_gpus, made.decoders) == (False, 2, 0.5, 0)


def test_without_gpus_an_actor_a_cpu_does_all(spread: Spreads) -> None:
    made = spread(ClassifySettings(**PLACES), math.inf, CPU=2.0)
    assert (made.apart, made.actors, made.actor_gpus, made.decoders) == (False, 2, 0.0, 0)
    assert made.actors * made.actor_cpus < 2  # room for what reads and writes
