"""While Ray starts the listing leaves the driver's cores to it."""

import math
import time
from pathlib import Path

import pytest
from labelling import fill, wait_until

from celebvision.batch import listing
from celebvision.batch.listing import Listing
from celebvision.batch.record import Run
from celebvision.config import ClassifySettings
from celebvision.storage import open_store


def test_a_listing_gives_way_to_a_start_and_goes_on_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"input": str(tmp_path / "photos"), "output": str(tmp_path / "labels"), "registry": "/nowhere"}
    fill(places["input"], {f"{number:02}.jpg": b"12345" for number in range(12)})
    model = {"name": "cnn", "version": "1", "weights_sha256": ""}
    run = Run("20260101T000000Z-words", "classify", "listing", "", {}, model, "")
    monkeypatch.setattr(listing, "GIVE_WAY", 1e9)
    lists = Listing(ClassifySettings(**places, model="cnn", shard_keys=3), open_store(places["output"]), run, [])
    lists.give_way()
    with lists:
        wait_until(lambda: lists.listed == 3)  # a shard, which now waits
        time.sleep(0.3)
        assert (lists.listed, lists.stands()) == (3, ({"shards": 0, "keys": 0, "bytes": 0}, False))
        lists.free.set()
        lists.wait(math.inf)
        assert lists.stands() == ({"shards": 4, "keys": 12, "bytes": 60}, True)
