"""The two-minute notice of a spot instance is heard once it comes, and workers leave between two pieces of work."""

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from interrupting import MetadataService

from celebvision import preemption
from celebvision.job import JobFailed
from celebvision.preemption import Metadata, leave_when_idle, main, notice


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataService]:
    monkeypatch.setattr(preemption, "POLL_S", 0.02)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # which answers nothing, and is not to be asked
    with MetadataService("10.0.0.7") as service:
        yield service


def metadata_of(service: MetadataService) -> Metadata:
    return Metadata(service.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"])


def test_only_the_notice_is_a_notice(service: MetadataService) -> None:
    heard: list[datetime] = []
    listening = threading.Thread(target=lambda: heard.append(notice(metadata_of(service))))
    service.recommend_rebalance()
    listening.start()
    for broken in (False, True, False):  # a service that fails for a moment is asked again
        service.broken = broken
        service.asked.clear()
        assert broken or service.asked.wait(10)
    assert not heard
    service.interrupt(in_s=120)
    listening.join(10)
    assert 110 < (heard[0] - datetime.now(UTC)).total_seconds() <= 120


def test_a_machine_without_metadata_is_told_so(service: MetadataService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "SILENCE_S", 0.1)
    service.broken = True
    with pytest.raises(JobFailed, match=r"no metadata for 0.1 s: HTTP Error 503: .* allow IMDSv2"):
        notice(metadata_of(service))


def test_a_watcher_that_knows_no_cluster_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main() == 1
    assert "RAY_ADDRESS is not set" in caplog.text


def test_a_worker_leaves_a_draining_node_once_its_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    left, at_work, looks = threading.Event(), threading.Lock(), iter([False, False, True])
    leaving = threading.Thread(target=leave_when_idle, args=(at_work,), daemon=True)

    def draining() -> bool:
        """Of this one's node alone: workers that other tests made in this process look too."""
        return threading.current_thread() is leaving and next(looks)

    for name, value in {"LOOK_S": 0.01, "RETURN_S": 0.01, "draining": draining}.items():
        monkeypatch.setattr(preemption, name, value)
    monkeypatch.setattr(os, "_exit", lambda _: left.set())
    with at_work:
        leaving.start()
        assert not left.wait(0.2)
    assert left.wait(10)
    assert at_work.locked(), "what it is sent now must wait until Ray sends it elsewhere"
