import pytest
import torch

from celebvision.models.cnn import CNN


def test_it_gives_one_logit_per_attribute_and_repeats_itself() -> None:
    network = CNN(outputs=3).eval()
    images = torch.randn(2, 3, 109, 89)
    with torch.inference_mode():
        logits = network(images)
        assert logits.shape == (2, 3)
        assert torch.equal(logits, network(images))


def test_it_is_small() -> None:
    assert sum(parameter.numel() for parameter in CNN().parameters()) < 700_000


def test_gradients_reach_every_parameter() -> None:
    network = CNN(outputs=2, width=8)
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(norm.weight)  # the zero-initialised ones stop the gradient before them at first
    torch.autograd.backward(network(torch.randn(4, 3, 109, 89)).square().sum())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_it_learns_where_something_is() -> None:
    """A face's parts have fixed places, so the pooling must tell left from right."""
    torch.manual_seed(0)
    network = CNN(width=8, depths=(1, 1), dropout=0.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    targets = torch.arange(16).remainder(2).float()
    images = torch.randn(16, 3, 109, 89) * 0.1
    images[targets == 1, :, 40:60, 10:30] += 1
    images[targets == 0, :, 40:60, 59:79] += 1
    for _ in range(15):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(images)[:, 0], targets)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert loss < 0.2


@pytest.mark.parametrize("arguments", [{"outputs": 0}, {"width": 0}, {"depths": ()}, {"depths": (1, 0)}])
def test_impossible_sizes_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        CNN(**arguments)  # type: ignore[arg-type]


def test_another_image_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"109x89"):
        CNN(width=8)(torch.zeros(1, 3, 218, 178))
