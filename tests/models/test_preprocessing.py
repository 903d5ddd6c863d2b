import json

import pytest
import torch

from celebvision.models.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(height=2, width=3, mean=(0.5, 0.2, 0.0), std=(0.5, 0.1, 2.0))


def test_normalise_gives_the_numbers_worked_by_hand() -> None:
    images = torch.zeros(1, 2, 3, 3, dtype=torch.uint8)
    images[0, 1, 2] = torch.tensor([255, 51, 102])
    result = PREPROCESSING.normalise(images)
    assert result.shape == (1, 3, 2, 3)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result[0, :, 1, 2], torch.tensor([1.0, 0.0, 0.2]))
    torch.testing.assert_close(result[0, :, 0, 0], torch.tensor([-1.0, -2.0, 0.0]))


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 2, 3, dtype=torch.uint8), torch.zeros(2, 3, 3, dtype=torch.uint8)],
    ids=["float", "size", "single"],
)
def test_normalise_refuses_another_type_or_shape(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 images of shape \[B, 2, 3, 3\]"):
        PREPROCESSING.normalise(images)


def test_it_survives_json() -> None:
    assert Preprocessing.from_json(json.loads(json.dumps(PREPROCESSING.to_json()))) == PREPROCESSING


@pytest.mark.parametrize(
    "change", [{"mean": [0.5]}, {"std": [0.5, 0.0, 0.5]}, {"depth": 3}], ids=["length", "zero", "unknown"]
)
def test_from_json_refuses_what_makes_no_sense(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"need"):
        Preprocessing.from_json(PREPROCESSING.to_json() | change)
