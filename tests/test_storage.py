"""What storage promises: whole objects, keys taken as they are, lists in order, one winner, and errors that help."""

import io
import os
import pickle
import random
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from stores import keys

from celebvision.storage import (
    Conflict,
    Denied,
    NotFound,
    Store,
    arrow_filesystem,
    client,
    join,
    open_bucket,
    open_store,
    s3,
)
from celebvision.storage import store as store_module
from celebvision.storage.local import LocalStore


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of either kind, a folder deep in its place."""
    return open_store(join(str(tmp_path) if request.param == "local" else request.getfixturevalue("bucket"), "a", "b"))


# ---- the same on S3 and in a folder ----


def test_what_is_put_comes_back_whole_with_its_stat(store: Store) -> None:
    etag = store.put("c/d.bin", b"first")
    assert store.get("c/d.bin") == b"first"
    stat = store.stat("c/d.bin")
    assert (stat.key, stat.size, stat.etag) == ("c/d.bin", 5, etag)
    assert stat.last_modified.tzinfo is not None
    assert list(store.list()) == [stat]
    assert '"' not in etag


def test_another_object_under_the_key_has_another_etag(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # as fast as it gets: locally many within one tick of the clock
    assert len({store.put("key", str(number).encode()) for number in range(10, 30)}) == 20


@pytest.mark.parametrize("read", ["get", "stat", "open", "get_range", "download"])
def test_a_missing_key_is_not_found_and_named(store: Store, read: str, tmp_path: Path) -> None:
    rest: dict[str, tuple[Any, ...]] = {"get_range": (0, 1), "download": (tmp_path / "copy",)}
    with pytest.raises(NotFound, match=r"a/b/not/there"):
        getattr(store, read)("not/there", *rest.get(read, ()))
    assert not (tmp_path / "copy").exists()


def test_has_tells_what_is_there(store: Store) -> None:
    store.put("a/b", b"")
    assert store.has("a/b")
    assert not store.has("a")
    assert not store.has("a/b/c")


def test_a_range_ends_where_the_object_ends(store: Store) -> None:
    store.put("key", b"0123456789")
    ranges = {(0, 3): b"012", (7, 99): b"789", (10, 5): b"", (50, 5): b"", (4, 0): b""}
    assert {span: store.get_range("key", *span) for span in ranges} == ranges
    with pytest.raises(ValueError, match="negative"):
        store.get_range("key", -5, 4)


def test_create_never_overwrites(store: Store) -> None:
    store.create("key", b"first")
    with pytest.raises(Conflict, match="key"):
        store.create("key", b"second")
    assert store.get("key") == b"first"


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


def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    store.put("folder/key", b"")
    for key in ("folder/key", "folder/key", "folder", "no/such/key"):
        store.delete(key)
    assert keys(store) == []


def test_a_folder_is_deleted_while_it_is_listed_and_nothing_beside_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "DELETED_AT_ONCE", 3)
    monkeypatch.setattr(s3, "PAGE_KEYS", 2)
    for key in [*(f"gone/{number}" for number in range(8)), "gone/deep/8", "gone-not", "a"]:
        store.put(key, b"")
    store.delete_all(stat.key for stat in store.list("gone/"))
    assert [stat.key for stat in store.list()] == ["a", "gone-not"]
    store.delete_all(["gone/0", "a"])
    assert [stat.key for stat in store.list()] == ["gone-not"]


def test_many_are_deleted_at_a_time_and_what_fails_is_raised(tmp_path: Path) -> None:
    together = threading.Barrier(LocalStore.in_flight, timeout=30)

    class Refusing(LocalStore):
        def delete(self, key: str) -> None:
            together.wait()
            if key == "0":
                raise Denied(key)

    with pytest.raises(Denied, match="0"):
        Refusing(str(tmp_path)).delete_all(map(str, range(LocalStore.in_flight)))


def test_a_listing_is_in_the_order_of_utf8_bytes(store: Store) -> None:
    names = [
        "a.jpg",
        "a/b.jpg",
        "a/b/c.jpg",
        "a0.jpg",
        "a-/b.jpg",
        "A.jpg",
        "é/1.jpg",
        "z/1.jpg",
        "😀.jpg",
        "\uffee.jpg",
    ]
    for name in random.Random(0).sample(names, len(names)):
        store.put(name, b"1")
    assert keys(store) == sorted(names, key=str.encode)


def test_a_prefix_is_letters_and_not_a_folder(store: Store) -> None:
    for key in ("p/1", "p/2/3", "p2/4", "q"):
        store.put(key, b"")
    assert keys(store, "p") == ["p/1", "p/2/3", "p2/4"]
    assert keys(store, "p/") == ["p/1", "p/2/3"]
    assert keys(store, "p/2") == ["p/2/3"]
    assert keys(store, "p/2/3") == ["p/2/3"]
    assert keys(store, "nothing/here") == []


def test_folders_are_those_that_hold_something(store: Store) -> None:
    for key in ("a/1", "a-b/c/2", "d", "runs/x/run.json", "runs/y/z/run.json", "gone/1"):
        store.put(key, b"")
    store.delete("gone/1")
    assert store.folders() == ["a", "a-b", "runs"]
    assert store.folders("runs") == store.folders("runs/") == ["x", "y"]
    assert store.folders("none") == []


def test_a_store_travels_as_its_uri(store: Store) -> None:
    store.put("key", b"here")
    assert len(pickle.dumps(store)) < 500
    assert pickle.loads(pickle.dumps(store)).get("key") == b"here"


def test_large_files_go_up_and_come_down_whole(store: Store, tmp_path: Path) -> None:
    data = random.Random(0).randbytes(17 << 20)  # S3: three parts
    (tmp_path / "here").write_bytes(data)
    store.upload(tmp_path / "here", "there")
    assert store.stat("there").size == len(data)
    store.download("there", tmp_path / "new" / "back")
    assert (tmp_path / "new" / "back").read_bytes() == data
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["back"]


def test_a_file_that_is_not_there_cannot_be_uploaded(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="absent"):
        store.upload(tmp_path / "absent", "key")


def test_a_zip_is_read_where_it_lies(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "OPEN_BUFFER_BYTES", 1000)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for number in range(20):
            archive.writestr(f"{number}.jpg", bytes([number]) * 700)
    store.put("pictures.zip", made.getvalue())
    with store.open("pictures.zip") as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.read("13.jpg") == bytes([13]) * 700


# ---- URIs ----


@pytest.mark.parametrize(
    "uri", ["", "s3://", "s3:/bucket", "s3:///key", "s3://b/key", "gs://bucket", "file:///tmp", "a\0b"]
)
def test_a_wrong_uri_is_refused_with_what_would_be_right(uri: str) -> None:
    with pytest.raises(ValueError, match=r"s3://bucket/prefix"):
        open_store(uri)


def test_joining_puts_one_slash_between() -> None:
    assert join("s3://b", "runs", "x") == join("s3://b/", "runs/", "/x") == "s3://b/runs/x"
    assert join("/data", "a") == "/data/a"
    assert join("s3://b/p") == "s3://b/p"


def test_a_folder_in_a_bucket_is_not_its_sibling(bucket: str) -> None:
    whole = open_store(bucket)
    for key in ("p/1.jpg", "p/", "p2/2.jpg", "p.jpg"):
        whole.put(key, b"")
    for uri in (f"{bucket}/p", f"{bucket}/p/"):
        store, prefix = open_bucket(uri)
        assert (store.uri, prefix) == (bucket, "p/")
        assert keys(store, prefix) == ["p/", "p/1.jpg"]
        assert keys(open_store(uri)) == ["1.jpg"]  # the marker 'p/' is the folder itself, from inside
    assert open_bucket(bucket)[1] == ""


def test_a_local_folder_is_its_own_bucket(tmp_path: Path) -> None:
    store, prefix = open_bucket(str(tmp_path))
    assert (store.uri, prefix) == (str(tmp_path.resolve()), "")


def test_a_relative_path_means_the_same_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("here")
    store.put("key", b"found")
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(store)).get("key") == b"found"


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_arrow_reads_what_we_write_and_the_other_way(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checksums = "AWS_REQUEST_CHECKSUM_CALCULATION"
    monkeypatch.setenv(checksums, "")  # so that it is restored
    monkeypatch.delenv(checksums)
    uri = join(str(tmp_path) if kind == "local" else request.getfixturevalue("bucket"), "a folder")
    open_store(uri).put("ours", b"1")
    sent = pickle.dumps(arrow_filesystem(uri))
    monkeypatch.delenv(checksums, raising=False)  # as in a worker that was started before
    system, path = pickle.loads(sent)
    assert os.environ.get(checksums) == (None if kind == "local" else "when_required")
    with system.open_input_stream(f"{path}/ours") as stream:
        assert stream.read() == b"1"
    with system.open_output_stream(f"{path}/theirs") as stream:
        stream.write(b"2")
    assert open_store(uri).get("theirs") == b"2"


# ---- S3 ----


def test_any_name_is_a_key(bucket: str, odd_keys: list[str]) -> None:
    store = open_store(bucket)
    for key in odd_keys:
        store.put(key, key.encode())
    assert keys(store) == sorted(odd_keys)
    assert [store.get(key).decode() for key in odd_keys] == odd_keys
    assert [store.stat(key).size for key in odd_keys] == [len(key.encode()) for key in odd_keys]
    for key in odd_keys:
        store.delete(key)
    assert keys(store) == []


def test_the_empty_key_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="names no"):
        store.put("", b"")


def test_a_missing_bucket_is_named(s3_endpoint: str) -> None:
    for use in (lambda store: store.get("key"), lambda store: list(store.list()), lambda store: store.put("key", b"")):
        with pytest.raises(NotFound, match=r"s3://no-such-bucket.*bucket does not exist"):
            use(open_store("s3://no-such-bucket"))


def test_threads_that_start_together_share_one_client(s3_endpoint: str) -> None:
    client.forget_client()
    with ThreadPoolExecutor(16) as pool:
        assert len({id(made) for made in pool.map(lambda _: client.client(), range(16))}) == 1


def test_a_forked_child_makes_its_own_client(s3_endpoint: str) -> None:
    mine = id(client.client())
    with client._client_lock:  # as another thread of the parent may hold it at that moment
        if (child := os.fork()) == 0:
            os._exit(0 if client._new_client.cache_info().currsize == 0 and id(client.client()) != mine else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_checksums_that_only_aws_takes_stay_with_aws(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.client().meta.config.request_checksum_calculation == "when_required"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION", raising=False)  # which Arrow's file system sets
    client.forget_client()
    assert client.client().meta.config.request_checksum_calculation == "when_supported"
    client.forget_client()
    assert not client.is_aws("https://s3.amazonaws.com.example.org")
