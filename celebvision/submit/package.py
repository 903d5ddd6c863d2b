"""What is sent to the cluster: the settings, and beside them the code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import celebvision
from celebvision.config import MIB
from celebvision.job import JobFailed
from celebvision.submit.places import Place

JOB, PROBE = "job.yaml", "probe.json"
MAX_BYTES = 20 * MIB  # Ray keeps it in the head's memory, and each node fetches it
CODE = Path(celebvision.__file__).parent
CONFIGS = CODE.parent / "configs"  # the prices that `plan` reads; an installed package has none


def fill(folder: Path, words: dict[str, Any], places: Sequence[Place], gpus: int | None, with_code: bool) -> int:
    """Put into `folder` what is sent, and return its size in bytes.

    Raises:
        JobFailed: the code is larger than `MAX_BYTES`; names its largest file.
    """
    (folder / JOB).write_text(yaml.safe_dump(words, allow_unicode=True))
    (folder / PROBE).write_text(json.dumps({"places": places, "gpus": gpus}))
    if with_code:
        for source in (CODE, CONFIGS):
            if source.is_dir():
                shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    sizes = {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    if (size := sum(sizes.values())) > MAX_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        raise JobFailed(
            f"the code is {size / MIB:.1f} MiB, and {MAX_BYTES / MIB:.0f} may be sent; its largest file is "
            f"{largest} with {sizes[largest] / MIB:.1f}: move it out of the package, or use --code image"
        )
    return size
