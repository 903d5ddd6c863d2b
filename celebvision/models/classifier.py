"""A loaded network that answers with probabilities, shared by batch jobs and the upload page."""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from celebvision.models.preprocessing import Preprocessing


class Classifier:
    """A network made ready for inference.

    The network is copied, its batch normalisations are folded into the convolutions before them, and it runs in
    bfloat16 where the device computes in it. A batch gives the same numbers each time on the same device. An image's
    probabilities depend on the other images of its batch by rounding alone (the kernels chosen for another batch size
    may sum in another order), so compare runs by tolerance, not by equality. bfloat16 itself moves a probability by up
    to about 0.015 from float32's (a trained CNN on 2,000 faces), which changed no accuracy there.

    Args:
        network: gives one logit per class; has `preprocessing`. Where it has `temperatures` as well, one per class, as
            a version of the registry has, each logit is divided by its own (Guo et al. 2017, section 4.2), which moves
            probabilities but no answer across 0.5. Left as it is.
        classes: name of each output, as it is shown to the user.
        device: where to run.
    """

    def __init__(self, network: nn.Module, classes: tuple[str, ...], device: torch.device | str = "cpu") -> None:
        self.classes = classes
        self.device = torch.device(device)
        self.preprocessing = cast(Preprocessing, network.preprocessing)
        # Of the network and not an argument here, so that nobody who makes a classifier of a version can forget them.
        self.temperatures = torch.tensor(getattr(network, "temperatures", [1.0] * len(classes)))
        network = _folded(copy.deepcopy(network).eval().requires_grad_(False))
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.autocast = has_bfloat16(self.device)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """Give the probability of each class.

        Args:
            images: uint8, B H W 3, RGB, of the height and width that `preprocessing` states; on any device. B may
                be 0.

        Returns:
            float32, B T, 0..1, on the CPU; T in the order of `classes`.

        Raises:
            ValueError: another type or shape, or a network whose outputs are not one per class.
        """
        return (self.logits(images) / self.temperatures).sigmoid()

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """What the network itself says, before any temperature: float32, B T, on the CPU. Else as `probabilities`."""
        dtype = torch.bfloat16 if self.autocast else torch.float32
        inputs = self.preprocessing.normalise(images.to(self.device, non_blocking=True), dtype)
        if not len(inputs):
            return torch.empty(0, len(self.classes))
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            logits: Tensor = self.network(inputs)
        if logits.shape != (len(inputs), len(self.classes)):
            raise ValueError(f"the network gave {list(logits.shape)} logits for {len(self.classes)} classes")
        return logits.float().cpu()


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether `device` computes in bfloat16 itself; where it is emulated it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _folded(network: nn.Module) -> nn.Module:
    """Fold each ``bn`` into the ``conv`` beside it, which gives the same function in fewer passes over memory."""
    for module in network.modules():
        conv, norm = getattr(module, "conv", None), getattr(module, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module.conv, module.bn = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return network
