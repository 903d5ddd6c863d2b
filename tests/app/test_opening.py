"""While models load, whoever looks at the page leaves them the time to."""

import gc

from celebvision.app.opening import Opening


def test_looking_whether_all_is_loaded_leaves_the_collector_nothing_to_look_through() -> None:
    heap = [[number] for number in range(100_000)]
    try:
        Opening.spare_collector(Opening.__new__(Opening))  # one that loads nothing
        assert gc.get_freeze_count() > len(heap)
    finally:
        gc.unfreeze()
