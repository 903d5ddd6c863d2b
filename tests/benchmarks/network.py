"""The one network that all contestants run: of random but fixed weights, as loose files and as a registry's version."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from celebvision import images
from celebvision.models import complete_arguments
from celebvision.models.cnn import CNN
from celebvision.registry import promote, publish
from tests.benchmarks.pictures import face, photo

SEED = 0
SAMPLE = 64  # faces, and as many photos, whose answers are spread over 0..1
SPREAD = 3.0  # standard deviation of the sample's logits
CLASSES = ("female", "male")


@dataclass(frozen=True)
class Model:
    weights: Path
    arguments: Path
    registry: Path


def model_of(work: Path) -> Model:
    """The network's files under the work folder, made if they are not there yet."""
    model = Model(work / "model.safetensors", work / "model-args.json", work / "registry")
    if not model.registry.exists():
        network = _spread(_random())
        save_file(network.state_dict(), model.weights)
        model.arguments.write_text(json.dumps(complete_arguments("cnn")))
        published(model.registry, network, complete_arguments("cnn"))
    return model


def published(registry: Path, network: CNN, arguments: dict[str, Any]) -> None:
    """The network as the production version of `cnn`."""
    version = publish(
        str(registry),
        "cnn",
        state=network.state_dict(),
        architecture="cnn",
        arguments=arguments,
        preprocessing=network.preprocessing.to_json(),
        targets=["Male"],
        classes={"Male": CLASSES},
        metrics={},
        data_digest="",
        code_version="",
        seed=SEED,
        card="",
        samples={},
    )
    promote(str(registry), "cnn", version.version)


def _random() -> CNN:
    torch.manual_seed(SEED)
    network = CNN().eval()
    for module in network.modules():
        # Each block's last normalisation begins at 0, and the block would do nothing.
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    return network


def _spread(network: CNN) -> CNN:
    """Scale the last layer until the answers lie on both sides of 0.5: near it, labels would differ by rounding."""
    size = network.preprocessing
    sample = [draw(index) for draw in (face, photo) for index in range(SAMPLE)]
    pixels = np.stack([images.decode(data, size.height, size.width) for data in sample])
    with torch.inference_mode():
        logits = network(size.normalise(torch.from_numpy(pixels)))
    scale = SPREAD / logits.std()
    with torch.no_grad():
        network.fc.bias.copy_((network.fc.bias - logits.mean()) * scale)
        network.fc.weight.mul_(scale)
    return network
