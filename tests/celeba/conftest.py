from pathlib import Path

import pytest
from ingesting import COUNT, KIB

from celebvision.celeba.drawn import write_dataset


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some three MiB: the drawn faces, each with a tail of bytes behind its last pixel, which JPEG allows."""
    folder = tmp_path_factory.mktemp("large")
    write_dataset(folder, COUNT, seed=2)
    for path in (folder / "img_align_celeba").iterdir():
        path.write_bytes(path.read_bytes() + bytes(24 * KIB))
    return folder
