"""Versions of trained models: publish, resolve, load, promote.

    REGISTRY/<name>/<version>/model.safetensors, card.md, samples/*, model.json
    REGISTRY/<name>/production.json

A version exists exactly when its `model.json` does, which is written last and holds the SHA-256 of every other file;
it is never changed once published. A bare name means the version that `production.json` points at.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from celebvision.config import PromoteSettings
from celebvision.job import Outcome
from celebvision.models import create
from celebvision.storage import Conflict, NotFound, open_store

if TYPE_CHECKING:  # loading PyTorch takes seconds: only what touches weights does
    from torch import Tensor, nn

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
PRODUCTION = "production.json"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
VERSION_KEY = re.compile(r"[^/]+/(\d{8}T\d{6}Z-[0-9a-f]{8})/model\.json")
SAMPLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class RegistryError(Exception):
    """A name or version that does not exist or cannot be one; the message lists what there is."""


class Damaged(RegistryError):
    """A file of a published version, or `production.json`, is missing, torn or altered."""


@dataclass(frozen=True)
class ModelVersion:
    """What `model.json` says of one trained state."""

    name: str
    version: str  # UTC time and the first 8 hex digits of the weights' SHA-256
    architecture: str
    arguments: dict[str, Any]  # the architecture's own
    preprocessing: dict[str, Any]
    targets: list[str]  # attribute names in logit order
    classes: dict[str, tuple[str, str]]  # per target, its label for 0 and for 1
    metrics: dict[str, float]
    data_digest: str
    code_version: str
    seed: int
    weights_sha256: str
    files: dict[str, str]  # every other file's SHA-256, by its path inside the version
    created: str  # ISO 8601, UTC
    temperatures: dict[str, float] = field(default_factory=dict)  # per target; 1 where none is named

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Raises `Damaged` for anything but JSON with these fields (`temperatures` may lack), each of its type."""
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            odd = "; ".join(": ".join([*map(str, one["loc"]), one["msg"]]) for one in error.errors())
            raise Damaged(f"{DESCRIPTION}: {odd}") from error


def publish(
    registry: str,
    name: str,
    *,
    state: Mapping[str, Tensor],
    architecture: str,
    arguments: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    targets: list[str],
    classes: Mapping[str, tuple[str, str]],
    metrics: Mapping[str, float],
    data_digest: str,
    code_version: str,
    seed: int,
    card: str,
    samples: Mapping[str, bytes],
    temperatures: Mapping[str, float] | None = None,
) -> ModelVersion:
    """Write a new version of `name`. It can be resolved once all of it is there; it is not production until promoted.

    Args:
        card: Markdown for a person who wonders whether to use this model.
        samples: pictures by file name, e.g. `{"before-after.png": png}`.
        temperatures: what each target's logit is divided by; none: 1.

    Raises:
        RegistryError: a bad model or sample name, a metric that is not finite, targets without classes, a temperature
            of no target or that is no finite number above 0.
    """
    _check_name(name)
    if bad := [sample for sample in samples if not SAMPLE.fullmatch(sample)]:
        raise RegistryError(f"bad sample names {bad}: letters, digits, '.', '_' and '-', a letter or digit first")
    if bad := [metric for metric, value in metrics.items() if not math.isfinite(value)]:
        raise RegistryError(f"metrics of {name} are not finite: {', '.join(bad)}")
    if set(targets) != set(classes):
        raise RegistryError(f"{name} predicts {targets} but has labels for {sorted(classes)}")
    temperatures = {target: float(value) for target, value in (temperatures or {}).items()}
    if bad := [f"{target} {value}" for target, value in temperatures.items() if not (0 < value < math.inf)]:
        raise RegistryError(f"temperatures of {name} should be finite and above 0: {', '.join(bad)}")
    if unknown := sorted(set(temperatures) - set(targets)):
        raise RegistryError(f"{name} predicts {targets} but has temperatures for {', '.join(unknown)}")

    import safetensors.torch

    # A clone each: safetensors refuses tensors that share memory (tied weights) or are not contiguous.
    weights = safetensors.torch.save({key: value.detach().cpu().contiguous().clone() for key, value in state.items()})
    digest = _sha256(weights)
    others = {"card.md": card.encode(), **{f"samples/{sample}": data for sample, data in samples.items()}}
    now = datetime.now(UTC).replace(microsecond=0)
    model = ModelVersion(
        name=name,
        version=f"{now:%Y%m%dT%H%M%SZ}-{digest[:8]}",
        architecture=architecture,
        arguments=dict(arguments),
        preprocessing=dict(preprocessing),
        targets=targets,
        classes=dict(classes),
        metrics={metric: float(value) for metric, value in metrics.items()},
        data_digest=data_digest,
        code_version=code_version,
        seed=seed,
        weights_sha256=digest,
        files={path: _sha256(data) for path, data in others.items()},
        created=now.isoformat(),
        temperatures=temperatures,
    )
    model = ModelVersion.from_json(model.to_json())  # what a reader will get: tuples in arguments become lists

    store = open_store(registry)
    while True:
        try:
            store.create(f"{name}/{model.version}/{WEIGHTS}", weights)
            break
        except Conflict:  # the same weights, published within this second: theirs stay theirs
            now += timedelta(seconds=1)
            model = replace(model, version=f"{now:%Y%m%dT%H%M%SZ}-{digest[:8]}", created=now.isoformat())
    for path, data in others.items():
        store.create(f"{name}/{model.version}/{path}", data)
    store.create(f"{name}/{model.version}/{DESCRIPTION}", model.to_json().encode())
    return model


def names(registry: str) -> list[str]:
    """Models with at least one whole version. Folders that begin with '_' are not models."""
    folders = open_store(registry).folders()
    return [name for name in folders if NAME.fullmatch(name) and versions(registry, name)]


def versions(registry: str, name: str) -> list[str]:
    """Published versions of `name`, oldest first; none of an unknown name."""
    _check_name(name)
    keys = (stat.key for stat in open_store(registry).list(f"{name}/"))
    return sorted(match[1] for key in keys if (match := VERSION_KEY.fullmatch(key)))


def production(registry: str, name: str) -> str | None:
    """The version that a bare `name` means; None until one is promoted."""
    _check_name(name)
    try:
        data = open_store(registry).get(f"{name}/{PRODUCTION}")
        return str(json.loads(data)["version"])
    except NotFound:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(f"{name}/{PRODUCTION} at {registry} names no version: {data!r}") from error


def resolve(registry: str, model: str) -> ModelVersion:
    """Find 'cnn' (its production version) or 'cnn@VERSION'.

    Raises:
        RegistryError: no such name or version, or none in production; the message lists what there is.
        Damaged: its `model.json` is altered, or another version's.
    """
    name, at, version = model.partition("@")
    known = versions(registry, name)
    if not known:
        raise RegistryError(f"no model {name!r} at {registry}. There are: {', '.join(names(registry)) or 'none yet'}")
    there_are = f"There are: {', '.join(known)}"
    if not at and not (version := production(registry, name) or ""):
        raise RegistryError(f"no version of {name} is in production at {registry}: name one, {name}@…. {there_are}")
    if version not in known:
        raise RegistryError(f"no version {version!r} of {name} at {registry}. {there_are}")
    data = open_store(registry).get(f"{name}/{version}/{DESCRIPTION}")
    try:
        found = ModelVersion.from_json(data)
    except Damaged as error:
        raise Damaged(f"{name}@{version} at {registry}: {error}") from error
    if (found.name, found.version, found.weights_sha256[:8]) != (name, version, version[-8:]):
        raise Damaged(f"{name}@{version} at {registry}: its {DESCRIPTION} is altered or that of {found.version}")
    return found


def load_state(registry: str, model: ModelVersion) -> dict[str, Tensor]:
    """The tensors of a version, on the CPU, after every file of it was found as published.

    Raises:
        Damaged: a file is missing, torn or altered; the message names it and both digests.
    """
    import safetensors.torch

    store = open_store(registry)
    for path, published in (model.files | {WEIGHTS: model.weights_sha256}).items():
        key = f"{model.name}/{model.version}/{path}"
        try:
            data = store.get(key)
        except NotFound as error:
            raise Damaged(f"{key} at {registry} is missing; published with SHA-256 {published}") from error
        if (digest := _sha256(data)) != published:
            raise Damaged(f"{key} at {registry} was torn or altered: SHA-256 {digest}, published with {published}")
    state: dict[str, Tensor] = safetensors.torch.load(data)  # the weights came last
    return state


def assemble(model: ModelVersion, state: Mapping[str, Tensor]) -> nn.Module:
    """The network of a version, with its weights, preprocessing and temperatures, in evaluation mode.

    Raises:
        RegistryError: this version of the code cannot make that network.
    """
    from celebvision.models.preprocessing import Preprocessing

    try:
        network = create(model.architecture, **model.arguments)
        network.load_state_dict(dict(state))
        setattr(network, "preprocessing", Preprocessing.from_json(model.preprocessing))  # noqa: B010
        setattr(network, "temperatures", [model.temperatures.get(target, 1.0) for target in model.targets])  # noqa: B010
    except (TypeError, ValueError, RuntimeError) as error:
        raise RegistryError(
            f"{model.name}@{model.version} is of code {model.code_version}, not of this: {error}"
        ) from None
    return network.eval()


def promote(registry: str, name: str, version: str, instead_of: str | None = None) -> None:
    """Make `version` the one that a bare `name` means, once all of it was found as published.

    Args:
        instead_of: the version that must be in production until then; None: any, or none.

    Raises:
        RegistryError: no such name or version.
        Damaged: the version is not whole; production stays as it was.
        Conflict: somebody else promoted another version meanwhile; the message says which.
    """
    load_state(registry, resolve(registry, f"{name}@{version}"))
    store, key = open_store(registry), f"{name}/{PRODUCTION}"
    try:
        etag = store.stat(key).etag  # before what it holds is read, so that a change in between is a conflict
    except NotFound:
        etag = None
    previous = production(registry, name)
    if previous == version:
        return
    if instead_of is not None and previous != instead_of:
        raise Conflict(f"{name}@{previous} is in production at {registry} by now, and not {instead_of}")
    promoted = datetime.now(UTC).isoformat(timespec="seconds")
    data = json.dumps({"version": version, "previous": previous, "promoted": promoted}, indent=2).encode()
    try:
        store.replace(key, data, etag) if etag else store.create(key, data)
    except Conflict as conflict:
        if (winner := production(registry, name)) != version:
            raise Conflict(f"{name}@{winner} was promoted at {registry} just before {version}") from conflict


def promote_version(settings: PromoteSettings) -> Outcome:
    """`promote`: make a named version the production one, newer or older."""
    name, _, version = settings.model.partition("@")
    before = production(settings.registry, name)
    promote(settings.registry, name, version)
    return Outcome({"model": name, "production": version, "previous": before})


def table_of(metrics: Mapping[str, float]) -> str:
    """Figures as a Markdown table, for a card."""
    figures = "\n".join(f"| {name} | {value:.4f} |" for name, value in metrics.items())
    return f"| figure | value |\n| --- | --- |\n{figures}"


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise RegistryError(f"bad model name {name!r}: small letters, digits, '_' and '-', a letter or digit first")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
