"""Where a job reads and writes, by its settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic.fields import FieldInfo

from celebvision.config import URI, Settings

# Of each verb, the settings under which it writes; one that is not here writes nothing.
WRITES = {
    "ingest": {"output"},
    "train": {"output", "registry"},
    "retrain": {"output", "registry"},
    "evaluate": {"output"},
    "classify": {"output"},
    "stylize": {"output"},
}


class Place(NamedTuple):
    """A URI, the setting that names it, and whether the job writes there."""

    setting: str
    uri: str
    writes: bool


def sent(job: Settings) -> dict[str, Any]:
    """The words of the job for another machine: those that were given, with local paths from the root on."""
    words = job.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {name: _absolute(value, _is_uri(_field(job, name))) for name, value in words.items()}


def places(verb: str, job: Settings) -> list[Place]:
    """Every place that the settings name."""
    found = []
    for name, value in job.model_dump(mode="json", by_alias=True).items():
        is_uri = _is_uri(_field(job, name))
        uris = [uri for uri in _strings(value) if is_uri or _is_file_or_s3(uri)]
        found += [Place(name, _absolute(uri, True), name in WRITES.get(verb, ())) for uri in uris]
    return found


def _field(job: Settings, name: str) -> FieldInfo:
    fields = type(job).model_fields
    return fields[name] if name in fields else next(field for field in fields.values() if field.alias == name)


def _is_uri(field: FieldInfo) -> bool:
    checked = any(check in field.metadata for check in URI.__metadata__)  # type: ignore[attr-defined]
    return checked or URI in get_args(field.annotation)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _is_file_or_s3(word: str) -> bool:
    """Some settings hold names or URIs, as it comes: pretrained weights, styles."""
    return word.startswith("s3://") or ("/" in word and Path(word).exists())


def _absolute(value: Any, is_uri: bool) -> Any:
    if isinstance(value, str):
        local = not value.startswith("s3://") and (is_uri or _is_file_or_s3(value))
        return str(Path(value).absolute()) if local else value
    if isinstance(value, list):
        return [_absolute(part, is_uri) for part in value]
    if isinstance(value, dict):
        return {name: _absolute(part, is_uri) for name, part in value.items()}
    return value
