"""torchvision's CelebA in a `DataLoader`, as documentation shows it."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader
from torchvision.datasets import CelebA

from tests.benchmarks.peers.feed import BATCH, MALE, WORKERS, Feed, collate, feed_of, tell


class Faces(CelebA):
    """torchvision's, of faces drawn by code: it would look for the original's checksums."""

    def _check_integrity(self) -> bool:
        return True


class Decoded(Faces):
    """The same, with our decoder."""

    feed: Feed

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.feed.pixels(self.feed.read(self.filename[index])), int(self.attr[index, MALE])


def main() -> None:
    feed = feed_of()
    root = feed.made
    root.mkdir(exist_ok=True)
    if not (root / "celeba").exists():
        (root / "celeba").symlink_to(feed.original)  # torchvision wants this name
    if feed.tuned:
        faces: Faces = Decoded(str(root), split="train", target_type="attr")
        faces.feed = feed  # type: ignore[attr-defined]
    else:
        faces = Faces(str(root), split="train", target_type="attr", transform=feed.transform)
    loader = DataLoader(
        faces,
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=feed.tuned,
        collate_fn=collate if feed.tuned else None,
    )
    tell(lambda epoch: loader)


if __name__ == "__main__":
    main()
