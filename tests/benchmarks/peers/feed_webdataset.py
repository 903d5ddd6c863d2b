"""WebDataset: tar files of five hundred pictures, its own shuffle, and its loader, as documentation shows them."""

from __future__ import annotations

from typing import Any

import webdataset

from tests.benchmarks.peers.feed import BATCH, WORKERS, Feed, collate, feed_of, tell

ROWS = 500  # of a tar file, and of the shuffle's buffer


def write(feed: Feed) -> None:
    part = feed.made.with_suffix(".part")
    part.mkdir()
    with webdataset.ShardWriter(f"{part}/train-%05d.tar", maxcount=ROWS, verbose=0) as writer:
        for name, label in feed.rows():
            writer.write({"__key__": name.partition(".")[0], "jpg": feed.read(name), "cls": label})
    part.rename(feed.made)


def main() -> None:
    feed = feed_of()
    if not feed.made.exists():
        write(feed)
    tars = sorted(str(path) for path in feed.made.glob("*.tar"))
    rows = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(ROWS)
    if feed.tuned:
        rows = rows.to_tuple("jpg", "cls").map_tuple(feed.pixels, int).batched(BATCH, collation_fn=collate)
    else:
        rows = rows.decode("pil").to_tuple("jpg", "cls").map_tuple(feed.transform, _as_it_is).batched(BATCH)
    loader = webdataset.WebLoader(rows, batch_size=None, num_workers=WORKERS)
    tell(lambda epoch: loader)


def _as_it_is(label: Any) -> Any:
    return label


if __name__ == "__main__":
    main()
