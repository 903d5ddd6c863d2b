"""Muon: steps that move a layer's weights as far in every direction (Jordan et al. 2024).

Source: https://kellerjordan.github.io/posts/muon/. `torch.optim.Muon` takes matrices alone, and orthogonalises in
bfloat16, which takes a CPU without it twenty times as long as float32 and more.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

MOMENTUM = 0.95
ITERATIONS = 5  # of Newton and Schulz
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of their polynomial x, x^3, x^5


class Muon(torch.optim.Optimizer):
    """Nesterov's momentum, of which each step is the orthogonal matrix that is nearest.

    Args:
        weights: of hidden layers, with 2 dimensions or more: O …, as a matrix of O rows.
        rate: length of a step in each direction, times √(rows / columns) where there are more rows.
    """

    def __init__(self, weights: ParamsT, rate: float) -> None:
        super().__init__(weights, {"lr": rate})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move each weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
                moved = orthogonal(weight.grad.lerp(momentum, MOMENTUM).flatten(1))
                longer = max(1.0, moved.shape[0] / moved.shape[1]) ** 0.5
                weight.add_(moved.reshape(weight.shape), alpha=-group["lr"] * longer)


def orthogonal(matrix: Tensor) -> Tensor:
    """U Vᵀ, nearly, of a matrix U S Vᵀ, R C: singular values become 0.7 to 1.2, if they were not next to nothing."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp_min(1e-7)
    # Polynomials of the same matrix, which commute: all but the first and the last product are of its shorter side.
    square = wide @ wide.T
    factor = one = torch.eye(len(wide), dtype=wide.dtype, device=wide.device)
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        power = torch.addmm(first * one + third * square, square, square, alpha=fifth)
        factor, square = power @ factor, power @ square @ power
    found: Tensor = factor @ wide
    return found if matrix.shape[0] <= matrix.shape[1] else found.T
