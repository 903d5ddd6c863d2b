"""Muon: each step moves a layer as far in every direction, as PyTorch's own does with matrices."""

import pytest
import torch
from torch import nn

from celebvision.training.muon import Muon, orthogonal


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (8, 40), (40, 8)])
def test_a_matrix_becomes_orthogonal_and_keeps_its_directions(rows: int, columns: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = left.T @ orthogonal(matrix) @ right.T
    assert found.diagonal().min() > 0.6
    assert found.diagonal().max() < 1.3
    torch.testing.assert_close(found, found.diagonal().diag(), rtol=0, atol=1e-4)


def test_nothing_stays_nothing() -> None:
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))


@pytest.mark.parametrize("shape", [(8, 24), (24, 8)])
def test_a_matrix_moves_as_by_pytorchs_muon(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(shape, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = (Muon([ours], 0.1), torch.optim.Muon([theirs], lr=0.1, weight_decay=0))
    for _ in range(4):
        gradient = torch.randn(shape, generator=generator)
        for weight, optimizer in zip((ours, theirs), optimizers, strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
    moved = (ours - start).norm()
    assert moved > 0.5
    assert (ours - theirs).norm() < 0.03 * moved, "but for its bfloat16"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_moves_as_its_matrix(layout: torch.memory_format) -> None:
    start = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    convolution = nn.Parameter(start.clone().contiguous(memory_format=layout))
    matrix, still = nn.Parameter(start.flatten(1).clone()), nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([convolution, matrix, still], 0.1)
    for _ in range(3):
        for weight in (convolution, matrix):
            weight.grad = weight.detach().clone()
        optimizer.step()
    torch.testing.assert_close(convolution.flatten(1), matrix, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(convolution, start)
    assert torch.equal(still, torch.ones(2, 2)), "without a gradient"
