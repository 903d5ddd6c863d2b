"""The optimisers of Gatys' method alone: their steps, written out or as torch takes them."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from celebvision.models.gatys import (
    HISTORY,
    LBFGS,
    Adam,
    Average,
)

SHAPE = (3, 2, 2)  # of the pictures that the optimisers alone are tried on


class Quadratics:
    """A bowl for each picture, of its own shape, depth and middle."""

    def __init__(self, count: int, condition: float = 50.0, seed: int = 0) -> None:
        generator, size = torch.Generator().manual_seed(seed), torch.Size(SHAPE).numel()
        turn = torch.linalg.qr(torch.randn(count, size, size, generator=generator, dtype=torch.float64))[0]
        values = condition ** torch.rand(count, size, generator=generator, dtype=torch.float64)
        scale = 10.0 ** torch.arange(count, dtype=torch.float64)
        self.hessians = turn @ torch.diag_embed(values * scale[:, None]) @ turn.mT
        self.middles = torch.randn(count, size, generator=generator, dtype=torch.float64)

    def at(self, images: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The loss of each picture, and its gradient."""
        away = images.flatten(1) - self.middles[list(rows)]
        slope = (self.hessians[list(rows)] @ away[:, :, None])[:, :, 0]
        return (away * slope).sum(1) / 2, slope.view_as(images)

    def path(self, method: LBFGS | Adam, rows: Sequence[int], steps: int) -> tuple[Tensor, Tensor]:
        """Pictures, and their losses, before each step and after the last: steps + 1 B …."""
        images = torch.zeros(len(rows), *SHAPE, dtype=torch.float64)
        shown, found = [images], [self.at(images, rows)[0]]
        for _ in range(steps):
            images = method.step(images, *self.at(images, rows))
            shown.append(images)
            found.append(self.at(images, rows)[0])
        return torch.stack(shown), torch.stack(found)


def test_a_step_of_l_bfgs_is_the_inverse_hessian_written_out_times_the_gradient() -> None:
    """H = (I - r s y') H (I - r y s') + r s s' for each of the last steps, from the scaled identity on."""
    bowls, steps = Quadratics(3), HISTORY + 4
    method = LBFGS()
    images = torch.zeros(3, *SHAPE, dtype=torch.float64)
    known: list[list[tuple[Tensor, Tensor]]] = [[], [], []]
    before: tuple[Tensor, Tensor, Tensor] | None = None
    lengths = torch.ones(3, dtype=torch.float64)
    for _ in range(steps):
        loss, gradient = bowls.at(images, range(3))
        after = method.step(images, loss, gradient)
        if before is not None:
            lengths = torch.where(loss > before[1], lengths / 2, (lengths * 1.5).clamp_max(1))
            for row in range(3):
                known[row].append(((images - before[0])[row].flatten(), (gradient - before[2])[row].flatten()))
                moved, turned = known[row][-1]
                inverse = torch.eye(moved.numel(), dtype=torch.float64) * (moved @ turned) / (turned @ turned)
                for s, y in known[row][-HISTORY:]:
                    left = torch.eye(s.numel(), dtype=torch.float64) - torch.outer(s, y) / (s @ y)
                    inverse = left @ inverse @ left.mT + torch.outer(s, s) / (s @ y)
                expected = images[row].flatten() - lengths[row] * inverse @ gradient[row].flatten()
                torch.testing.assert_close(after[row].flatten(), expected, rtol=1e-6, atol=1e-9)
        before, images = (images, loss, gradient), after


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_l_bfgs_gets_as_low_as_torchs_in_as_many_evaluations(search: str | None) -> None:
    bowls, evaluations = Quadratics(4), 40
    _, ours = bowls.path(LBFGS(), range(4), evaluations)
    for row in range(4):
        image = torch.zeros(1, *SHAPE, dtype=torch.float64, requires_grad=True)
        settings = {"max_iter": evaluations, "max_eval": evaluations, "history_size": HISTORY, "line_search_fn": search}
        optimizer = torch.optim.LBFGS([image], tolerance_grad=0, tolerance_change=0, **settings)

        def closure(image: Tensor = image, row: int = row) -> float:
            loss, image.grad = bowls.at(image.detach(), [row])
            return float(loss)

        optimizer.step(closure)
        theirs = float(bowls.at(image.detach(), [row])[0])
        assert float(ours[-1, row]) < max(10 * theirs, 1e-12 * float(ours[0, row]))


@pytest.mark.parametrize("make", [LBFGS, lambda: Adam(0.1, steps=20)], ids=["lbfgs", "adam"])
def test_a_pictures_path_does_not_hang_on_its_neighbours(make: Callable[[], LBFGS | Adam]) -> None:
    bowls = Quadratics(3)
    together, _ = bowls.path(make(), [0, 1, 2], 20)
    for row in range(3):
        alone, _ = bowls.path(make(), [row], 20)
        torch.testing.assert_close(alone[:, 0], together[:, row], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [LBFGS, lambda: Adam(0.1, steps=20)], ids=["lbfgs", "adam"])
def test_those_that_are_kept_go_on_as_if_nobody_had_left(make: Callable[[], LBFGS | Adam]) -> None:
    bowls = Quadratics(3)
    whole, _ = bowls.path(make(), [0, 1, 2], 20)
    method = make()
    first, _ = bowls.path(method, [0, 1, 2], 8)
    method.keep(torch.tensor([0, 2]))
    images = first[-1][[0, 2]]
    for step in range(8, 20):
        images = method.step(images, *bowls.at(images, [0, 2]))
        torch.testing.assert_close(images, whole[step + 1][[0, 2]], rtol=1e-9, atol=1e-9)


def test_a_picture_whose_loss_rose_takes_shorter_steps_and_longer_ones_again_while_it_falls() -> None:
    method, images = LBFGS(), torch.zeros(2, *SHAPE)
    lengths = []
    for losses_ in ([5.0, 5.0], [6.0, 4.0], [7.0, 3.0], [1.0, 2.0], [0.5, 1.0], [0.2, 0.5]):
        images = method.step(images, torch.tensor(losses_), torch.ones(2, *SHAPE) + images)
        assert method.length is not None
        lengths.append(method.length.tolist())
    assert lengths == [[1, 1], [0.5, 1], [0.25, 1], [0.375, 1], [0.5625, 1], [0.84375, 1]]


def test_where_the_loss_curves_down_nothing_is_learnt_and_the_step_still_goes_down() -> None:
    """From such a pair L-BFGS would take the top of a hill for the bottom of a bowl."""
    method, images = LBFGS(), torch.full((1, *SHAPE), 0.1)
    for _ in range(15):
        gradient = -images
        after = method.step(images, -images.square().sum((1, 2, 3)) / 2, gradient)
        assert float(((after - images) * gradient).sum()) < 0
        images = after


def test_no_number_stays_with_its_picture() -> None:
    bowls = Quadratics(2)
    alone, _ = bowls.path(LBFGS(), [0], 12)
    method, images = LBFGS(), torch.zeros(2, *SHAPE, dtype=torch.float64)
    for step in range(12):
        loss, gradient = bowls.at(images, [0, 1])
        if step == 4:
            loss[1], gradient[1] = torch.nan, torch.nan
        images = method.step(images, loss, gradient)
        torch.testing.assert_close(images[:1], alone[step + 1], rtol=1e-9, atol=1e-9)
    assert images[1].isnan().all()


def test_adam_is_torchs_along_a_cosine() -> None:
    bowls, steps = Quadratics(3), 15
    ours, _ = bowls.path(Adam(0.1, steps), range(3), steps)
    image = torch.zeros(3, *SHAPE, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([image], lr=0.1, betas=(0.9, 0.99), eps=1e-8)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for step in range(steps):
        image.grad = bowls.at(image.detach(), range(3))[1]
        optimizer.step()
        schedule.step()
        torch.testing.assert_close(ours[step + 1], image.detach(), rtol=1e-9, atol=1e-9)


def test_an_average_by_hand() -> None:
    average = Average(0.5)
    for value, by_hand in ((4.0, 4.0), (1.0, (4 * 0.25 + 1 * 0.5) / 0.75), (2.0, (0.5 + 0.25 + 2 * 0.5) / 0.875)):
        average.add(torch.full((2, 1), value))
        torch.testing.assert_close(average.value, torch.full((2, 1), by_hand))
    average.keep(torch.tensor([1]))
    assert average.value.shape == (1, 1)
    last = Average(0.0)
    for value in (4.0, 1.0):
        last.add(torch.tensor([value]))
    assert float(last.value) == 1.0
