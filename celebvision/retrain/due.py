"""What is to be done: an unfinished retraining goes on, a new one begins, or nothing is new."""

from __future__ import annotations

from celebvision.registry import ModelVersion
from celebvision.retrain.landed import Landing
from celebvision.retrain.record import DECIDED, UNFINISHED, Record, seen_by


def going_on(records: list[Record], landing: Landing) -> Record | None:
    """The unfinished record that goes on, with what had landed when it began.

    Where something else has landed since, one that had not come to have its shards does not go on, and neither does one
    that failed: what is there now may be what mends it.
    """
    for record in reversed(records):
        has_snapshot = record.state != "found" and not record.error
        if record.state in UNFINISHED and (has_snapshot or record.landed == landing.digest):
            return record
    return None


def due(champion: ModelVersion | None, landing: Landing, records: list[Record]) -> tuple[list[str], str]:
    """Ids of the drops that the champion has not seen; and if nothing is to be done, why."""
    ids = [drop.id for drop in landing.drops]
    if champion is None:
        return ids, ""
    seen = seen_by(champion.data_digest, landing.base.digest, records)
    new = [drop_id for drop_id in ids if drop_id not in seen]
    tried = next((record for record in records if record.landed == landing.digest and record.state in DECIDED), None)
    if tried:
        return new, f"nothing new has landed since {tried.challenger} learnt all there is, and was {tried.state}" + (
            "" if tried.state == "promoted" else f": {tried.why}"
        )
    if new or landing.base.digest not in seen:
        return new, ""
    return new, f"nothing has landed that {title(champion)} has not seen"


def title(model: ModelVersion) -> str:
    """NAME@VERSION."""
    return f"{model.name}@{model.version}"
