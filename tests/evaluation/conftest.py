"""What the tests of `evaluate` share: a gallery, made once."""

import numpy as np
import pytest
from gallery import FACES, Gallery, jpeg, write_folder, write_shards
from labelling import _publish, published

from celebvision.celeba.drawn import draw_attributes


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    home, rng = tmp_path_factory.mktemp("gallery"), np.random.default_rng(5)
    rows = []
    for number in range(FACES):
        attributes = draw_attributes(rng, male=number % 2 == 0)
        rows.append({"image_id": f"{number:06d}.jpg", "image": jpeg(rng, attributes)} | attributes)
    write_shards(home / "shards", rows)
    write_folder(home / "folder", rows)
    registry = str(home / "registry")
    two = {"outputs": 2, "width": 8, "depths": [1]}
    classes = {"Male": ("female", "male"), "Smiling": ("earnest", "smiling")}
    return Gallery(home, rows, published(registry, 1), _publish(registry, "both", "cnn", two, classes, 2))
