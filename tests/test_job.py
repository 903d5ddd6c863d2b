"""Progress that people can read, and digests that stand for words."""

import pytest

from celebvision import job


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets: its only element is the time in seconds."""
    now = [0.0]
    monkeypatch.setattr(job.time, "monotonic", lambda: now[0])
    return now


def test_lines_tell_how_far_how_fast_and_how_long(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with job.progress("classify", 1000, "images") as show:
        clock[0] = 100  # a slow start
        show(100, "1 failed")
        clock[0] = 105
        show(150)  # too soon to be told
        clock[0] = 120
        show(300, "2 failed")
        clock[0] = 120.5
        show(1000, "2 failed")
        show(1000, "2 failed")
    assert capsys.readouterr().err.splitlines() == [
        "classify: 100 of 1000 images 1 failed",
        "classify: 300 of 1000 images, 10.0/s, ETA 70 s 2 failed",
        "classify: 1000 of 1000 images, 43.9/s 2 failed",
    ]


def test_what_takes_longer_than_a_second_is_counted_by_the_minute(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with job.progress("stylize", 16, "images") as show:
        show(1)
        clock[0] += 60
        show(3)
    assert "3 of 16 images, 2.0/min, ETA 390 s" in capsys.readouterr().err


def test_work_that_begins_again_is_paced_anew(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with job.progress("train", 100, "images") as show:
        for now, done in ((10, 50), (20, 60), (40, 10), (60, 30)):
            clock[0] = now
            show(done)
    assert "30 of 100 images, 1.0/s, ETA 70 s" in capsys.readouterr().err


def test_a_digest_stands_for_the_words() -> None:
    assert job.digest({"a": 1, "b": 2}) == job.digest({"b": 2, "a": 1}) != job.digest({"a": 1, "b": 3})
    assert len(job.digest({})) == 8


def test_the_version_of_the_code_is_the_packages_and_of_its_source() -> None:
    version, _, source = job.code_version().partition("+")
    assert version
    assert len(source) == 12
