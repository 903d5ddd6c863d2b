"""What a folder as a store must hold that S3 does by itself: no key leads out, no half file, no lost update."""

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stores import keys

from celebvision.storage import (
    Conflict,
    StorageError,
    Store,
    open_store,
)
from celebvision.storage.local import HIDDEN


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.mark.parametrize("key", ["../out", "a/../../out", "/etc/passwd", "a/../b", "a//b", "a/", ".", "link/out"])
def test_no_key_leaves_the_folder(local: Store, tmp_path: Path, key: str) -> None:
    local.put("inside", b"")
    (tmp_path / "out").write_bytes(b"secret")
    (tmp_path / "store" / "link").symlink_to(tmp_path)
    for use in (local.get, local.stat, local.delete, lambda key: local.put(key, b"")):
        with pytest.raises(ValueError, match="names no file inside"):
            use(key)
    assert (tmp_path / "out").read_bytes() == b"secret"


def test_no_listing_leaves_the_folder(local: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    local.put("folder/inside", b"")
    (tmp_path / "out").write_bytes(b"secret")
    root = tmp_path / "store"
    (root / "to_folder").symlink_to(tmp_path)
    (root / "to_file").symlink_to(tmp_path / "out")
    (root / "to_itself").symlink_to(root)
    (root / "to_inside").symlink_to(root / "folder" / "inside")
    (root / "to_nothing").symlink_to(root / "nothing")
    assert keys(local) == ["folder/inside", "to_inside"]
    told = sorted(record.args[0].rpartition("/")[2] for record in caplog.records if isinstance(record.args, tuple))
    assert told == ["to_file", "to_folder", "to_itself", "to_nothing"]
    for walk in (local.list, local.folders):
        for prefix in ("../", "to_folder/", "to_folder/store/"):
            with pytest.raises(StorageError, match=r"names no file inside.*is not entered"):
                list(walk(prefix))


def test_unfinished_and_lock_files_are_not_listed(local: Store, tmp_path: Path) -> None:
    local.replace("key", b"2", local.put("key", b"1"))
    (tmp_path / "store" / ".celebvision-0123").write_bytes(b"half")
    assert keys(local) == ["key"]


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_however_many_names_are_sorted_at_once_the_order_is_that_of_keys(
    local: Store, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celebvision.storage.local.SORTED_AT_ONCE", at_once)
    rng = random.Random(0)
    names = {"".join(rng.choices("a./\uffff\U0001f600", k=4)).strip("./").replace("/", "_") for _ in range(300)}
    expected = sorted(f"folder/{name}" + "/inside" * rng.choice([0, 1]) for name in names if name)
    for key in rng.sample(expected, len(expected)):
        local.put(key, b"")
    assert keys(local) == expected
    assert keys(local, "folder/a") == [key for key in expected if key.startswith("folder/a")]


def test_a_name_that_is_not_utf8_is_told(local: Store, tmp_path: Path) -> None:
    local.put("key", b"")
    Path(os.fsdecode(os.fsencode(tmp_path / "store") + b"/\xff.jpg")).write_bytes(b"")
    with pytest.raises(StorageError, match=r"xff.jpg.*rename it"):
        keys(local)


def test_a_full_disk_leaves_the_old_object_and_no_litter(
    local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.put("key", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"key: No space left"):
        local.put("key", b"new")
    assert local.get("key") == b"old"
    assert os.listdir(tmp_path / "store") == ["key"]


def test_a_reader_sees_the_old_or_the_new_never_a_part(local: Store) -> None:
    whole = [bytes([letter]) * 200_000 for letter in b"ab"]
    local.put("key", whole[0])
    done = threading.Event()

    def write() -> None:
        for turn in range(20):
            local.put("key", whole[turn % 2])
        done.set()

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write)
        while not done.is_set() and not written.done():
            assert local.get("key") in whole
        written.result()


def test_of_sixteen_creators_one_wins(local: Store) -> None:
    start = threading.Barrier(16, timeout=30)

    def create(number: int) -> bool:
        start.wait()
        try:
            local.create("key", str(number).encode())
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(create, range(16)))
    assert won.count(True) == 1
    assert local.get("key") == str(won.index(True)).encode()


def test_counting_with_replace_loses_no_count(local: Store) -> None:
    local.put("count", b"1000")

    def add_five() -> None:
        added = 0
        while added < 5:
            stat = local.stat("count")
            number = int(local.get("count")) + 1
            try:
                local.replace("count", str(number).encode(), stat.etag)
            except Conflict:
                continue
            added += 1

    with ThreadPoolExecutor(8) as pool:
        for finished in [pool.submit(add_five) for _ in range(8)]:
            finished.result()
    assert local.get("count") == b"1040"


def test_what_a_killed_writer_left_is_swept_up_and_nothing_else(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("run/parts/a", b"a")
    store.put("other/b", b"b")
    for folder in ("run/parts", "run", "other"):
        (tmp_path / folder / f"{HIDDEN}torn").write_bytes(b"to")
    store.sweep("run")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [f"other/{HIDDEN}torn", "other/b", "run/parts/a"]
