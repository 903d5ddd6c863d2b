"""What a job says while it works, on stderr: to people, or as lines of JSON to whatever collects them."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console

INTERVAL_S = 60.0  # between lines of one kind of failure
COUNTED, COUNTED_BY = "celebvision_failures_total", ("verb", "model", "stage", "reason")  # by CloudWatch
SHOWN = 300  # characters of a failure's key and of its message: both may be of any length

console = Console(stderr=True, highlight=False, emoji=False)
log = logging.getLogger("celebvision")


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what is stderr then: a progress bar takes its place meanwhile, so that lines stand above it."""

    def __init__(self) -> None:
        super().__init__()
        self.as_json, self.about = False, dict[str, str]()
        self.namespace: str | None = None
        self.said: dict[tuple[str, str], float] = {}  # when, by logger and kind

    def filter(self, record: logging.LogRecord) -> bool:
        """What has a `kind` is said at most once each interval."""
        if not (kind := getattr(record, "kind", "")):
            return True
        before = self.said.get((record.name, kind), -INTERVAL_S)
        if record.created - before < INTERVAL_S:
            return False
        self.said[record.name, kind] = record.created
        return True

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        if not self.as_json:
            return super().format(record)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self.about,
            **getattr(record, "fields", {}),
        }
        if self.namespace and line.keys() >= {"count", *COUNTED_BY}:
            counts = {"Name": COUNTED, "Unit": "Count"}
            metrics = {"Namespace": self.namespace, "Dimensions": [list(COUNTED_BY)], "Metrics": [counts]}
            line["_aws"] = {"Timestamp": round(1000 * record.created), "CloudWatchMetrics": [metrics]}
            line[COUNTED] = line["count"]
        if record.exc_info:
            line["traceback"] = logging.Formatter().formatException(record.exc_info)
        return json.dumps(line, default=str)


_stderr = _Stderr()
_stderr.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))


def configure(as_json: bool, namespace: str | None = None) -> None:
    """Let this process say all to stderr, as lines of JSON or for people.

    Of lines of JSON, those that tell of failures are metrics of that namespace in CloudWatch's embedded metric format,
    where there is one: a log group then counts them.
    """
    _stderr.as_json, _stderr.namespace, _stderr.said = as_json, namespace, {}
    root = logging.getLogger()
    if _stderr not in root.handlers:
        root.addHandler(_stderr)
    log.setLevel(logging.INFO if as_json else logging.NOTSET)
    logging.getLogger("celebvision.storage").setLevel(logging.WARNING)  # it would tell of each request sent again


@contextmanager
def about(**words: str) -> Iterator[None]:
    """Which job it is, in each line of JSON until the block ends: its verb, model, output and run_id."""
    before = _stderr.about
    _stderr.about = {**before, **words}
    try:
        yield
    finally:
        _stderr.about = before


def say(words: str, level: int = logging.INFO, **fields: Any) -> None:
    """Tell people these words; where JSON is wanted, a line with these fields."""
    if _stderr.as_json:
        log.log(level, words, extra={"fields": fields})
    else:
        console.print(f"warning: {words}" if level == logging.WARNING else words, markup=False, soft_wrap=True)


def says_json() -> bool:
    """Whether lines of JSON are wanted."""
    return _stderr.as_json


class FailureLog:
    """Says what fails: of each kind one example, and how many more, at most a line each interval."""

    def __init__(self) -> None:
        self.waiting: Counter[str] = Counter()  # failures that no line has told of, by kind
        self.examples: dict[str, tuple[str, str]] = {}
        self.said: dict[str, float] = {}  # when

    def tell(self, counts: Mapping[str, int], examples: Mapping[str, tuple[str, str]]) -> None:
        """So many more have failed, by stage and error, a blank between; and of each kind a key, and its message."""
        self.waiting.update(counts)
        self.examples.update(examples)
        now = time.monotonic()
        for kind in counts:
            if now - self.said.get(kind, -INTERVAL_S) >= INTERVAL_S:
                self.said[kind] = now
                self._say(kind)

    def rest(self) -> None:
        """What has not been told of yet: for the end."""
        for kind in +self.waiting:
            self._say(kind)

    def _say(self, kind: str) -> None:
        (stage, _, error), (key, message), count = kind.partition(" "), self.examples[kind], self.waiting.pop(kind)
        more = f" (and {count - 1:,} more)" if count > 1 else ""
        fields = {"stage": stage, "reason": error, "key": key, "count": count}
        words = f"{stage}: {error}: {printable(key)}: {printable(message)}{more}"
        log.warning("%s", words, extra={"fields": fields})


def printable(words: str, most: int = SHOWN) -> str:
    """On one line, without what moves a terminal's cursor, and not too long: a key may be anything."""
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in words[:most])
    return shown if len(words) <= most else f"{shown}…"


def duration(seconds: float) -> str:
    """As people say it, in two units at most: 5 s, 2 min 05 s, 1 h 02 min."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
