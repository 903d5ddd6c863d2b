"""Networks, one file each, made by name: ``create("cnn", outputs=2)``."""

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from torch import nn

# Imported when they are made: torchvision alone takes longer to import than torch, in every worker that starts.
ARCHITECTURES = {
    "cnn": "celebvision.models.cnn:CNN",
    "inception_v3": "celebvision.models.inception:InceptionV3",
    "cyclegan": "celebvision.models.cyclegan:CycleGAN",
    "style_net": "celebvision.models.style_net:StyleNet",
    "adain": "celebvision.models.adain:AdaIN",
}


def create(architecture: str, **arguments: object) -> nn.Module:
    """Make a network by name; `arguments` go to its constructor.

    Raises:
        ValueError: no such architecture; the message lists the known ones.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join(sorted(ARCHITECTURES))}")
    return _maker(architecture)(**arguments)


def complete_arguments(architecture: str, **arguments: object) -> dict[str, Any]:
    """The arguments with every default filled in: what must be kept to make the same network by later code.

    Raises:
        TypeError: an argument that the architecture does not take.
    """
    bound = inspect.signature(_maker(architecture)).bind(**arguments)
    bound.apply_defaults()
    return dict(bound.arguments)


def _maker(architecture: str) -> Callable[..., nn.Module]:
    module, _, name = ARCHITECTURES[architecture].partition(":")
    return cast(Callable[..., nn.Module], getattr(import_module(module), name))
