"""The rows of shards as figures of their job."""

from collections import Counter
from pathlib import Path

from celebvision.batch.clock import Clock, Measured
from celebvision.batch.record import Run, load_run, new_run_id, now
from celebvision.batch.tell import Teller
from celebvision.config import WatchedSettings
from celebvision.metrics import Figures, Telling, names
from celebvision.storage import open_store

MODEL = {"name": "cnn", "version": "1", "weights_sha256": ""}


def teller() -> Teller:
    return Teller(Telling(WatchedSettings(), Figures("classify", "cnn", "s3://bucket/labels")))


def images(told: Teller) -> dict[tuple[str, str], float]:
    found = [one for one in told.figures.samples() if one.metric is names.IMAGES]
    return {(one.labels["stage"], one.labels["outcome"]): one.value for one in found}  # type: ignore[misc]


def test_a_key_passes_the_stages_before_the_one_it_fails_in() -> None:
    told = teller()
    counts = Counter(results=5, failures=5, failures_fetch=1, failures_decode=3, failures_write=1)
    failures = {"fetch NotFound": 1, "decode UndecodableImage": 2, "decode NeverHeardOf": 1, "write Denied": 1}
    examples = dict.fromkeys(failures, ("a.jpg", "what was wrong"))
    measured = Measured({"infer": [0.1]}, places=8, pictures=6, wall_s=0.4, failures=failures, examples=examples)
    told.shard(counts, measured, left=7)
    assert images(told) == {
        ("fetch", "ok"): 9,
        ("fetch", "failed"): 1,
        ("decode", "ok"): 6,
        ("decode", "failed"): 3,
        ("infer", "ok"): 6,
        ("infer", "failed"): 0,
        ("write", "ok"): 5,
        ("write", "failed"): 1,
    }
    value = told.figures.value
    assert value(names.FAILURES, stage="decode", reason="other") == 1
    assert value(names.FAILURES, stage="decode", reason="UndecodableImage") == 2
    assert (value(names.FILL), value(names.BUSY), value(names.QUEUE)) == (0.75, 0.25, 7)


def test_while_nobody_knows_of_how_many_there_is_a_rate_and_no_time_left() -> None:
    told = teller()
    told.told.done(10, None)
    value = told.figures.value
    assert (value(names.RATE), value(names.REMAINING), value(names.ETA)) == (0, None, None)
    told.told.done(10, 30)
    assert value(names.REMAINING) == 20


def test_in_the_end_the_figures_are_the_whole_runs_whoever_did_its_shards() -> None:
    told = teller()
    told.shard({"results": 10}, Measured(), left=1)
    run = Run(new_run_id("x"), "classify", "running", now(), {}, MODEL, "1", {"shards": 3, "keys": 25})
    told.stands(run)
    assert images(told)["write", "ok"] == 10
    run.state = "done"
    run.counts = {"results": 22, "failures": 3, "failures_decode": 3}
    run.reasons = {"decode UndecodableImage": 3}
    for _ in range(2):  # said twice, it is the same
        told.stands(run)
        assert images(told)["write", "ok"] == 22
        assert images(told)["decode", "failed"] == 3
        assert told.figures.value(names.FAILURES, stage="decode", reason="UndecodableImage") == 3
        assert told.figures.value(names.INVENTORY) == 25


def test_a_clock_names_the_slowest_keys_and_gives_each_batch_its_own_time() -> None:
    clock = Clock()
    for at in range(10):
        clock.picture(f"{at}.jpg", fetch_s=at % 7, decode_s=0.5, size=10)
        if at % 5 == 4:
            clock.seconds["infer"] += 2.0
            clock.batch(5, 8)
    clock.wrote(0.25, 100)
    measured = clock.stop()
    assert measured.seconds == {"fetch": [10.0, 14.0], "decode": [2.5, 2.5], "infer": [2.0, 2.0], "write": [0.25]}
    assert (measured.pictures, measured.places) == (10, 16)
    assert (measured.read_bytes, measured.written_bytes) == (100, 100)
    assert sorted(measured.slowest) == [(2.5, "2.jpg"), (3.5, "3.jpg"), (4.5, "4.jpg"), (5.5, "5.jpg"), (6.5, "6.jpg")]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    run = Run(new_run_id("x"), "classify", "interrupted", now(), {}, MODEL, "1", seconds=5.0, slowest=[(0.5, "a.jpg")])
    run.mark(10)
    run.save(output)
    assert load_run(output, run.run_id) == run


def test_a_timeline_has_a_bounded_number_of_points() -> None:
    run = Run(new_run_id("x"), "classify", "running", now(), {}, MODEL, "1")
    for at in range(5000):
        run.seconds = float(at)
        run.mark(10 * at)
    assert 100 < len(run.timeline) <= 240
    assert run.timeline[0] == (0.0, 0)
    assert run.timeline == sorted(run.timeline)
    assert run.timeline[-1][0] > 4900
