import threading
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def at_once() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Runs something beside the test, and fails the test if it failed."""
    errors: list[BaseException] = []
    threads: list[threading.Thread] = []

    def start(action: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                action()
            except BaseException as error:  # noqa: BLE001 - it is raised in the test's own thread below
                errors.append(error)

        threads.append(threading.Thread(target=guarded))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()
    assert not errors, errors
