"""What only a GPU can show: it answers as a CPU does, however its kernels are launched."""

import pytest
import torch
from torch import Tensor

from celebvision.models import create
from celebvision.models.classifier import Classifier
from celebvision.models.cyclegan import CycleGAN
from celebvision.models.gatys import Gatys, styles_of
from celebvision.models.perceptual import Perceptual
from celebvision.models.stylizer import Stylizer
from celebvision.models.vgg import VGG

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
BATCH = 8


def pixels_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    made = create("cnn")
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # each block's last begins at 0, and the block would do nothing
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    return made


def test_a_batch_that_is_launched_at_once_has_the_answers_of_one_that_is_not(network: torch.nn.Module) -> None:
    launched, plain = Classifier(network, ("Male",), "cuda", BATCH), Classifier(network, ("Male",), "cuda")
    assert launched.launch is not None
    for seed in range(3):  # each time its own, whatever the batch before was
        pixels = pixels_of(BATCH, 109, 89, 3, seed=seed)
        assert torch.equal(launched.probabilities(pixels), plain.probabilities(pixels))
        assert torch.equal(launched.probabilities(pixels.pin_memory()), plain.probabilities(pixels))


def test_other_batches_are_computed_all_the_same(network: torch.nn.Module) -> None:
    launched, plain = Classifier(network, ("Male",), "cuda", BATCH), Classifier(network, ("Male",), "cuda")
    for count in (0, 1, BATCH - 1, BATCH + 1):
        pixels = pixels_of(count, 109, 89, 3)
        assert torch.equal(launched.probabilities(pixels), plain.probabilities(pixels))
    with pytest.raises(ValueError, match="uint8"):
        launched.probabilities(pixels_of(BATCH, 109, 89, 3).float())


def test_a_gpu_classifies_as_a_cpu_does(network: torch.nn.Module) -> None:
    pixels = pixels_of(BATCH, 109, 89, 3)
    ours = Classifier(network, ("Male",), "cuda", BATCH).probabilities(pixels)
    assert torch.allclose(ours, Classifier(network, ("Male",)).probabilities(pixels), atol=0.03)


@pytest.mark.parametrize("size", [(64, 64), (109, 89), (200, 300)])
def test_a_gpu_redraws_as_a_cpu_does(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = CycleGAN(size=64, width=16, blocks=2)
    pixels = pixels_of(2, *size, 3)
    ours, theirs = (Stylizer(network, device, 128).draw(pixels).int() for device in ("cuda", "cpu"))
    assert (ours - theirs).abs().float().mean() < 3  # of 255


def test_a_gpu_optimises_as_a_cpu_does() -> None:
    torch.manual_seed(0)
    state = VGG("vgg16", ["conv5_2"]).state_dict()
    drawn = []
    for device in ("cuda", "cpu"):
        vgg = VGG("vgg16", ["conv5_2", "conv1_1", "conv2_1"])
        vgg.load_state_dict(state)
        losses = Perceptual(vgg.to(device), ["conv5_2"], ["conv1_1", "conv2_1"], 1.0, 5.0, 0.0)
        styles = styles_of(losses, [pixels_of(1, 64, 64, 3, seed=1)], [1.0], 64, 1)
        drawn.append(Gatys(losses, styles, steps=20).draw(pixels_of(2, 64, 64, 3)))
    assert torch.allclose(drawn[0].style_loss, drawn[1].style_loss, rtol=0.1)
    assert torch.allclose(drawn[0].content_loss, drawn[1].content_loss, rtol=0.1)
