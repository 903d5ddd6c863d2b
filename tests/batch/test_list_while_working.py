"""Pictures are worked on while the rest of the input is listed, and a listing goes on where it was cut off."""

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from labelling import House, fill, record, rows, wait_until

from celebvision.batch import inventory, listing, run, sink
from celebvision.batch.inventory import begun, read_keys
from celebvision.batch.listing import FollowListing, Listing
from celebvision.batch.record import Run, find_runs, load_run, numbers_of
from celebvision.batch.sink import finished_shards
from celebvision.config import ClassifySettings
from celebvision.job import JobFailed
from celebvision.ray_session import Board
from celebvision.storage import Stat, StorageError, Store, open_store, read_table, write_table
from celebvision.storage.local import LocalStore

KEYS = 3  # a shard


def a_run(**config: Any) -> Run:
    model = {"name": "cnn", "version": "1", "weights_sha256": ""}
    return Run("20260101T000000Z-words", "classify", "listing", "", config, model, "")


def words(folder: Path, **others: Any) -> ClassifySettings:
    places = {"input": str(folder / "photos"), "output": str(folder / "labels")}
    return ClassifySettings(**places, model="cnn", registry="/nowhere", **{"shard_keys": KEYS} | others)


def named(*numbers: int) -> list[str]:
    return [f"{number:02}.jpg" for number in numbers]


def put(folder: Path, *numbers: int) -> None:
    fill(str(folder / "photos"), dict.fromkeys(named(*numbers), b"12345"))


def whole(settings: ClassifySettings, made: Run) -> dict[str, int]:
    with Listing(settings, open_store(settings.output), made, []) as lists:
        lists.wait(math.inf)
    return lists.counts


def inventory_of(settings: ClassifySettings, made: Run) -> list[list[str]]:
    output = open_store(settings.output)
    shards = len(list(output.list(f"{made.folder}/inventory/")))
    return [[key.key for key in read_keys(output, made, number)] for number in range(shards)]


# ---- a listing that was cut off ----


def test_a_listing_goes_on_behind_the_last_shard_and_removes_those_behind_a_gap(tmp_path: Path) -> None:
    settings, output = words(tmp_path), open_store(str(tmp_path / "labels"))
    put(tmp_path, *range(0, 40, 2))
    made = a_run(shard_keys=KEYS)
    whole(settings, made)
    output.delete(made.shard(2))
    before = output.get(made.shard(1))
    put(tmp_path, 1, 13, 15)  # before, and behind what stays of it
    for gone in named(0, 12):
        open_store(settings.input).delete(gone)
    counts = whole(words(tmp_path, shard_keys=1000), made)
    kept, rest = named(0, 2, 4, 6, 8, 10), named(13, 14, 15, *range(16, 40, 2))
    keys = kept + rest
    assert inventory_of(settings, made) == [keys[first : first + KEYS] for first in range(0, len(keys), KEYS)]
    assert output.get(made.shard(1)) == before
    assert counts == {"shards": -(-len(keys) // KEYS), "keys": len(keys), "bytes": 5 * len(keys)}


def test_what_was_whole_but_for_its_record_is_not_listed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, made = words(tmp_path), a_run()
    put(tmp_path, *range(7))
    counts = whole(settings, made)
    put(tmp_path, 8)
    monkeypatch.setattr(listing, "pictures", None)
    assert whole(settings, made) == counts == {"shards": 3, "keys": 7, "bytes": 35}
    assert inventory_of(settings, made)[-1] == named(6)


def test_behind_a_last_shard_that_is_full_comes_what_has_come_since(tmp_path: Path) -> None:
    settings, made = words(tmp_path), a_run()
    put(tmp_path, *range(6))
    assert whole(settings, made) == whole(settings, made) == {"shards": 2, "keys": 6, "bytes": 30}
    put(tmp_path, 7)
    assert whole(settings, made) == {"shards": 3, "keys": 7, "bytes": 35}
    assert inventory_of(settings, made) == [named(0, 1, 2), named(3, 4, 5), named(7)]


def test_a_cut_off_listing_of_an_earlier_version_is_written_anew(tmp_path: Path) -> None:
    settings, made, output = words(tmp_path), a_run(), open_store(str(tmp_path / "labels"))
    put(tmp_path, *range(7))
    whole(settings, made)
    for number in range(3):
        write_table(output, made.shard(number), read_table(output, made.shard(number)).replace_schema_metadata())
    open_store(settings.input).delete("00.jpg")
    assert whole(settings, made) == {"shards": 2, "keys": 6, "bytes": 30}
    assert inventory_of(settings, made) == [named(1, 2, 3), named(4, 5, 6)]


def test_where_nothing_is_there_it_begins_at_the_first_key(tmp_path: Path) -> None:
    assert begun(open_store(str(tmp_path)), a_run()) == ({"shards": 0, "keys": 0, "bytes": 0}, "")


numbers = st.sets(st.integers(0, 20))


@hypothesis_settings(max_examples=25, deadline=None)
@given(numbers, numbers, st.integers(0, 7))
def test_no_key_is_lost_or_doubled_whatever_comes_and_goes_meanwhile(
    tmp_path_factory: pytest.TempPathFactory, first: set[int], later: set[int], lost: int
) -> None:
    folder, made = tmp_path_factory.mktemp("again"), a_run()
    settings, output = words(folder), open_store(str(folder / "labels"))
    put(folder, *first)
    whole(settings, made)
    output.delete(made.shard(lost))
    kept = [key for shard in inventory_of_first(output, made, lost) for key in shard]
    for stat in list(open_store(settings.input).list()):
        open_store(settings.input).delete(stat.key)
    put(folder, *later)
    counts = whole(settings, made)
    found = [key for shard in inventory_of(settings, made) for key in shard]
    came_to_its_end = len(kept) % KEYS > 0
    rest = [] if came_to_its_end else [key for key in named(*sorted(later)) if not kept or key > kept[-1]]
    assert found == kept + rest
    assert counts["keys"] == len(found)


def inventory_of_first(output: Store, made: Run, shards: int) -> Iterator[list[str]]:
    """The first of the shards, at most so many."""
    there = len(list(output.list(f"{made.folder}/inventory/")))
    for number in range(min(shards, there)):
        yield [key.key for key in read_keys(output, made, number)]


# ---- while it is written ----


class Held(LocalStore):
    """Keeps a shard back until it is let go."""

    def __init__(self, path: str, number: int) -> None:
        super().__init__(path)
        self.ending, self.gate = f"inventory/part-{number:05}.parquet", threading.Event()

    def put(self, key: str, data: bytes) -> str:
        if key.endswith(self.ending):
            self.gate.wait(30)
        return super().put(key, data)


def test_a_shard_is_told_of_when_all_before_it_are_there(tmp_path: Path) -> None:
    put(tmp_path, *range(12))
    output, made = Held(str(tmp_path / "labels"), 1), a_run()
    with Listing(words(tmp_path), output, made, []) as lists:
        wait_until(lambda: len(list(output.list(f"{made.folder}/inventory/"))) == 3)
        lists.wait(1)
        assert lists.stands() == ({"shards": 1, "keys": 3, "bytes": 15}, False)
        output.gate.set()
        lists.wait(math.inf)
        assert lists.stands() == ({"shards": 4, "keys": 12, "bytes": 60}, True)


class Gate:
    """A lister that waits behind some of the pictures, until it is opened, and then may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, behind: int, error: Exception | None = None) -> None:
        self.opened, self.behind, self.error = threading.Event(), behind, error
        self.honest = listing.pictures
        monkeypatch.setattr(listing, "pictures", self.pictures)

    def pictures(self, settings: Any, through: Callable[[Iterator[Stat]], Iterator[Stat]]) -> Iterator[Stat]:
        for at, stat in enumerate(self.honest(settings, through)):
            if at == self.behind:
                assert self.opened.wait(120)
                if self.error:
                    raise self.error
            yield stat


def test_a_shard_is_told_of_though_no_other_key_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, *range(5))
    gate = Gate(monkeypatch, behind=4)
    with Listing(words(tmp_path), open_store(str(tmp_path / "labels")), a_run(), []) as lists:
        lists.wait(1)
        assert (lists.stands(), lists.listed) == (({"shards": 1, "keys": 3, "bytes": 15}, False), 4)
        gate.opened.set()


def test_a_listing_that_is_stopped_writes_no_further_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, *range(12))
    gate, made = Gate(monkeypatch, behind=5), a_run()
    monkeypatch.setattr(listing, "STOP_S", 0.0)
    with Listing(words(tmp_path), open_store(str(tmp_path / "labels")), made, []) as lists:
        lists.wait(1)
    gate.opened.set()
    lists.thread.join(30)
    assert inventory_of(words(tmp_path), made) == [named(0, 1, 2)]
    assert not lists.whole


def test_a_driver_that_lost_its_lease_writes_no_shard(tmp_path: Path) -> None:
    def check() -> None:
        raise JobFailed("another driver took this place over")

    put(tmp_path, *range(5))
    made = a_run()
    lists = Listing(words(tmp_path), open_store(str(tmp_path / "labels")), made, [], check)
    with lists, pytest.raises(JobFailed, match="took this place over"):
        lists.wait(1)
    assert inventory_of(words(tmp_path), made) == []


class Said:
    """A board on which one thing stands after the other."""

    def __init__(self, *said: tuple[int, bool]) -> None:
        self.said = list(said)

    def announced(self) -> tuple[int, bool]:
        return self.said.pop(0)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ([(0, False), (2, False), (2, False), (5, False), (5, True)], [0, 2, 3]),
        ([(5, True)], [0, 2, 3]),
        ([(3, False), (0, False), (6, True)], [0, 2, 3, 5]),  # the board's process was lost
        ([(0, True)], []),
    ],
)
def test_each_shard_that_is_not_finished_is_given_once_when_it_is_on_the_board(
    said: list[tuple[int, bool]], wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "FOLLOW_S", 0)
    board: Any = Said(*said)
    given = [table["shard"].to_pylist() for table in FollowListing(board, {1, 4})(pa.table({"follows": [True]}))]
    assert given == [[number] for number in wanted]
    assert board.said == []


# ---- the whole job ----


def photos(settings: ClassifySettings, faces: list[bytes]) -> list[str]:
    pictures = {f"{number:02}.jpg": face for number, face in enumerate(faces[:12])}
    fill(settings.input, pictures)
    return list(pictures)


def first_part_is_there(output: str) -> bool:
    return any(finished_shards(open_store(output), found) for found in find_runs(open_store(output)))


def when(happened: Callable[[], bool], do: Callable[[], None]) -> threading.Thread:
    """Do it in a thread as soon as that has happened."""

    def wait_and_do() -> None:
        wait_until(happened, 120)
        do()

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    return thread


@pytest.mark.usefixtures("on_ray")
@pytest.mark.parametrize("split_stages", [False, True])
def test_the_first_part_is_written_before_the_listing_ends(
    split_stages: bool, house: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = words(tmp_path, split_stages=split_stages).model_copy(update={"registry": house.registry})
    names = photos(settings, faces)
    gate, seen = Gate(monkeypatch, behind=8), []  # two shards, as many as there can be actors

    def open_gate() -> None:
        seen.append(record(settings.output))
        gate.opened.set()

    opens = when(lambda: first_part_is_there(settings.output), open_gate)
    outcome = run.classify(settings)
    opens.join()
    assert (seen[0]["state"], seen[0]["whole"], seen[0]["inventory"]["keys"]) == ("running", False, 6)
    assert outcome.summary["keys"] == 12
    assert [row["key"] for row in rows(settings.output, "results")] == names
    done = record(settings.output)
    assert (done["whole"], done["inventory"]["shards"], done["counts"]["results"]) == (True, 4, 12)


@pytest.mark.usefixtures("on_ray")
def test_to_list_is_to_move_though_no_picture_is_due(
    house: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {"registry": house.registry, "stall_timeout_s": 7.0, "glob": "?[0-9].jpg", "max_actors": 1}
    settings = words(tmp_path).model_copy(update=others)
    photos(settings, faces[:4])
    fill(settings.input, {f"1{number:02}.jpg": b"x" for number in range(60)})
    honest = Listing._seen

    def slowly(self: Listing, stats: Iterator[Stat]) -> Iterator[Stat]:
        for at, stat in enumerate(honest(self, stats)):
            if at > 4:  # for 22 s
                time.sleep(0.4)
            yield stat

    monkeypatch.setattr(Listing, "_seen", slowly)
    assert run.classify(settings).summary["results"] == 4


@pytest.mark.usefixtures("on_ray")
@pytest.mark.parametrize("end", ["error", "Ctrl-C"])
def test_a_job_that_ended_while_it_listed_and_worked_goes_on_with_both(
    end: str, house: House, faces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = words(tmp_path).model_copy(update={"registry": house.registry})
    names = photos(settings, faces)
    output = open_store(settings.output)

    with monkeypatch.context() as patch:
        gate = Gate(patch, behind=8, error=StorageError("the cable was pulled"))

        def ends() -> None:
            if end == "Ctrl-C":
                os.kill(os.getpid(), signal.SIGINT)
                wait_until(stops.is_set)
            gate.opened.set()

        stops = threading.Event()
        honest = Listing.__exit__

        def stopped(self: Listing, *raised: object) -> None:
            stops.set()
            honest(self, *raised)

        patch.setattr(Listing, "__exit__", stopped)
        thread = when(lambda: first_part_is_there(settings.output), ends)
        with pytest.raises(KeyboardInterrupt if end == "Ctrl-C" else StorageError):
            run.classify(settings)
        thread.join()
    (left,) = find_runs(output)
    assert (left.state, left.whole) == ("interrupted" if end == "Ctrl-C" else "failed", False)
    assert left.error == ("" if end == "Ctrl-C" else "the cable was pulled")
    finished = finished_shards(output, left)
    assert finished
    written: list[str] = []

    def note(store: Store, key: str, table: pa.Table) -> None:
        written.append(key)
        write_table(store, key, table)

    monkeypatch.setattr(inventory, "write_table", note)
    made: list[set[int]] = []
    finish = sink.Results.finish
    monkeypatch.setattr(sink, "PARTS_A_FILE", 2)
    monkeypatch.setattr(sink.Results, "finish", lambda self: made.append(set(self.made)) or finish(self))
    told: list[int] = []
    monkeypatch.setattr(run, "numbers_of", lambda row: told.append(1) or numbers_of(row))
    outcome = run.classify(settings)
    assert 0 < len(told) <= 4 - len(finished)  # what had been done is not done again
    assert sorted(written) == [left.shard(2), left.shard(3)]
    assert made == [{0, 1}]  # files of results, before there was nothing left to work on
    assert outcome.summary["keys"] == 12
    assert [row["key"] for row in rows(settings.output, "results")] == names
    assert rows(settings.output, "failures") == []
    assert record(settings.output)["run_id"] == left.run_id


def test_a_record_of_an_earlier_version_is_whole_unless_it_was_listing(tmp_path: Path) -> None:
    output, made = open_store(str(tmp_path)), a_run()
    for state in ("listing", "running", "done", "failed", "interrupted"):
        made.state = state  # type: ignore[assignment]
        made.save(output)
        content = json.loads(output.get(f"{made.folder}/run.json"))
        del content["whole"]
        output.put(f"{made.folder}/run.json", json.dumps(content).encode())
        assert load_run(output, made.run_id).whole == (state != "listing")


@pytest.mark.usefixtures("on_ray")
def test_a_board_says_what_was_announced() -> None:
    with Board() as board:
        assert board.announced() == (0, False)
        board.announce(3, whole=True)
        assert board.announced() == (3, True)
