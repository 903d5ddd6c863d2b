"""What storage promises where a real service checks it: signatures, conditions, odd keys, long listings."""

import os
import pickle
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from celebvision.storage import (
    Conflict,
    Denied,
    NotFound,
    StorageError,
    Store,
    arrow_filesystem,
    client,
    listing,
    open_store,
    s3,
)


@pytest.fixture
def store(ceph_bucket: str) -> Store:
    return open_store(ceph_bucket)


def winners(call: Callable[[int], object]) -> list[int]:
    """Which of 16 threads that start together come through without `Conflict`."""
    start = threading.Barrier(16, timeout=30)

    def run(number: int) -> bool:
        start.wait()
        try:
            call(number)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        return [number for number, won in enumerate(pool.map(run, range(16))) if won]


def test_of_sixteen_creators_one_wins(store: Store) -> None:
    for turn in range(10):
        (winner,) = winners(lambda number, key=f"key-{turn}": store.create(key, str(number).encode()))  # type: ignore[misc]
        assert store.get(f"key-{turn}") == str(winner).encode()


def test_replace_holds_only_for_the_etag_that_was_read(store: Store) -> None:
    first = store.put("key", b"first")
    second = store.replace("key", b"second", first)
    assert store.stat("key").etag == second
    with pytest.raises(Conflict):
        store.replace("key", b"third", first)
    assert store.get("key") == b"second"
    store.delete("key")
    with pytest.raises(Conflict):
        store.replace("key", b"third", second)
    with pytest.raises(NotFound):
        store.get("key")


def test_of_sixteen_replacers_one_wins(store: Store) -> None:
    etag = store.put("key", b"start")
    (winner,) = winners(lambda number: store.replace("key", str(number).encode(), etag))
    assert store.get("key") == str(winner).encode()


def test_any_name_is_a_key(store: Store, odd_keys: list[str]) -> None:
    odd_keys = [*odd_keys, "a\nb.jpg"]  # which the service in memory cannot hold
    for key in odd_keys:
        store.put(key, key.encode())
    assert [stat.key for stat in store.list()] == sorted(odd_keys)
    assert [store.get(key).decode() for key in odd_keys] == odd_keys
    assert [store.stat(key).size for key in odd_keys] == [len(key.encode()) for key in odd_keys]
    store.delete_all(stat.key for stat in store.list())
    assert list(store.list()) == []


@pytest.mark.parametrize("ahead_pages", [1, 128])
def test_pages_join_to_one_ordered_list(store: Store, ahead_pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PAGE_KEYS", 7)
    monkeypatch.setattr(listing, "AHEAD_PAGES", ahead_pages)
    draw = random.Random(0)
    names = sorted({"/".join(draw.choices("ab!-.0é+ ", k=draw.randint(1, 4))) for _ in range(300)})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b""), names))
    assert [stat.key for stat in store.list()] == names
    for prefix in ("a", "a/", "b/!", "zz"):
        assert [stat.key for stat in store.list(prefix)] == [name for name in names if name.startswith(prefix)]
    assert store.folders("a") == sorted(
        {name.split("/")[1] for name in names if name.startswith("a/") and name.count("/") > 1}
    )


def test_a_range_ends_where_the_object_ends(store: Store) -> None:
    store.put("key", b"0123456789")
    ranges = {(0, 3): b"012", (7, 99): b"789", (10, 5): b"", (50, 5): b""}
    assert {span: store.get_range("key", *span) for span in ranges} == ranges


def test_large_files_go_up_and_come_down_whole(store: Store, tmp_path: Path) -> None:
    data = random.Random(0).randbytes(17 << 20)  # three parts
    (tmp_path / "here").write_bytes(data)
    store.upload(tmp_path / "here", "there")
    store.download("there", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    with store.open("there") as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_denied(store: Store, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    store.put("key", b"")
    with monkeypatch.context() as patch:
        patch.setenv(name, "not-the-right-one")
        client.forget_client()
        for use in (store.get, store.stat, lambda key: store.put(key, b""), lambda key: list(store.list(key))):
            with pytest.raises(Denied, match=r"s3://test-") as caught:
                use("key")
            assert "not-the-right-one" not in str(caught.value)
        with pytest.raises(Denied, match=name):
            store.get("key")
    client.forget_client()
    assert store.get("key") == b""


def test_a_missing_bucket_is_named(ceph: str) -> None:
    with pytest.raises(NotFound, match="bucket does not exist"):
        open_store("s3://no-such-bucket").get("key")


def test_a_key_that_is_too_long_is_refused(store: Store) -> None:
    with pytest.raises(StorageError, match=r"KeyTooLong|InvalidObjectName"):
        store.put("k" * 1100, b"")


def test_arrow_writes_what_we_read_and_the_other_way(ceph_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(0).randbytes(12 << 20)  # Arrow: parts of 10 MB
    sent = pickle.dumps(arrow_filesystem(f"{ceph_bucket}/check points"))
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION")  # as in a worker that was started before
    system, path = pickle.loads(sent)
    system.create_dir(path)
    with system.open_output_stream(f"{path}/theirs") as stream:
        stream.write(data)
    store = open_store(f"{ceph_bucket}/check points")
    assert store.get("theirs") == data
    store.put("ours", b"1")
    with system.open_input_stream(f"{path}/ours") as stream:
        assert stream.read() == b"1"
    system.delete_dir(path)
    assert list(store.list()) == []
