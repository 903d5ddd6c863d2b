"""The keys of a bucket in order, with many folders listed at a time and a bounded number of keys in memory.

S3 tells where a page starts only on the page before it. So one flat folder is listed page by page; but folders are
independent of each other, and where a listing turns out long and shows few folders, each is listed by itself.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

THREADS = 16
AHEAD_PAGES = 128  # of 1,000 keys; about 100 MB of them may wait to be read
FEW_FOLDERS = 20  # in a page: so few are worth a listing each, while of many small ones a page holds several


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: what lies under `prefix` behind the key `seen`, asked from the key `after` or from `token` on."""

    prefix: str
    seen: str = ""
    after: str = ""
    token: str = ""
    by_folder: bool = False


Entry = dict[str, Any]  # one of `Contents` in S3's answer: Key, Size, ETag, LastModified
Fetch = Callable[[Ask], dict[str, Any]]  # sends one request, returns S3's answer
Line = list[Any]  # what is still to come, in order: list[Entry], Ask, or the Future of an Ask's own line


def in_order(prefix: str, fetch: Fetch) -> Iterator[Entry]:
    """Every object whose key starts with `prefix`, ordered by the key's UTF-8 bytes."""
    pool = ThreadPoolExecutor(THREADS, "list")
    line: Line = [Ask(prefix)]
    try:
        while line:
            _look_ahead(line, lambda ask: pool.submit(_answer, ask, fetch))
            head = line.pop(0)
            if isinstance(head, Future):
                line[:0] = head.result()
            else:
                yield from head
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _look_ahead(line: Line, submit: Callable[[Ask], Future[Line]]) -> None:
    """Put each answer that has come in its request's place, and send the requests that are due."""
    for at in reversed(range(min(len(line), AHEAD_PAGES))):
        if isinstance(line[at], Future) and line[at].done():
            line[at : at + 1] = line[at].result()
    waiting = 0
    for at in range(min(len(line), AHEAD_PAGES)):
        if isinstance(line[at], Ask):
            line[at] = submit(line[at])
        waiting += isinstance(line[at], Future)
        if waiting == THREADS:
            break


def _answer(ask: Ask, fetch: Fetch) -> Line:
    """What one request finds: pages of keys, and the requests for the rest."""
    page = fetch(ask)
    keys = [entry for entry in page.get("Contents", ()) if entry["Key"] > ask.seen]
    found: list[tuple[str, Entry | Ask]] = [(entry["Key"], entry) for entry in keys]
    for folder in (entry["Prefix"] for entry in page.get("CommonPrefixes", ())):
        if ask.seen.startswith(folder):
            found.append((folder, Ask(folder, seen=ask.seen, after=ask.seen)))
        elif folder > ask.seen:
            found.append((folder, Ask(folder)))
    found.sort(key=lambda pair: pair[0])  # by code points: the same order as by UTF-8 bytes
    line: Line = []
    for are_asks, group in groupby((what for _, what in found), lambda what: isinstance(what, Ask)):
        together = list(group)
        line += together if are_asks else [together]
    if token := page.get("NextContinuationToken"):
        line.append(_rest(ask, token, [entry["Key"] for entry in keys]))
    return line


def _rest(ask: Ask, token: str, keys: list[str]) -> Ask:
    """How to go on behind a first page of `keys`: folder by folder where it shows few, else page by page."""
    inner = {key: key[len(ask.prefix) :] for key in keys}
    if ask.token or ask.by_folder or len({name.split("/")[0] for name in inner.values() if "/" in name}) > FEW_FOLDERS:
        return replace(ask, token=token)
    # not from the last key on: services differ on whether they then still name the folder that it lies in
    after = max((key for key, name in inner.items() if "/" not in name), default="")
    return Ask(ask.prefix, seen=max(keys, default=ask.seen), after=after, by_folder=True)
