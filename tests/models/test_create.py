import pytest

from celebvision.models import create
from celebvision.models.cnn import CNN


def test_a_network_is_made_by_name_with_its_arguments() -> None:
    network = create("cnn", outputs=3, width=8)
    assert isinstance(network, CNN)
    assert network.fc.out_features == 3


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'resnet'; known: adain, cnn, cyclegan, inception_v3, style_net"):
        create("resnet")
