"""One driver at a time holds a place; a dead one is succeeded, and nobody's clock is trusted."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from celebvision import lease as leases
from celebvision.job import JobFailed
from celebvision.lease import holder_of, lease
from celebvision.storage import Store, open_store

KEY = "runs/lease.json"


@pytest.fixture
def output(bucket: str) -> Store:
    return open_store(f"{bucket}/labels")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.1)
    monkeypatch.setattr(leases, "EXPIRES_S", 1.0)
    monkeypatch.setattr(leases, "LOOK_S", 0.05)


def abandoned(output: Store) -> None:
    """The lease of a driver on another machine that is never heard of again."""
    held = {"holder": "x", "host": "elsewhere", "boot": "b", "pid": 1, "started": "1", "renewals": 3}
    output.put(KEY, json.dumps(held).encode())


@pytest.mark.usefixtures("quick")
def test_a_second_driver_is_refused_while_the_first_lives(output: Store) -> None:
    with lease(output, KEY), pytest.raises(JobFailed, match=r"process \d+ on .* works here"), lease(output, KEY):
        pass


def test_a_lease_that_was_given_back_leaves_nothing(output: Store) -> None:
    for _ in range(2):
        with lease(output, KEY):
            assert holder_of(output, KEY)
        assert holder_of(output, KEY) is None
        assert list(output.list()) == []


@pytest.mark.usefixtures("quick")
def test_an_abandoned_lease_is_taken_over_when_it_has_expired_and_not_before(output: Store) -> None:
    abandoned(output)
    started = time.monotonic()
    with lease(output, KEY) as check:
        assert time.monotonic() - started >= 1.0
        check()


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_over_at_once(output: Store) -> None:
    words = (
        "import os, sys; from celebvision.lease import lease; from celebvision.storage import open_store\n"
        "with lease(open_store(sys.argv[1]), sys.argv[2]): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", words, output.uri, KEY], stdin=-1, stdout=-1) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        assert str(process.pid) in (holder_of(output, KEY) or "")
        process.kill()
    assert holder_of(output, KEY) is None
    started = time.monotonic()
    with lease(output, KEY):
        assert time.monotonic() - started < leases.EXPIRES_S / 3


@pytest.mark.usefixtures("quick")
def test_a_driver_that_was_succeeded_stops_and_leaves_its_successors_lease_alone(output: Store) -> None:
    with lease(output, KEY) as check:
        abandoned(output)
        with pytest.raises(JobFailed, match="took this place over"):
            _check_until_refused(check)
    assert "elsewhere" in (holder_of(output, KEY) or "")


def _check_until_refused(check: Callable[[], None]) -> None:
    while True:
        check()
        time.sleep(0.01)


@pytest.mark.usefixtures("quick")
def test_of_many_that_find_an_abandoned_lease_one_wins(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))  # moto does not decide races
    abandoned(output)
    won: list[int] = []
    everybody_tried = threading.Barrier(4)

    def drive(number: int) -> None:
        try:
            with lease(output, KEY):
                won.append(number)
                everybody_tried.wait(60)
        except JobFailed:
            everybody_tried.wait(60)

    drivers = [threading.Thread(target=drive, args=(number,)) for number in range(4)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert len(won) == 1
