"""A loaded network that answers with probabilities, shared by batch jobs and the upload page."""

import copy
from collections.abc import Callable
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
        batch: images of most batches. On a GPU those of that size are launched as one (a CUDA graph): a small network's
            kernels take the device less time than Python takes to ask for them. Others are computed all the same.
    """

    def __init__(
        self, network: nn.Module, classes: tuple[str, ...], device: torch.device | str = "cpu", batch: int | None = None
    ) -> None:
        self.classes = classes
        self.device = torch.device(device)
        self.preprocessing = cast(Preprocessing, network.preprocessing)
        # Of the network and not an argument here, so that nobody who makes a classifier of a version can forget them.
        self.temperatures = torch.tensor(getattr(network, "temperatures", [1.0] * len(classes)))
        self.autocast = has_bfloat16(self.device)
        self.dtype = torch.bfloat16 if self.autocast else torch.float32
        network = _folded(copy.deepcopy(network).eval().requires_grad_(False), self.dtype)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.launch = None
        if batch and self.device.type == "cuda":
            size = self.preprocessing
            self.launch = _Launch(self._forward, torch.zeros(batch, size.height, size.width, 3, dtype=torch.uint8))

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
        if not len(images):
            return torch.empty(0, len(self.classes))
        if self.launch is not None and images.shape == self.launch.images.shape and images.dtype == torch.uint8:
            logits = self.launch(images)
        else:
            logits = self._forward(images.to(self.device, non_blocking=True))
        return logits.cpu()

    def _forward(self, images: Tensor) -> Tensor:
        """The same of images that are on the device, not one at least; it stays there."""
        inputs = self.preprocessing.normalise(images, self.dtype)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            logits: Tensor = self.network(inputs)
        if logits.shape != (len(inputs), len(self.classes)):
            raise ValueError(f"the network gave {list(logits.shape)} logits for {len(self.classes)} classes")
        return logits.float()


class _Launch:
    """All kernels of a forward pass on a GPU, for one size of batch, to be launched at once."""

    def __init__(self, forward: Callable[[Tensor], Tensor], images: Tensor) -> None:
        """`images` are as large as the batches; `forward` takes them on the device and must do the same each time."""
        self.images = images.to("cuda")
        self.graph = torch.cuda.CUDAGraph()
        apart = torch.cuda.Stream()
        apart.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(apart):
            forward(self.images)  # what is made at the first time is no part of it
        torch.cuda.current_stream().wait_stream(apart)
        with torch.inference_mode(), torch.cuda.graph(self.graph):
            self.answers = forward(self.images)

    def __call__(self, images: Tensor) -> Tensor:
        """What `forward` gives; good until the next call."""
        self.images.copy_(images, non_blocking=True)
        self.graph.replay()
        return self.answers


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether `device` computes in bfloat16 itself; where it is emulated it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _folded(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Fold each ``bn`` into the ``conv`` beside it, which gives the same function in fewer passes over memory.

    What autocast would turn into `dtype` for each batch anew is so once and for all, to the same bits.
    """
    for module in network.modules():
        conv, norm = getattr(module, "conv", None), getattr(module, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module.conv, module.bn = fuse_conv_bn_eval(conv, norm).to(dtype), nn.Identity()
    return network
