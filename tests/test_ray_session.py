"""A session on this machine alone: who can reach it."""

import json
import signal
import subprocess
import sys
from ipaddress import ip_address
from typing import Any

import pytest
import ray

from celebvision import ray_session
from celebvision.job import JobFailed

LISTENING = "0A"  # a socket's state, as Linux writes it

SESSION = """
import json, os
from pathlib import Path
import ray
from celebvision import ray_session

def parent(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])

def of_this_session(process):
    while process not in (0, 1, os.getpid()):
        process = parent(process)
    return process == os.getpid()

ray_session.start(num_cpus=1)
ray.get(ray.remote(num_cpus=1)(lambda: None).remote())
sockets = []
for folder in Path("/proc").glob("[0-9]*"):
    try:
        if of_this_session(int(folder.name)):
            sockets += [os.readlink(one) for one in (folder / "fd").iterdir()]
    except OSError:
        pass  # ended meanwhile
lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
print(json.dumps([[line[1], line[3]] for line in lines if f"socket:[{line[9]}]" in sockets]))
"""


def address(written: str) -> str:
    """The address of a socket, from hex digits in words of four bytes, each the lowest byte first."""
    digits = written.partition(":")[0]
    packed = b"".join(bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8))
    found = ip_address(packed)
    return str(getattr(found, "ipv4_mapped", None) or found)


def test_nobody_outside_this_machine_can_reach_it() -> None:
    done = subprocess.run([sys.executable, "-c", SESSION], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    listening = [address(where) for where, state in json.loads(done.stdout) if state == LISTENING]
    assert len(listening) > 3, "Ray's head, its node and its workers listen"
    assert set(listening) == {"127.0.0.1"}


class SlowToStart:
    """Stands in for `ray.init`: raises what is given, one after the other, and then starts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "init", self)
        monkeypatch.setattr(signal, "signal", lambda *_: None)

    def __call__(self, *_: Any, **__: Any) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


def timed_out() -> Exception:
    return Exception("The current node timed out during startup. This could happen because some of the raylet failed")


def test_ray_that_is_slow_to_start_is_started_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = SlowToStart(monkeypatch, timed_out(), timed_out())
    ray_session.start()
    assert slow.calls == 3
    assert capsys.readouterr().err.count("starting it again") == 2


def test_ray_that_never_starts_is_an_error_that_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    never = SlowToStart(monkeypatch, *(timed_out() for _ in range(9)))
    with pytest.raises(JobFailed, match=r"did not start in 3 attempts.*raylet\.err"):
        ray_session.start()
    assert never.calls == 3


def test_what_else_ray_refuses_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = SlowToStart(monkeypatch, ValueError("num_cpus"))
    with pytest.raises(ValueError, match="num_cpus"):
        ray_session.start(num_cpus=-1)
    assert refused.calls == 1
