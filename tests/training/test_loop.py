"""What the loop keeps between epochs."""

from celebvision.training.loop import _Standing


def test_the_best_is_kept_and_epochs_without_a_better_one_are_counted() -> None:
    standing = _Standing()
    seen = []
    for score in (0.5, 0.7, 0.7, 0.6, 0.8):
        standing.judge(score)
        seen.append((standing.epoch, standing.best, standing.stale))
    assert seen == [(1, 0.5, 0), (2, 0.7, 0), (3, 0.7, 1), (4, 0.7, 2), (5, 0.8, 0)]
