import pytest
import torch
from torch import Tensor
from torchvision.models.inception import Inception3

from celebvision.models.inception_v3 import InceptionV3


@pytest.fixture(scope="module")
def backbone() -> dict[str, Tensor]:
    """Weights as published: torchvision's names, 1,000 classes, half precision, no batch counters."""
    torch.manual_seed(0)
    network = Inception3(num_classes=1000, aux_logits=True, init_weights=False)
    for conv in network.modules():
        if isinstance(conv, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(conv.weight)  # the default lets the signal die before the last layers
    weights = network.state_dict()
    return {key: weight.half() for key, weight in weights.items() if not key.endswith("num_batches_tracked")}


def without_heads(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: weight for key, weight in weights.items() if not key.startswith(("fc.", "AuxLogits."))}


def test_the_auxiliary_head_speaks_in_training_alone() -> None:
    network = InceptionV3(outputs=2)
    images = torch.randn(2, 3, 299, 299)
    with torch.no_grad():
        logits, aux_logits = network.train()(images)
        assert logits.shape == aux_logits.shape == (2, 2)
        assert network.eval()(images).shape == (2, 2)


def test_a_smaller_input_without_it_gives_logits_and_repeats_itself() -> None:
    network = InceptionV3(outputs=1, height=109, width=89, aux=False)
    images = torch.randn(2, 3, 109, 89)
    network.train()(images).sum().backward()
    assert network.Conv2d_1a_3x3.conv.weight.grad.abs().sum() > 0
    network.eval()
    with torch.inference_mode():
        assert torch.equal(network(images), network(images))


def test_sizes_it_cannot_use_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 299x299 pixels, got 299x250: set aux=False"):
        InceptionV3(height=299, width=250)
    with pytest.raises(ValueError, match="at least 75x75 pixels, got 74x80"):
        InceptionV3(height=74, width=80, aux=False)
    with pytest.raises(ValueError, match="outputs must be positive, got 0"):
        InceptionV3(outputs=0)


def test_it_computes_what_torchvision_does_with_its_own_input_transform(backbone: dict[str, Tensor]) -> None:
    """The same pixels give the same logits, although each is given them normalised in its own way."""
    theirs = Inception3(num_classes=3, aux_logits=False, transform_input=True, init_weights=False).eval()
    ours = InceptionV3(outputs=3, height=109, width=89, aux=False).eval()
    theirs.load_state_dict(without_heads(backbone), strict=False)
    ours.load_backbone(without_heads(backbone))
    ours.fc.load_state_dict(theirs.fc.state_dict())
    pixels = torch.randint(256, (2, 109, 89, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = theirs(((pixels / 255 - mean) / std).permute(0, 3, 1, 2))
        torch.testing.assert_close(ours(ours.preprocessing.normalise(pixels)), expected, atol=1e-4, rtol=1e-3)


def test_a_backbone_is_loaded_as_float32_and_heads_of_other_shapes_are_left(backbone: dict[str, Tensor]) -> None:
    network = InceptionV3(outputs=2)
    head = network.fc.weight.detach().clone()
    network.load_backbone(backbone)
    weight = network.Mixed_7c.branch_pool.conv.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, backbone["Mixed_7c.branch_pool.conv.weight"].float())
    assert torch.equal(network.fc.weight, head)
    assert torch.equal(network.AuxLogits.conv0.conv.weight, backbone["AuxLogits.conv0.conv.weight"].float())


def test_a_backbone_that_does_not_fit_is_refused_before_anything_is_loaded(backbone: dict[str, Tensor]) -> None:
    network = InceptionV3(height=75, width=75, aux=False)
    before = network.Mixed_5b.branch1x1.conv.weight.detach().clone()
    good = without_heads(backbone)
    missing = {key: weight for key, weight in good.items() if key != "Mixed_7a.branch3x3_1.bn.bias"}
    with pytest.raises(ValueError, match=r"Mixed_7a.branch3x3_1.bn.bias missing"):
        network.load_backbone(missing)
    with pytest.raises(ValueError, match=r"features.0.weight unexpected"):
        network.load_backbone(good | {"features.0.weight": torch.zeros(1)})
    with pytest.raises(
        ValueError, match=r"Conv2d_1a_3x3.conv.weight \(expected \[32, 3, 3, 3\], got \[32, 1, 3, 3\]\)"
    ):
        network.load_backbone(good | {"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 1, 3, 3)})
    assert torch.equal(network.Mixed_5b.branch1x1.conv.weight, before)


def test_prefixes_select_layers() -> None:
    names = [name for name, _ in InceptionV3(height=75, width=75, aux=False).named_parameters()]
    assert [name for name in names if name.startswith("fc")] == ["fc.weight", "fc.bias"]
    assert any(name.startswith("Mixed_7b") for name in names)
