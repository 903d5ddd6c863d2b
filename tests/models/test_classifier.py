import pytest
import torch
from torch import nn

from celebvision.models.classifier import Classifier
from celebvision.models.cnn import CNN
from celebvision.models.inception_v3 import InceptionV3


def stir(network: nn.Module) -> nn.Module:
    """Move the batch statistics and scales away from the initial ones, so that folding them shows."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low, high in (
                (norm.weight, 0.5, 1.5),
                (norm.bias, -0.5, 0.5),
                (norm.running_var, 0.5, 1.5),
                (norm.running_mean, -0.5, 0.5),
            ):
                assert values is not None
                nn.init.uniform_(values, low, high)
    return network.eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return stir(CNN(outputs=2, width=16, depths=(1, 1)))


def pictures(batch: int) -> torch.Tensor:
    return torch.randint(256, (batch, 109, 89, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_it_gives_the_networks_probabilities(network: nn.Module) -> None:
    images = pictures(5)
    classifier = Classifier(network, ("Male", "Smiling"))
    result = classifier.probabilities(images)
    assert result.shape == (5, 2)
    assert result.dtype == torch.float32
    with torch.inference_mode():
        expected = network(classifier.preprocessing.normalise(images)).sigmoid()
    torch.testing.assert_close(result, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("architecture", [CNN(width=8), InceptionV3(height=75, width=75, aux=False)], ids=["cnn", "v3"])
def test_folding_the_normalisations_changes_nothing_but_rounding(
    architecture: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celebvision.models.classifier.has_bfloat16", lambda device: False)  # float32's rounding
    stir(architecture)
    classifier = Classifier(architecture, ("Male",))
    images = torch.randn(2, 3, classifier.preprocessing.height, classifier.preprocessing.width)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in classifier.network.modules())
    with torch.inference_mode():
        torch.testing.assert_close(classifier.network(images), architecture(images), atol=1e-3, rtol=1e-3)


def test_a_batch_repeats_itself_and_its_composition_matters_by_rounding_alone(network: nn.Module) -> None:
    classifier = Classifier(network, ("Male", "Smiling"))
    images = pictures(17)
    together = classifier.probabilities(images)
    assert torch.equal(together, classifier.probabilities(images))
    alone = torch.cat([classifier.probabilities(image[None]) for image in images])
    torch.testing.assert_close(alone, together, atol=0.02, rtol=0)


def test_the_network_it_was_given_is_left_as_it_was(network: nn.Module) -> None:
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    Classifier(network, ("Male", "Smiling")).probabilities(pictures(3))
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_an_empty_batch_gives_no_rows(network: nn.Module) -> None:
    assert Classifier(network, ("Male", "Smiling")).probabilities(pictures(0)).shape == (0, 2)


def test_what_does_not_fit_is_refused(network: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"gave \[1, 2\] logits for 1 classes"):
        Classifier(network, ("Male",)).probabilities(pictures(1))
    with pytest.raises(ValueError, match=r"expected uint8 images of shape \[B, 109, 89, 3\]"):
        Classifier(network, ("Male", "Smiling")).probabilities(torch.zeros(1, 178, 218, 3, dtype=torch.uint8))
