"""VGG's features are torchvision's, layer by layer; what differs from it differs as it is said to."""

from typing import Literal

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from celebvision.models.vgg import IMAGENET_MEAN, IMAGENET_STD, VGG, names_of

ALL = {
    "vgg16": ["1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3"],
    "vgg19": ["1_1", "1_2", "2_1", "2_2", *(f"{block}_{number}" for block in (3, 4, 5) for number in (1, 2, 3, 4))],
}
PADDINGS: tuple[Literal["zeros", "replicate"], ...] = ("zeros", "replicate")
SHALLOW = ["conv1_1", "conv2_1", "conv3_1"]


def weights_of(arch: str, seed: int = 0) -> dict[str, Tensor]:
    """As torchvision names and shapes them, of a size that lets the signal live to the last layer."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {f"features.{key}": value.shape for key, value in theirs(arch).state_dict().items()}
    return {
        key: torch.randn(shape, generator=generator) * ((2 / shape[1:].numel()) ** 0.5 if len(shape) > 1 else 0.1)
        for key, shape in shapes.items()
    }


def theirs(arch: str) -> nn.Sequential:
    made: nn.Sequential = getattr(torchvision.models, arch)(weights=None, init_weights=False).features
    return made


def loaded(
    arch: str,
    layers: list[str],
    pooling: Literal["max", "average"] = "max",
    padding: Literal["zeros", "replicate"] = "zeros",
) -> VGG:
    vgg = VGG(arch, layers, pooling, padding)
    vgg.load(weights_of(arch))
    return vgg


def pictures(count: int = 2, height: int = 48, width: int = 32) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("arch", ["vgg16", "vgg19"])
def test_layers_have_the_papers_names(arch: str) -> None:
    assert names_of(arch) == [f"conv{name}" for name in ALL[arch]]


@pytest.mark.parametrize("arch", ["vgg16", "vgg19"])
def test_features_and_key_names_are_torchvisions(arch: str) -> None:
    """Each layer is what torchvision's network gives behind the ReLU of that convolution."""
    weights, layers, network = weights_of(arch), names_of(arch), theirs(arch)
    network.load_state_dict({key.removeprefix("features."): value for key, value in weights.items()})
    images = pictures()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    maps, expected = (images - mean) / std, []
    with torch.no_grad():
        for part in network:
            maps = part(maps)
            if isinstance(part, nn.ReLU):
                expected.append(maps.clone())
    vgg = loaded(arch, layers)
    assert set(vgg.state_dict()) == set(weights)
    found = vgg(images)
    assert list(found) == layers
    for layer, value in zip(layers, expected, strict=True):
        assert torch.equal(found[layer], value), layer


def test_the_order_and_number_of_names_change_no_features() -> None:
    layers = ["conv3_1", "conv1_1", "conv3_1", "conv2_2"]
    found, alone = loaded("vgg19", layers)(pictures()), loaded("vgg19", ["conv2_2"])(pictures())
    assert set(found) == set(layers)
    assert torch.equal(found["conv2_2"], alone["conv2_2"])
    assert list(alone) == ["conv2_2"]


def test_what_lies_above_the_highest_layer_is_left_out() -> None:
    vgg = VGG("vgg19", ["conv1_2", "conv3_2"])
    convolutions = [part for part in vgg.features if isinstance(part, nn.Conv2d)]
    assert [part.out_channels for part in convolutions] == [64, 64, 128, 128, 256, 256]
    assert isinstance(vgg.features[-1], nn.ReLU)


def test_average_pooling_is_as_large_as_maximum_pooling_would_be() -> None:
    """Twice the mean of four places; about as large as the largest of them, for which the weights were learnt."""
    layers = ["conv1_2", "conv2_1"]
    vgg, images = loaded("vgg16", layers, pooling="average"), pictures()
    found = vgg(images)
    pooled = 2 * functional.avg_pool2d(found["conv1_2"], 2)
    last = [part for part in vgg.features if isinstance(part, nn.Conv2d)][-1]
    torch.testing.assert_close(found["conv2_1"], functional.conv2d(pooled, last.weight, last.bias, padding=1).relu())
    largest = loaded("vgg16", layers)(images)
    assert torch.equal(found["conv1_2"], largest["conv1_2"])
    assert 0.8 < float(pooled.mean() / functional.max_pool2d(largest["conv1_2"], 2).mean()) < 1.25


def test_replicated_padding_differs_at_the_border_alone() -> None:
    zeros, replicated = (loaded("vgg16", ["conv1_1"], padding=how)(pictures())["conv1_1"] for how in PADDINGS)
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(zeros[inside], replicated[inside])
    differs = (zeros != replicated).any(1).float().mean(0) > 0.5
    for border in (differs[0], differs[-1], differs[:, 0], differs[:, -1]):
        assert border.all()


def test_replicated_padding_is_what_a_picture_with_wider_edges_would_give() -> None:
    images = pictures()
    wider = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    zeros, replicated = (
        loaded("vgg16", ["conv1_1"], padding=padding)(given)["conv1_1"]
        for padding, given in zip(PADDINGS, (wider, images), strict=True)
    )
    torch.testing.assert_close(replicated, zeros[..., 1:-1, 1:-1])


@pytest.mark.parametrize(
    ("arch", "layers", "told"),
    [
        ("vgg16", ["conv1_1", "conv3_4"], r"vgg16 has no layer conv3_4; there are: conv1_1, .*, conv5_3$"),
        ("vgg19", ["relu4_1", "conv6_1"], r"vgg19 has no layer relu4_1, conv6_1; there are: conv1_1, .*, conv5_4$"),
        ("vgg19", [], r"name a layer of vgg19 at least; there are: conv1_1"),
        ("vgg11", ["conv1_1"], r"unknown arch 'vgg11'; there are: vgg16, vgg19"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(arch: str, layers: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        VGG(arch, layers)


def test_later_layers_the_classifier_and_other_precisions_are_no_obstacle() -> None:
    weights = {key: value.half() for key, value in weights_of("vgg19").items()}
    vgg = VGG("vgg19", SHALLOW)
    vgg.load(weights | {"classifier.0.weight": torch.zeros(2, 2), "classifier.6.bias": torch.zeros(1000)})
    assert vgg.features[0].weight.dtype == torch.float32
    assert torch.equal(vgg.features[0].weight, weights["features.0.weight"].float())


def altered(weights: dict[str, Tensor], without: str = "", **others: Tensor) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if key != without} | others


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (
            altered(weights_of("vgg16"), without="features.5.bias"),
            r"missing features\.5\.bias; expected torchvision's names, features\.0\.weight to features\.10\.bias;",
        ),
        (
            altered(weights_of("vgg16"), **{"features.5.weight": torch.zeros(128, 64, 5, 5)}),
            r"features\.5\.weight is \[128, 64, 5, 5\], expected \[128, 64, 3, 3\]",
        ),
        (
            {"classifier.0.weight": torch.zeros(4, 2), "classifier.0.bias": torch.zeros(4)},
            r"missing features\.0\.bias, .* …; expected torchvision's names, .*; found classifier\.0\.bias, ",
        ),
        ({}, r"missing features\.0\.bias, .* …; expected torchvision's names, .*; found nothing"),
    ],
)
def test_other_weights_are_refused_with_what_was_expected_and_nothing_is_loaded(
    weights: dict[str, Tensor], told: str
) -> None:
    vgg = VGG("vgg16", SHALLOW)
    before = vgg.features[0].weight.clone()
    with pytest.raises(ValueError, match=rf"not vgg16's weights: {told}"):
        vgg.load(weights)
    assert torch.equal(vgg.features[0].weight, before)


def test_the_other_archs_weights_are_refused() -> None:
    """Both name places, not layers: from the fourth convolution of a block on, those are not the same."""
    for arch, other in (("vgg16", "vgg19"), ("vgg19", "vgg16")):
        with pytest.raises(ValueError, match=f"not {arch}'s weights: "):
            VGG(arch, ["conv5_1"]).load(weights_of(other))


def test_pictures_have_a_gradient_and_parameters_never() -> None:
    vgg = loaded("vgg16", SHALLOW).train()
    images = pictures().requires_grad_()
    sum(maps.square().mean() for maps in vgg(images).values()).backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    for name, parameter in vgg.named_parameters():
        assert not parameter.requires_grad, name
        assert parameter.grad is None, name


def test_features_have_the_precision_of_the_weights() -> None:
    vgg = loaded("vgg16", ["conv2_1"]).to(torch.bfloat16)
    assert vgg(pictures())["conv2_1"].dtype == torch.bfloat16
