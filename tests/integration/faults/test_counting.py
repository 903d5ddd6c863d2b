"""The count notices whatever may be wrong with an output: else the tests behind it would show nothing."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from celebvision.storage import open_store, write_table
from faults.counting import Count, count

KEYS = {"a.jpg", "b.jpg", "bad.jpg"}
RESULTS = "results/run=1/part-00000.parquet"


def labelled(folder: Path, run_id: str = "1", keys: str = "ab", probability: float = 0.75) -> str:
    """An output as a run leaves it."""
    names = [f"{key}.jpg" for key in keys]
    store, one = open_store(str(folder)), {"run_id": run_id, "etag": run_id}
    rows: list[dict[str, Any]] = [{"key": name, "probability": probability, **one} for name in names]
    write_table(store, RESULTS, pa.Table.from_pylist(rows))
    write_table(store, RESULTS.replace("results", "failures"), pa.Table.from_pylist([{"key": "bad.jpg", **one}]))
    store.put("runs/1/run.json", b"{}")
    return str(folder)


@pytest.fixture
def undisturbed(tmp_path: Path) -> str:
    return labelled(tmp_path / "undisturbed")


def test_two_runs_of_the_same_differ_in_their_names_only(undisturbed: str, tmp_path: Path) -> None:
    counted = count(labelled(tmp_path / "labels", run_id="2"), KEYS, undisturbed, without=("etag",))
    assert counted == Count(3, results=2, failures=1, lost=0, doubled=0, strange=0, same_bytes=True)
    assert counted.exact


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ({"keys": "a"}, {"lost": 1}),
        ({"keys": "aab"}, {"doubled": 1}),
        ({"keys": "abc"}, {"strange": 1}),
        ({"keys": "ba"}, {"same_bytes": False}),
        ({"probability": 0.5}, {"same_bytes": False}),
        ({"run_id": "2"}, {"same_bytes": False}),  # its etags are others
    ],
)
def test_wrong_rows_are_counted(words: dict[str, Any], wrong: dict[str, Any], undisturbed: str, tmp_path: Path) -> None:
    counted = count(labelled(tmp_path / "labels", **words), KEYS, undisturbed)
    assert {name: getattr(counted, name) for name in wrong} == wrong
    assert not counted.exact


@pytest.mark.parametrize("left", ["runs/1/parts/part-00000.parquet", "results/run=1/.celebvision-0", "runs/1/.x/lock"])
def test_what_a_finished_run_does_not_have_is_litter(left: str, undisturbed: str, tmp_path: Path) -> None:
    output = labelled(tmp_path / "labels")
    path = Path(output, left)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    assert not count(output, KEYS, undisturbed).exact


def test_half_a_file_is_litter(undisturbed: str, tmp_path: Path) -> None:
    output = labelled(tmp_path / "labels")
    half = Path(output, "runs/1/inventory/part-00000.parquet")
    half.parent.mkdir(parents=True)
    half.write_bytes(Path(output, RESULTS).read_bytes()[:-5])
    assert count(output, KEYS, undisturbed).litter == ["runs/1/inventory/part-00000.parquet"]


def test_an_output_without_any_file_has_lost_everything(undisturbed: str, tmp_path: Path) -> None:
    counted = count(str(tmp_path / "nothing"), KEYS, undisturbed)
    assert (counted.lost, counted.exact) == (3, False)
