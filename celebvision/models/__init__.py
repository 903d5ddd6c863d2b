"""Networks, one file each, made by name: ``create("cnn", outputs=2)``."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from celebvision.models.cnn import CNN
from celebvision.models.inception import InceptionV3

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"cnn": CNN, "inception_v3": InceptionV3}


def create(architecture: str, **arguments: object) -> nn.Module:
    """Make a network by name; `arguments` go to its constructor.

    Raises:
        ValueError: no such architecture; the message lists the known ones.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join(sorted(ARCHITECTURES))}")
    return ARCHITECTURES[architecture](**arguments)


def complete_arguments(architecture: str, **arguments: object) -> dict[str, Any]:
    """The arguments with every default filled in: what must be kept to make the same network by later code.

    Raises:
        TypeError: an argument that the architecture does not take.
    """
    bound = inspect.signature(ARCHITECTURES[architecture]).bind(**arguments)
    bound.apply_defaults()
    return dict(bound.arguments)
