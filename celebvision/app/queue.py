"""Who computes now, and who waits: in the order of coming."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_S = 0.5  # between looks at one's place


class Queue:
    """Lets so many at a time in, the others in the order in which they came."""

    def __init__(self, at_once: int) -> None:
        self.at_once, self.inside = at_once, 0
        self.waiting: deque[object] = deque()
        self.moved = threading.Condition()

    @contextmanager
    def turn(self, on_place: Callable[[int], None]) -> Iterator[None]:
        """Wait for one's turn, which lasts as long as the block.

        `on_place` is told how many are before one, each time that it is looked; what it raises gives up the place.
        """
        me = object()
        with self.moved:
            self.waiting.append(me)
            try:
                while self.waiting[0] is not me or self.inside >= self.at_once:
                    on_place(self.waiting.index(me) + self.inside)
                    self.moved.wait(LOOK_S)
                self.inside += 1
            finally:
                self.waiting.remove(me)
                self.moved.notify_all()
        try:
            yield
        finally:
            with self.moved:
                self.inside -= 1
                self.moved.notify_all()

    def __len__(self) -> int:
        return len(self.waiting)
