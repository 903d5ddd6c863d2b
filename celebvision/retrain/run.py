"""`retrain`: what has landed since the champion was trained → a challenger, a comparison, promoted or kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from typing import Any

import ray

from celebvision import ray_session, registry
from celebvision.celeba.schema import ATTRIBUTES
from celebvision.config import RetrainSettings
from celebvision.job import JobFailed, Outcome, code_version
from celebvision.lease import lease
from celebvision.metrics import Figures, names, telling
from celebvision.registry import ModelVersion
from celebvision.retrain.decision import NEWEST, SPLIT, compared, decide
from celebvision.retrain.due import due, going_on, title
from celebvision.retrain.landed import Drop, Landing, ingested, look
from celebvision.retrain.record import LEASE, UNFINISHED, Record, find_records, new_id, seen_by
from celebvision.storage import Conflict, Store, join, open_store
from celebvision.training.run import train_on

RECORDS = "_retrain"  # folders of a registry that begin with _ are no models


def retrain(settings: RetrainSettings) -> Outcome:
    """Train on all there is if some of it is new to the champion, and promote what the rule finds worth it.

    Raises:
        JobFailed, StorageError, RegistryError: with what to do, the champion as it was; the same command continues.
    """
    store = open_store(join(settings.registry, RECORDS, settings.model_name))
    if settings.dry_run:
        return Outcome(_forecast(settings, store))
    figures = Figures("retrain", settings.model_name, settings.registry)
    with lease(store, LEASE) as check, telling(settings, figures, store.uri) as told:
        outcome = _retrain_alone(settings, store, check)
        decision = outcome.summary["decision"]
        told.notice = None if decision == "nothing new" else f"{decision}: {outcome.summary['why']}"
        figures.set_one(names.DECISION, decision)
        figures.set(names.RETRAINED, time.time())
        return outcome


def _retrain_alone(settings: RetrainSettings, store: Store, check: Callable[[], None]) -> Outcome:
    champion, landing, records = _champion(settings), _look(settings), find_records(store)
    record = going_on(records, landing)
    for other in records:
        if other is not record and other.state in UNFINISHED:
            other.reach("given up", store)
    if record is None:
        new, nothing = due(champion, landing, records)
        if nothing:
            return Outcome({"decision": "nothing new", "why": nothing, "left_alone": landing.left})
        record = _begin(settings, champion, landing, new)
        record.reach("found", store)
    try:
        with _on_ray():
            if record.state == "found":
                _ingest(settings, record)
                check()
                record.reach("ingested", store)
            if record.state == "ingested":
                _train(settings, record)
                check()
                record.reach("trained", store)
        _decide(settings, record, records, store, check)
    except Exception as error:
        check()  # the record is its successor's, where this driver was taken for dead
        record.error = str(ray_session.root_cause(error))
        record.save(store)
        raise
    return Outcome(
        {
            "decision": record.state,
            "why": record.why,
            "champion": record.champion,
            "challenger": record.challenger,
            "left_alone": record.left,
            "record": f"{store.uri}/{record.id}.json",
        }
    )


def _champion(settings: RetrainSettings) -> ModelVersion | None:
    """The version in production, if there is one and it answers these targets."""
    version = registry.production(settings.registry, settings.model_name)
    if version is None:
        return None
    champion = registry.resolve(settings.registry, f"{settings.model_name}@{version}")
    if not champion.targets:
        raise JobFailed(f"name: {title(champion)} draws pictures, and what is drawn is neither right nor wrong")
    if champion.targets != _targets(settings):
        raise JobFailed(
            f"targets: {', '.join(_targets(settings))}: the champion {title(champion)} answers "
            f"{', '.join(champion.targets)}; give these, or train another model under another --name"
        )
    return champion


def _look(settings: RetrainSettings) -> Landing:
    landing = look(settings.data, _targets(settings))
    if not landing.base.rows(SPLIT):
        raise JobFailed(f"{settings.data}: the {SPLIT} split of the base is empty: nothing to compare models on")
    return landing


def _targets(settings: RetrainSettings) -> list[str]:
    return list(ATTRIBUTES) if settings.targets == ["all"] else settings.targets


def _begin(settings: RetrainSettings, champion: ModelVersion | None, landing: Landing, new: list[str]) -> Record:
    return Record(
        id=new_id(landing.digest),
        landed=landing.digest,
        config=settings.model_dump(mode="json"),
        code_version=code_version(),
        champion=title(champion) if champion else None,
        base=landing.base.to_json(),
        drops=[asdict(drop) for drop in landing.drops],
        new=new,
        left=landing.left,
    )


def _ingest(settings: RetrainSettings, record: Record) -> None:
    for drop in record.drops:
        fields = {name: value for name, value in drop.items() if name != "shards"}  # of a time that failed half-way
        drop["shards"] = [asdict(shard) for shard in ingested(settings.data, Drop(**fields))]
    record.data_digest = record.data.digest


def _train(settings: RetrainSettings, record: Record) -> None:
    """Publish a challenger; where there was no champion it is in production at once."""
    record.initial = record.champion if settings.start == "champion" else None
    summary = train_on(settings.training(record.initial), record.data).summary
    record.challenger, record.run = summary["model"], summary["run"]


def _decide(
    settings: RetrainSettings, record: Record, records: list[Record], store: Store, check: Callable[[], None]
) -> None:
    """Hold the challenger against what is in production now, which may be another than when it all began."""
    champion = _champion(settings)
    challenger = registry.resolve(settings.registry, record.challenger)
    if champion is None or (champion == challenger and record.champion is None):
        registry.promote(settings.registry, challenger.name, challenger.version)
        record.why = "there was no champion"
        record.reach("promoted", store)
        return
    if champion == challenger:  # killed between promoting it and saying so, or somebody else's hand
        record.reach("promoted", store)
        return
    seen = seen_by(champion.data_digest, record.frozen.digest, records)
    record.champion, record.new = title(champion), [drop["id"] for drop in record.drops if drop["id"] not in seen]
    frozen = compared(settings.data, record.frozen, settings.registry, champion, challenger)
    newest = compared(settings.data, record.newest(record.new), settings.registry, champion, challenger)
    assert frozen, "an empty test split was refused before"
    promoted, record.why = decide(settings.rule, frozen, newest)
    record.figures = {SPLIT: asdict(frozen), NEWEST: asdict(newest) if newest else None}
    record.reach("evaluated", store)
    check()
    if promoted:
        _promote(settings, champion, challenger)
    record.reach("promoted" if promoted else "kept", store)


def _promote(settings: RetrainSettings, champion: ModelVersion, challenger: ModelVersion) -> None:
    try:
        registry.promote(settings.registry, challenger.name, challenger.version, instead_of=champion.version)
    except Conflict as conflict:
        raise JobFailed(
            f"{title(challenger)} was held against {title(champion)}, and is not promoted: {conflict}; "
            "the same command holds it against that"
        ) from conflict


def _forecast(settings: RetrainSettings, store: Store) -> dict[str, Any]:
    """What the same command without `--dry_run` would do."""
    champion, landing, records = _champion(settings), _look(settings), find_records(store)
    new, nothing = due(champion, landing, records)
    would = nothing or f"train, compare by the rule {settings.rule}, and promote or keep"
    if unfinished := going_on(records, landing):
        would = f"go on with {unfinished.id}, which is {unfinished.state}; what landed since waits for the next time"
    start = title(champion) if champion and settings.start == "champion" else "a new network"
    return {
        "would": would,
        "champion": title(champion) if champion else None,
        "starts_from": start,
        "rule": settings.rule,
        "base_rows": {split: landing.base.rows(split) for split in ("train", "valid", SPLIT)},
        "new_drops": {drop.name: drop.rows for drop in landing.drops if drop.id in new},
        "seen_drops": {drop.name: drop.rows for drop in landing.drops if drop.id not in new},
        "left_alone": landing.left,
    }


@contextmanager
def _on_ray() -> Iterator[None]:
    """Ray until the block ends, or longer where it ran before."""
    ours = not ray.is_initialized()
    with redirect_stdout(sys.stderr):  # as `cli` does: stdout is for the outcome
        ray_session.start()
        try:
            yield
        finally:
            if ours:
                ray.shutdown()
