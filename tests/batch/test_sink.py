"""The end of a run: nothing is called done before every key of the inventory has its one row."""

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from celebvision import ray_session
from celebvision.batch import sink
from celebvision.batch.inventory import SCHEMA
from celebvision.batch.record import Run
from celebvision.batch.sink import Results, delete_parts, finished_shards
from celebvision.job import JobFailed
from celebvision.storage import GrowingFile, StorageError, Store, open_store, read_table, write_table

SHARDS = [["a", "b", "c"], ["d", "e"], ["f"]]
FAILED = {"b", "f"}


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


@pytest.fixture
def a_run(output: Store, ray_cluster: None) -> Run:
    """A run with all its parts: two failures among six keys."""
    ray_session.start()  # joins what runs, and hushes it
    run = Run("20260101T000000Z-words", "classify", "running", "", {}, {"name": "cnn", "version": "1"}, "")
    run.inventory = {"shards": len(SHARDS), "keys": 6, "bytes": 6}
    for number, keys in enumerate(SHARDS):
        listed = {"key": keys, "size": [1] * len(keys), "etag": keys, "last_modified": [None] * len(keys)}
        listed |= {"file": [None] * len(keys), "row": [None] * len(keys)}
        write_table(output, run.shard(number), pa.table(listed, schema=SCHEMA))
        write_part(output, run, number, keys)
    return run


def finish(output: Store, run: Run) -> Any:
    """All that a run leaves, made at its end."""
    with Results(output, run) as results:
        return results.finish()


def write_part(output: Store, run: Run, number: int, keys: list[str]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "key": key,
            "etag": key,
            "label": None if key in FAILED else "male",
            "probability": None if key in FAILED else 0.75,
            "model": "cnn",
            "model_version": "1",
            "run_id": run.run_id,
            **dict.fromkeys(("stage", "error", "message"), "decode" if key in FAILED else None),
        }
        for key in keys
    ]
    table = pa.Table.from_pylist(rows)
    write_table(output, run.part(number), table.cast(_without_null_types(table.schema)))


def _without_null_types(schema: pa.Schema) -> pa.Schema:
    kinds = {"probability": pa.float32()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in schema.names])


def keys_in(output: Store, folder: str) -> list[str]:
    return [key for stat in output.list(folder) for key in read_table(output, stat.key)["key"].to_pylist()]


@pytest.mark.parametrize("files_here", [2, 1], ids=["here", "by workers"])
def test_every_row_goes_to_results_or_failures_in_order(
    output: Store, a_run: Run, files_here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "PARTS_A_FILE", 2)
    monkeypatch.setattr(sink, "FILES_HERE", files_here)
    counts, reasons, distributions = finish(output, a_run)
    assert counts == {"results": 4, "failures": 2, "failures_decode": 2}
    assert reasons == {"decode decode": 2}
    assert distributions == {"failures": {"decode decode": 2, "none": 4}}
    assert keys_in(output, "results/") == ["a", "c", "d", "e"]
    assert keys_in(output, "failures/") == ["b", "f"]
    results, failures = read_table(output, a_run.results(0)), read_table(output, a_run.failures(0))
    assert results.schema.names == ["key", "etag", "label", "probability", "model", "model_version", "run_id"]
    assert failures.schema.names[:5] == ["key", "etag", "stage", "error", "message"]
    assert [stat.key for stat in output.list("results/")] == [a_run.results(0)]  # its second file would be empty
    assert finish(output, a_run) == (counts, reasons, distributions)  # as after a kill: the same again
    assert keys_in(output, "results/") == ["a", "c", "d", "e"]


def test_a_file_is_made_while_other_shards_are_worked_on_and_no_file_twice(
    output: Store, a_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "PARTS_A_FILE", 2)
    expected = finish(output, a_run)
    for stat in [*output.list("results/"), *output.list("failures/")]:
        output.delete(stat.key)
    parts = [output.get(a_run.part(number)) for number in range(3)]
    output.delete_all(a_run.part(number) for number in range(3))
    a_run.inventory = {}  # what the record holds of it is not of this moment
    with Results(output, a_run) as results:
        for shard in (2, 1, 1):
            output.put(a_run.part(shard), parts[shard])
            results.add([shard])
        output.put(a_run.part(0), parts[0])
        results.add({0, 1})
        made = results.made[0].result(timeout=10)
        assert keys_in(output, "results/") == ["a", "c", "d", "e"]
        assert keys_in(output, "failures/") == ["b"]
        output.delete(a_run.part(0))  # who needed it again would say so
        a_run.inventory = {"shards": 3, "keys": 6, "bytes": 6}
        assert results.finish() == expected
        assert results.made[0].result() is made
    assert keys_in(output, "failures/") == ["b", "f"]


def test_a_file_is_made_a_row_group_after_another(output: Store, a_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run.config = {"uncertain_below": 0.8}
    expected = finish(output, a_run)
    whole = [read_table(output, key) for key in (a_run.results(0), a_run.failures(0))]
    monkeypatch.setattr(sink, "PARTS_A_GROUP", 2)
    assert finish(output, a_run) == expected
    files = [pq.ParquetFile(io.BytesIO(output.get(key))) for key in (a_run.results(0), a_run.failures(0))]
    assert [file.read() for file in files] == whole
    groups = [[file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] for file in files]
    assert groups == [[4], [1, 1]]  # the last part has no result


def test_files_that_nobody_has_begun_are_left_to_workers(
    output: Store, a_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "PARTS_A_FILE", 1)
    monkeypatch.setattr(sink, "FILES_HERE", 1)
    expected = finish(output, a_run)
    free = threading.Event()
    with Results(output, a_run) as results:
        results.pool.submit(free.wait)
        results.add(range(3))
        assert results.finish() == expected
        assert all(made.cancelled() for made in results.made.values())
        free.set()


def test_what_storage_failed_meanwhile_is_made_at_the_end(
    output: Store, a_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "PARTS_A_FILE", 1)
    expected = finish(output, a_run)
    with Results(output, a_run) as results:
        with monkeypatch.context() as patch:
            patch.setattr(GrowingFile, "put", Mock(side_effect=StorageError("the cable was pulled")))
            results.add([1])
            assert isinstance(results.made[1].exception(timeout=10), StorageError)
        assert results.finish() == expected


def test_what_is_wrong_with_a_part_is_told_at_the_end(
    output: Store, a_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "PARTS_A_FILE", 1)
    write_part(output, a_run, 1, ["e", "d"])
    with Results(output, a_run) as results:
        results.add([0, 1])
        with pytest.raises(JobFailed, match="does not hold the keys of"):
            results.finish()


def test_how_the_rows_are_spread_is_told_and_an_older_version_may_have_written_some_of_the_parts(
    output: Store, a_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run.config = {"uncertain_below": 0.8}
    part = read_table(output, a_run.part(1))
    part = part.set_column(part.schema.get_field_index("label"), "label", pa.array(["uncertain", "male"]))
    for name, values in (("brightness", [0.25, 0.75]), ("positive", [0.5, 1.0])):
        part = part.append_column(name, pa.array(values, pa.float32()))
    write_table(output, a_run.part(1), part)
    expected = {
        "probability": {"0.50": 1, "0.95": 1},
        "brightness": {"0.25": 1, "0.75": 1},
        "failures": {"decode decode": 2, "none": 4},
    }
    monkeypatch.setattr(sink, "PARTS_A_GROUP", 1)
    for parts, files_here in ((3, 1), (1, 3), (1, 2)):  # one file, several, and several by workers
        monkeypatch.setattr(sink, "PARTS_A_FILE", parts)
        monkeypatch.setattr(sink, "FILES_HERE", files_here)
        counts, _, distributions = finish(output, a_run)
        assert counts == {"results": 4, "results_uncertain": 1, "failures": 2, "failures_decode": 2}
        assert distributions == expected
    results = [row for stat in output.list("results/") for row in read_table(output, stat.key).to_pylist()]
    assert all("positive" not in row for row in results)


@pytest.mark.parametrize("keys", [["d"], ["d", "d"], ["d", "e", "e"], ["d", "x"], ["e", "d"]], ids="".join)
def test_a_part_with_a_missing_doubled_or_foreign_key_is_refused(output: Store, a_run: Run, keys: list[str]) -> None:
    write_part(output, a_run, 1, keys)
    with pytest.raises(JobFailed, match=r"part-00001\.parquet does not hold the keys of .*part-00001\.parquet"):
        finish(output, a_run)
    assert finished_shards(output, a_run) == {0, 1, 2}  # they stay for a look at them


def test_a_missing_part_is_refused_with_what_to_do(output: Store, a_run: Run) -> None:
    output.delete(a_run.part(2))
    assert finished_shards(output, a_run) == {0, 1}
    with pytest.raises(JobFailed, match=r"shard 2 .* has no rows; the same command continues"):
        finish(output, a_run)


@pytest.mark.parametrize(("number", "change"), [("shards", lambda count: count - 1), ("keys", lambda count: count + 1)])
def test_totals_that_differ_from_the_record_are_refused(
    output: Store, a_run: Run, number: str, change: Callable[[int], int]
) -> None:
    a_run.inventory[number] = change(a_run.inventory[number])
    with pytest.raises(JobFailed, match="keys went in and"):
        finish(output, a_run)


def test_parts_and_journals_are_removed_and_nothing_else(output: Store, a_run: Run) -> None:
    output.put(a_run.journal(1), b"")
    delete_parts(output, a_run)
    assert finished_shards(output, a_run) == set()
    assert [stat.key for stat in output.list()] == [a_run.shard(number) for number in range(3)]
