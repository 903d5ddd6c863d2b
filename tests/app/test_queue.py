"""Who waits for the page's processor waits in order, knows the place, and loses it by leaving."""

import threading
import time

import pytest

from celebvision.app.queue import Queue


class Left(Exception):
    """The visitor has gone."""


def test_each_comes_in_the_order_of_coming_and_no_two_at_a_time() -> None:
    queue, inside, order = Queue(1), [0], list[int]()
    places: dict[int, list[int]] = {number: [] for number in range(5)}

    def visit(number: int) -> None:
        with queue.turn(places[number].append):
            inside[0] += 1
            assert inside[0] == 1
            order.append(number)
            time.sleep(0.02)
            inside[0] -= 1

    with queue.turn(lambda _: None):
        threads = []
        for number in range(5):
            threads.append(threading.Thread(target=visit, args=(number,)))
            threads[-1].start()
            while len(queue) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4]
    assert places[4][0] == 5
    assert places[4] == sorted(places[4], reverse=True)
    assert len(queue) == 0


def test_who_leaves_or_fails_lets_the_next_in() -> None:
    queue = Queue(1)

    def leave(_: int) -> None:
        raise Left

    with queue.turn(leave), pytest.raises(Left), queue.turn(leave):
        pass
    with pytest.raises(ValueError, match="broken"), queue.turn(leave):
        raise ValueError("broken")
    with queue.turn(leave):
        pass
    assert (queue.inside, len(queue)) == (0, 0)


def test_as_many_as_are_let_in_work_at_a_time() -> None:
    queue = Queue(2)
    with queue.turn(lambda _: None), queue.turn(lambda _: None):
        assert queue.inside == 2
