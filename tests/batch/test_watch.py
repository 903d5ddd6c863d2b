"""The wait for rows ends for a reason of ours, whatever the process makes of Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from ray.data import Dataset

from celebvision.batch.watch import watch
from celebvision.ray_session import Board
from celebvision.storage import StorageError

DISPOSITIONS = {"as a terminal's": signal.default_int_handler, "ignored, as a script's with &": signal.SIG_IGN}


@pytest.fixture(params=DISPOSITIONS.values(), ids=DISPOSITIONS)
def of_ctrl_c(request: pytest.FixtureRequest) -> Iterator[Any]:
    before = signal.signal(signal.SIGINT, request.param)
    yield request.param
    assert signal.getsignal(signal.SIGINT) is request.param  # as it was found
    signal.signal(signal.SIGINT, before)


class Rows:
    """Of a data set: what `before` does comes ahead of its only row."""

    def __init__(self, before: Callable[[], object]) -> None:
        self.before = before

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        self.before()
        yield {}


class Silent:
    def done(self) -> float:
        return 0.0


def watched(before: Callable[[], object], on_tick: Callable[[float], float]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    watch(cast(Dataset, Rows(before)), cast(Board, Silent()), 60, rows.append, on_tick)
    return rows


@pytest.mark.timeout(60)
def test_what_went_wrong_meanwhile_ends_the_wait_for_a_row(of_ctrl_c: Any) -> None:
    def fails(_: float) -> float:
        raise StorageError("the cable was pulled")

    with pytest.raises(StorageError, match="the cable was pulled"):
        watched(threading.Event().wait, fails)


def test_ctrl_c_means_what_it_meant_before(of_ctrl_c: Any) -> None:
    def pressed() -> list[dict[str, Any]]:
        return watched(lambda: signal.raise_signal(signal.SIGINT), lambda done: done)

    if of_ctrl_c is signal.SIG_IGN:
        assert pressed() == [{}]
    else:
        with pytest.raises(KeyboardInterrupt):
            pressed()
