"""MosaicML Streaming: its shards, its dataset in a `DataLoader`, as documentation shows them."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image
from streaming import MDSWriter, StreamingDataset
from torch.utils.data import DataLoader

from tests.benchmarks.peers.feed import BATCH, WORKERS, Feed, collate, feed_of, tell


class Faces(StreamingDataset):  # type: ignore[misc]  # its package has no types here
    def __init__(self, feed: Feed) -> None:
        super().__init__(local=str(feed.made), shuffle=True, batch_size=BATCH)
        self.feed = feed

    def __getitem__(self, index: int) -> tuple[Any, int]:
        row = super().__getitem__(index)
        if self.feed.tuned:
            return self.feed.pixels(row["image"]), row["label"]
        return self.feed.transform(Image.open(io.BytesIO(row["image"]))), row["label"]


def write(feed: Feed) -> None:
    part = feed.made.with_suffix(".part")
    with MDSWriter(out=str(part), columns={"image": "bytes", "label": "int"}) as writer:
        for name, label in feed.rows():
            writer.write({"image": feed.read(name), "label": label})
    part.rename(feed.made)


def main() -> None:
    feed = feed_of()
    if not feed.made.exists():
        write(feed)
    collated = collate if feed.tuned else None
    loader = DataLoader(Faces(feed), batch_size=BATCH, drop_last=True, num_workers=WORKERS, collate_fn=collated)
    tell(lambda epoch: loader)


if __name__ == "__main__":
    main()
