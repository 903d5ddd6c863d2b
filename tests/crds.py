"""What KubeRay's own definitions say of its objects, as an API server would hold a manifest to them.

Rules in CEL (`x-kubernetes-validations`) are not read: there are some for changes, and for fields that we leave out.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

Schema = dict[str, Any]


def read(folder: Path) -> dict[str, Schema]:
    """Strict schemas by kind, of the definitions `ray.io_*.yaml` in `folder`."""
    found = {}
    for file in sorted(folder.glob("ray.io_*.yaml")):
        spec = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)["spec"]
        served = next(version for version in spec["versions"] if version["name"] == "v1")
        schema = served["schema"]["openAPIV3Schema"]
        schema["properties"]["metadata"] = {"x-kubernetes-preserve-unknown-fields": True, "type": "object"}
        found[spec["names"]["kind"]] = _strict(schema)
    return found


def _strict(schema: Schema) -> Schema:
    """The same schema, in which a field that it does not know is an error."""
    for inner in _beneath(schema):
        _strict(inner)
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema["additionalProperties"] = False
    return schema


def _beneath(schema: Schema) -> list[Schema]:
    inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return [one for one in inner if isinstance(one, dict)]


def filled(schema: Schema, value: Any) -> Any:
    """A copy of `value` with the definition's defaults where it says nothing."""
    value = copy.deepcopy(value)
    if isinstance(value, list) and "items" in schema:
        return [filled(schema["items"], one) for one in value]
    if isinstance(value, dict):
        known = schema.get("properties", {})
        for name, inner in known.items():
            if "default" in inner:
                value.setdefault(name, copy.deepcopy(inner["default"]))
        return {name: filled(known.get(name, {}), one) for name, one in value.items()}
    return value


def errors(schema: Schema, manifest: dict[str, Any]) -> list[str]:
    """What the definition refuses: where, and why. Empty: it takes the manifest."""
    found = Draft202012Validator(schema).iter_errors(filled(schema, manifest))
    return [f"{error.json_path}: {error.message}" for error in found]
