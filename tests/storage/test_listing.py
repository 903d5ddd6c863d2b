"""A listing gives every key once, in order, whatever the names are; it asks for much at a time and little in vain."""

import itertools
import random
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celebvision.storage import listing, open_store, s3
from celebvision.storage.listing import Ask


class Bucket:
    """Answers as S3's ListObjectsV2 does, from `names`, and keeps what it was asked."""

    def __init__(self, names: list[str], page_keys: int = 1000) -> None:
        self.names, self.page_keys, self.asked = sorted(set(names)), page_keys, list[Ask]()

    @property
    def pages(self) -> int:
        return -(-len(self.names) // self.page_keys)

    def __call__(self, ask: Ask) -> dict[str, Any]:
        assert all(len(word.encode()) <= 1024 for word in (ask.after, ask.token))  # S3 knows no longer key
        self.asked.append(ask)
        after = ask.token or ask.after
        start = max(bisect_right(self.names, after) if after else 0, bisect_left(self.names, ask.prefix))
        behind = self.names[start : start + self.page_keys + 1]
        behind = [name for name in behind if name.startswith(ask.prefix)]
        page = behind[: self.page_keys]
        answer: dict[str, Any] = {"Contents": [{"Key": name} for name in page]} if page else {}
        return answer | ({"NextContinuationToken": page[-1]} if len(behind) > len(page) else {})


class InRounds:
    """In place of a pool of threads: what was asked for is answered when somebody waits, all of it as one round."""

    def __init__(self, *_: object) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.rounds = 0

    def submit(self, fetch: Callable[[Ask], Any], ask: Ask) -> Future[Any]:
        answer: Future[Any] = Future()
        self.waiting.append(lambda: answer.set_result(fetch(ask)))
        return answer

    def wait(self, *_: object, **__: object) -> None:
        waiting, self.waiting = self.waiting, []
        self.rounds += 1
        for answer in waiting:
            answer()

    def shutdown(self, **_: object) -> None: ...


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> InRounds:
    pool = InRounds()
    monkeypatch.setattr(listing, "ThreadPoolExecutor", lambda *_: pool)
    monkeypatch.setattr(listing, "wait", pool.wait)
    return pool


def names_of(bucket: Callable[[Ask], dict[str, Any]], prefix: str = "") -> list[str]:
    return [entry["Key"] for entry in listing.in_order(prefix, bucket)]


characters = st.characters(exclude_categories=["Cs"])  # all that UTF-8 can hold
alike = st.text("ab/0189-é\uffff😀\x01", min_size=1, max_size=6)
folders = st.tuples(alike, st.integers(0, 300)).map(lambda part: f"{part[0]}/{part[1]:03}")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(alike, folders, st.text(characters, min_size=1, max_size=8)), max_size=150),
    st.integers(1, 9),
    st.sampled_from(["", "a", "a/", "é", "\uffff"]),
)
def test_no_key_is_lost_or_doubled_whatever_the_names_are(names: list[str], page_keys: int, prefix: str) -> None:
    bucket = Bucket(names, page_keys)
    assert names_of(bucket, prefix) == [name for name in bucket.names if name.startswith(prefix)]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_no_key_is_lost_where_a_bucket_is_dense(seed: int, page_keys: int) -> None:
    draw = random.Random(seed)
    names = [
        f"{draw.choice(['a', 'b/', 'é', ''])}{draw.randrange(10 ** draw.randint(1, 5)):0{draw.randint(1, 5)}}"
        for _ in range(400)
    ]
    bucket = Bucket(names, page_keys)
    assert names_of(bucket) == bucket.names


SHAPES = {
    "as CelebA": [f"img_align_celeba/{number:06}.jpg" for number in range(1, 202_600)],
    "nested folders": [f"photos/{folder:03}/{number:04}.jpg" for folder in range(150) for number in range(700)],
    "cameras": [f"{user * 7919:06x}/IMG_{number:04}.JPG" for user in range(40) for number in range(2500)],
    "hashes": [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}.jpg" for number in range(100_000)],
    "tiny folders": [f"{folder:05}/{number}.jpg" for folder in range(20_000) for number in range(5)],
    "not padded": [f"{number}.jpg" for number in range(100_000)],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_dense_bucket_is_listed_at_many_places_at_once_with_few_requests_in_vain(
    shape: str, rounds: InRounds
) -> None:
    bucket = Bucket(SHAPES[shape])
    assert names_of(bucket) == bucket.names
    assert len(bucket.asked) <= 2.5 * bucket.pages
    assert rounds.rounds <= bucket.pages / 2  # one after the other it would be one a page


def test_one_flat_folder_as_celeba_s_is_nearly_all_parallel(rounds: InRounds) -> None:
    bucket = Bucket(SHAPES["as CelebA"])
    assert names_of(bucket) == bucket.names
    assert len(bucket.asked) <= 1.2 * bucket.pages
    assert rounds.rounds <= bucket.pages / 8


def test_keys_far_apart_cost_no_more_than_two_requests_a_page(rounds: InRounds) -> None:
    draw = random.Random(0)
    names = [f"{''.join(draw.choices('abcdefghijklmnopqrstuvwxyz', k=20))}/{n:09}.jpg" for n in range(3000)]
    names += [f"split=train/class={c:04}/n{c:08}_{n:05}.JPEG" for c in range(30) for n in range(100)]
    bucket = Bucket(names, page_keys=100)
    assert names_of(bucket) == bucket.names
    assert len(bucket.asked) <= 2 * bucket.pages + listing.THREADS


def test_a_page_is_one_request(rounds: InRounds) -> None:
    for count in (0, 1, 1000):
        bucket = Bucket([f"{number:04}" for number in range(count)])
        assert names_of(bucket) == bucket.names
        assert len(bucket.asked) == 1


def test_requests_are_on_their_way_at_the_same_time() -> None:
    both_asked, call = threading.Barrier(2, timeout=30), itertools.count()
    bucket = Bucket([f"{number:04}" for number in range(1000)], page_keys=10)

    def fetch(ask: Ask) -> dict[str, Any]:
        if next(call) in (1, 2):
            both_asked.wait()  # breaks if they come one after the other
        return bucket(ask)

    assert names_of(fetch) == bucket.names


def test_only_so_much_is_held_before_it_is_read(rounds: InRounds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "AHEAD_PAGES", 20)
    bucket = Bucket([f"{number:05}" for number in range(20_000)], page_keys=10)
    ahead = 0
    for read, _ in enumerate(listing.in_order("", bucket), start=1):
        ahead = max(ahead, len(bucket.asked) - read // 10)
    in_vain = len(bucket.asked) - bucket.pages
    assert 10 <= ahead <= 20 + in_vain + 1
    assert in_vain <= bucket.pages / 4


def test_a_service_that_ignores_where_to_start_repeats_no_key() -> None:
    bucket = Bucket(["1", "2", *(f"{folder}/{number:02}" for folder in "ab" for number in range(30)), "b0", "c"], 7)
    assert names_of(lambda ask: bucket(replace(ask, after=""))) == bucket.names


def test_a_page_without_keys_is_not_the_end() -> None:
    bucket = Bucket([f"{number:02}" for number in range(30)], page_keys=5)

    def fetch(ask: Ask) -> dict[str, Any]:
        if not ask.token:  # as Ceph may do, where it skipped much in one go
            return {"NextContinuationToken": ask.after or "00"} | ({} if ask.after else {"Contents": [{"Key": "00"}]})
        return bucket(ask)

    assert names_of(fetch) == bucket.names


def test_what_goes_wrong_is_raised_and_nothing_is_asked_any_more() -> None:
    def fetch(ask: Ask) -> dict[str, Any]:
        raise OSError("no storage")

    with pytest.raises(OSError, match="no storage"):
        names_of(fetch)


@pytest.mark.parametrize("ahead_pages", [1, 5, 128])
def test_pages_of_a_service_join_to_one_ordered_list(
    bucket: str, ahead_pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PAGE_KEYS", 7)
    monkeypatch.setattr(listing, "AHEAD_PAGES", ahead_pages)
    draw = random.Random(0)
    names = sorted({"/".join(draw.choices("ab!-.0é+ &\x01", k=draw.randint(1, 4))) for _ in range(150)})
    store = open_store(bucket)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b""), names))
    for prefix in ("", "a", "a/", "b/!", "zz"):
        found = [stat.key for stat in store.list(prefix)]
        assert found == [name for name in names if name.startswith(prefix)]
