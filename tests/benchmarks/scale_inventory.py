"""An inventory of made-up keys from a lister in this process, which answers as S3 does after a request's time."""

from __future__ import annotations

import argparse
import json
import math
import time
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, overload

from celebvision.batch.listing import Listing
from celebvision.batch.record import Run
from celebvision.config import ClassifySettings
from celebvision.storage import open_store, s3

LATENCY_S = 0.02
PAGE = 1000
SIZE = 15_000  # bytes of each object
CHANGED = datetime(2026, 1, 1, tzinfo=UTC)


class Names(Sequence[str]):
    """Sorted names, none of which is held."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(self.count))]
        return f"faces/{at // 1000:06}/{at % 1000:03}.jpg"


class Lister:
    """Stands for boto3's client."""

    def __init__(self, count: int) -> None:
        self.names, self.requests = Names(count), 0

    def list_objects_v2(self, **words: Any) -> dict[str, Any]:
        self.requests += 1
        time.sleep(LATENCY_S)
        after = words.get("ContinuationToken") or words.get("StartAfter") or ""
        first = bisect_right(self.names, after)
        entries = [
            {"Key": name, "Size": SIZE, "ETag": '"e"', "LastModified": CHANGED}
            for name in self.names[first : first + PAGE]
        ]
        answer: dict[str, Any] = {"Contents": entries} if entries else {}
        return answer | ({"NextContinuationToken": entries[-1]["Key"]} if first + PAGE < len(self.names) else {})


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--keys", type=int, required=True)
    words.add_argument("--output", required=True)
    given = words.parse_args()
    lister = Lister(given.keys)
    s3.client = lambda: lister  # type: ignore[assignment]
    settings = ClassifySettings(input="s3://made", output=given.output, model="cnn", registry=given.output)
    run = Run("scale", "classify", "listing", "", {}, {}, "")
    started = time.monotonic()
    with Listing(settings, open_store(given.output), run, []) as listing:
        listing.wait(math.inf)
    seconds = time.monotonic() - started
    if listing.counts["keys"] != given.keys:
        raise RuntimeError(f"{listing.counts['keys']} keys in the inventory of {given.keys}")
    status = Path(
        "/proc/self/status"
    ).read_text()  # getrusage would tell of the process too that this one was forked from
    peak = 1024 * int(status.partition("VmHWM:")[2].split()[0])
    print(json.dumps({"seconds": seconds, "requests": lister.requests, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
