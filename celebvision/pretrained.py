"""Weights that were learnt elsewhere: those that torchvision downloads, and those in a file."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from http.client import HTTPException
from pickle import UnpicklingError
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from celebvision.job import JobFailed
from celebvision.storage import open_store

TORCHVISION = "torchvision"
EXPECTED = "expected a safetensors file, or a torch checkpoint that holds tensors by their names and nothing else"
ZIP = b"PK\x03\x04"
LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number that torch's checkpoints began with before they were zip files
CODE = re.compile(r"GLOBAL (\S+)")  # in what torch says of a checkpoint that names a function or a class


def weights_of(word: str, name: str) -> dict[str, Tensor]:
    """The tensors that a setting names.

    Args:
        word: torchvision, or the URI of a file.
        name: of the network, as `of_torchvision` knows it.

    Raises:
        JobFailed: torchvision's cannot be downloaded, or the file is of another kind.
        StorageError: the file cannot be had.
    """
    if word != TORCHVISION:
        return pretrained(word)
    try:
        return of_torchvision(name)
    except (OSError, HTTPException, RuntimeError, UnpicklingError) as error:
        raise JobFailed(
            f"{TORCHVISION}: the weights of {name} cannot be downloaded: {error}; instead of {TORCHVISION}, give the "
            "URI of a file that holds them, safetensors or torch's"
        ) from None


def of_torchvision(name: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights of inception_v3, vgg16 or vgg19, downloaded once for this machine.

    Raises:
        OSError, HTTPException, RuntimeError, UnpicklingError: they cannot be had, or are not what they were.
    """
    from torchvision.models import Inception_V3_Weights, VGG16_Weights, VGG19_Weights

    known = {"inception_v3": Inception_V3_Weights, "vgg16": VGG16_Weights, "vgg19": VGG19_Weights}
    weights = known[name].IMAGENET1K_V1
    with redirect_stdout(sys.stderr):  # torch prints that it downloads, and stdout is the job's summary alone
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu"))


def pretrained(uri: str) -> dict[str, Tensor]:
    """The tensors of the safetensors file or torch checkpoint at `uri`; which it is, its content tells.

    Of a checkpoint with an entry `state_dict` that entry is taken. No code in it is ever run.

    Raises:
        JobFailed: it is another kind of file, or damaged.
        StorageError: it cannot be had.
    """
    folder, slash, name = uri.rpartition("/")
    try:
        data = open_store(folder + slash or ".").get(name)
    except ValueError as error:
        raise JobFailed(f"weights: {error}") from None
    if data.startswith(ZIP) or LEGACY in data[:32]:
        return _of_checkpoint(uri, data)
    if data[8:9] != b"{":  # behind the length of its header, a safetensors file has that header, JSON
        raise JobFailed(f"{uri} {_described(data)}; {EXPECTED}")
    try:
        return dict(safetensors.torch.load(data))
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type that torch has no tensors of
        raise JobFailed(f"{uri} is a damaged safetensors file, or none: {error}; {EXPECTED}") from None


def _of_checkpoint(uri: str, data: bytes) -> dict[str, Tensor]:
    try:
        found: Any = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # noqa: BLE001 - torch.load raises whatever a damaged file makes it stumble over
        if code := CODE.search(str(error)):
            raise JobFailed(f"{uri} is a pickle with code, {code[1]}, which is not run; {EXPECTED}") from None
        # What torch found stands before, or amidst, its advice to load the file without this care.
        found = str(error).partition("\n\nCheck the documentation")[0].rpartition("\n\n")[2].partition(". ")[0]
        told = f"{type(error).__name__}: {found}"
        raise JobFailed(f"{uri} is a damaged torch checkpoint, or another zip file ({told}); {EXPECTED}") from None
    if isinstance(found, Mapping) and "state_dict" in found:
        found = found["state_dict"]
    if not isinstance(found, Mapping):
        raise JobFailed(f"{uri} is a torch checkpoint of a {type(found).__name__}; {EXPECTED}")
    if others := [f"{key!r}, a {type(value).__name__}" for key, value in found.items() if not _named(key, value)]:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise JobFailed(f"{uri} is a torch checkpoint that holds {'; '.join(others[:3])}{more}; {EXPECTED}")
    return {key: value.detach() for key, value in found.items()}


def _named(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _described(data: bytes) -> str:
    if not data:
        return "is empty"
    start = data[:64].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "is an HTML page"
    if data.startswith(b"\x80"):
        return "is a pickle that torch did not write, which may hold code and is not loaded"
    return f"begins with {data[:16]!r}"
