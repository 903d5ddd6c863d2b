from pathlib import Path

import pytest
from labelling import House, published, published_style

from celebvision import ray_session
from celebvision.celeba.drawn import messy_bucket
from celebvision.registry import promote


@pytest.fixture(scope="module")
def style(tmp_path_factory: pytest.TempPathFactory) -> House:
    registry = str(tmp_path_factory.mktemp("registry"))
    house = House(registry, published_style(registry, 1), published_style(registry, 2))
    promote(registry, "sketch", house.first.version)
    return house


@pytest.fixture
def house(tmp_path: Path) -> House:
    registry = str(tmp_path / "registry")
    house = House(registry, published(registry, 1), published(registry, 2))
    promote(registry, "cnn", house.first.version)
    return house


@pytest.fixture
def on_ray(ray_cluster: None) -> None:
    ray_session.start()  # joins what runs, and hushes it


@pytest.fixture(scope="session")
def faces() -> list[bytes]:
    return [data for key, data in messy_bucket(19, seed=3) if key.startswith("faces/")]
