"""The command with a lister that, behind so many pictures, waits for a while before each: SECONDS PICTURES WORDS …."""

import sys
import time
from collections.abc import Iterator
from typing import Any

from celebvision import cli
from celebvision.batch import listing
from celebvision.batch.sources import pictures
from celebvision.storage import Stat


def main(seconds: float, behind: int, words: list[str]) -> int:
    def slowly(*arguments: Any) -> Iterator[Stat]:
        for at, stat in enumerate(pictures(*arguments)):
            time.sleep(seconds if at >= behind else 0)
            yield stat

    listing.pictures = slowly  # type: ignore[assignment]
    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
