"""The average of a network's weights over the time of its training, which is what is published."""

from __future__ import annotations

import torch
from torch import Tensor

Tensors = list[Tensor] | tuple[Tensor, ...]


class Average:
    """Exponential moving average that begins with a short memory, so that the first weights are soon forgotten."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def __call__(self, averages: Tensors, currents: Tensors, count: Tensor | int) -> None:
        decay = min(self.decay, (1 + int(count)) / (10 + int(count)))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, 1 - decay)
        else:
            torch._foreach_copy_(averages, currents)
