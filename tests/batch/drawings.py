"""What tests of `stylize` share."""

from pathlib import Path
from typing import Any

from labelling import House

from celebvision.config import StylizeSettings


def settings_for(style: House, tmp_path: Path, **others: Any) -> StylizeSettings:
    places = {"input": str(tmp_path / "photos"), "output": str(tmp_path / "drawn")}
    return StylizeSettings(**(places | {"model": "sketch", "registry": style.registry} | others))
