"""Networks, one file each, made by name: ``create("cnn", outputs=2)``.

A file whose last line is ``ARCHITECTURE = CLASS`` is a network, and its name is the architecture's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

MARK = "ARCHITECTURE = "


@cache
def architectures() -> tuple[str, ...]:
    """Names of all networks. None is imported: that takes seconds, and whoever asks may want none of them."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple(path.stem for path in files if path.read_text().rstrip().rpartition("\n")[2].startswith(MARK))


def create(architecture: str, **arguments: object) -> nn.Module:
    """Make a network by name; `arguments` go to its constructor.

    Raises:
        ValueError: no such architecture; the message lists the known ones.
    """
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
    if architecture not in architectures():
        raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join(architectures())}")
    maker: Callable[..., nn.Module] = import_module(f"{__name__}.{architecture}").ARCHITECTURE
    return maker
