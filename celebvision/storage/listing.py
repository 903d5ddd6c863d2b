"""The keys of a bucket in order, with many ranges of them listed at a time and a bounded number in memory.

S3 tells where a page starts only on the page before it, but it lists from any key on, be there an object of that name
or not. So what lies behind a page is cut at keys that we make up, and each range is listed by itself. Where to cut is a
guess from how dense the page was: a bad guess costs requests, never a key.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from math import prod
from operator import itemgetter
from typing import Any

THREADS = 16
AHEAD_PAGES = 128  # of 1,000 keys; about 100 MB of them may wait to be read
PIECE_PAGES = 4  # the nearest range's guessed length; the next are 2, 8, 64, 1024 times as long, and so on
GROWTH = 2  # by so much each step's growth outdoes the one before: a guess far too short is soon made good
CUTS = 10
DIGITS = 6  # characters of a made-up key behind what all keys of a page share
KEY_BYTES = 1024  # S3 takes no longer key


@dataclass(frozen=True, slots=True)
class Ask:
    """The keys under `prefix` behind `after`, up to and with `until` (or all), from `token` on if there is one."""

    prefix: str
    after: str = ""
    until: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class _Sent:
    ask: Ask
    answer: Future[dict[str, Any]]


Entry = dict[str, Any]  # one of `Contents` in S3's answer: Key, Size, ETag, LastModified
Fetch = Callable[[Ask], dict[str, Any]]  # sends one request, returns S3's answer
Item = list[Entry] | _Sent | Ask
_key = itemgetter("Key")


def in_order(prefix: str, fetch: Fetch) -> Iterator[Entry]:
    """Every object whose key starts with `prefix`, ordered by the key's UTF-8 bytes."""
    pool = ThreadPoolExecutor(THREADS, "list")
    line = _Line(Ask(prefix), lambda ask: pool.submit(fetch, ask))
    try:
        while line.items:
            line.send()
            if isinstance(head := line.items[0], list):
                del line.items[0]
                yield from head
            else:
                line.wait()
            line.place()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Line:
    """What is still to come, in order of keys: pages that are here, requests on their way, and ranges to ask for.

    As strings are compared by code points, their order is that of their UTF-8 bytes.
    """

    def __init__(self, first: Ask, submit: Callable[[Ask], Future[dict[str, Any]]]) -> None:
        self.items: list[Item] = [first]
        self.submit = submit
        self.width = THREADS // 4  # requests at a time: grows with each that was worth it, and shrinks with each other

    def send(self) -> None:
        """Ask for the nearest ranges, as many as there is room for; the first is always asked for."""
        flying = sum(isinstance(item, _Sent) for item in self.items)
        held = flying + sum(isinstance(item, list) for item in self.items)
        for at, item in enumerate(self.items):
            if flying >= self.width or (held >= AHEAD_PAGES and at > 0):
                break
            if isinstance(item, Ask):
                self.items[at] = _Sent(item, self.submit(item))
                flying, held = flying + 1, held + 1

    def wait(self) -> None:
        """Until some request is answered."""
        wait([item.answer for item in self.items if isinstance(item, _Sent)], return_when=FIRST_COMPLETED)

    def place(self) -> None:
        """Put each answer that has come in its request's place, with the ranges that are left to be asked for."""
        for at in reversed(range(len(self.items))):
            item = self.items[at]
            if isinstance(item, _Sent) and item.answer.done():
                self._place(at, item.ask, item.answer.result())

    def _place(self, at: int, ask: Ask, answer: dict[str, Any]) -> None:
        # what lies behind and is not asked for yet is planned anew: this answer knows better, and may reach into it
        behind, until = at + 1, ask.until
        while behind < len(self.items) and isinstance(following := self.items[behind], Ask):
            behind, until = behind + 1, following.until
        found: list[Entry] = answer.get("Contents", [])
        start = bisect_right(found, ask.after, key=_key)  # 0, but on a service that does not know StartAfter
        page = found[start : bisect_right(found, until, key=_key) if until else None]
        last = max(ask.after, found[-1]["Key"] if found else "")
        line: list[Item] = [page] if page else []
        if (token := answer.get("NextContinuationToken")) and not (until and last >= until):
            line += _cut(replace(ask, after=last, until=until, token=token), [entry["Key"] for entry in page])
        self.items[at:behind] = line
        # so that requests for what turns out empty are never more than those that were worth it, and THREADS
        self.width += 1 if 2 * len(page) >= len(found) else -1
        self.width = max(1, min(self.width, THREADS))


def _cut(rest: Ask, keys: list[str]) -> list[Ask]:
    """What is left behind a page of `keys`, in ranges: the nearest of about PIECE_PAGES pages, the others longer."""
    inner = [key[len(rest.prefix) :] for key in keys]
    line = [rest]
    if len(inner) > 1:
        for cut in _cuts(inner, rest.until[len(rest.prefix) :]):
            key = rest.prefix + cut
            if line[-1].after < key < (rest.until or "\U0010ffff") and len(key.encode()) <= KEY_BYTES:
                line[-1:] = [replace(line[-1], until=key), Ask(rest.prefix, after=key, until=rest.until)]
    return line


def _cuts(keys: list[str], until: str) -> Iterator[str]:
    """Made-up keys between a page of `keys` and `until`, by counting on from the page in longer and longer steps."""
    scale = _Scale(keys)
    first, last, end = scale.number(keys[0]), scale.number(keys[-1]), scale.number(until) if until else scale.end
    step, growth = (last - first) * PIECE_PAGES, GROWTH
    for _ in range(CUTS):
        if last + 2 * step > end:
            break
        last += step
        step, growth = step * growth, growth * GROWTH
        yield scale.text(last)


class _Scale:
    """Keys as numbers, so that one can count on from them: the character at each place is a digit.

    Digits are characters that keys of the page hold, so that a made-up key is as good as they are. What is the same in
    all keys of the page, and no digit, such as IMG_ or .jpg, stays the same; elsewhere what may stand is every
    character of the kinds that do stand there: where there is a 0 in all keys, 1 to 9 are to be expected.
    """

    def __init__(self, keys: list[str]) -> None:
        both = zip(keys[0], keys[-1], strict=False)
        places = next((place for place, (a, b) in enumerate(both) if a != b), len(keys[0])) + DIGITS
        # an answer repeats the key it was asked from, and XML cannot hold what is not printable
        seen = sorted(character for character in set("".join(keys)) if character.isprintable())
        self.digits = [_digits(column, seen) for column in _columns(keys, places)]
        self.end = prod(len(digits) + 1 for digits in self.digits)

    def number(self, text: str) -> int:
        """The number of `text`, or the last one before it where it holds other characters."""
        value, beyond = 0, False
        for place, digits in enumerate(self.digits):
            here = text[place : place + 1]
            digit = len(digits) if beyond else bisect_right(digits, here) if here else 0
            beyond = beyond or (here != "" and here not in digits)
            value = value * (len(digits) + 1) + digit
        return value

    def text(self, number: int) -> str:
        found = []
        for digits in reversed(self.digits):
            number, digit = divmod(number, len(digits) + 1)
            found.append(digits[digit - 1] if digit else "")
        return "".join(reversed(found))


def _columns(keys: list[str], places: int) -> list[set[str]]:
    sample = keys[:: max(1, len(keys) // 50)]
    return [{key[place] for key in sample if place < len(key)} for place in range(places)]


def _digits(column: set[str], seen: list[str]) -> str:
    kinds = {_kind(character) for character in column}
    fixed = len(column) == 1 and kinds != {"0"}
    return "".join(character for character in seen if (character in column if fixed else _kind(character) in kinds))


def _kind(character: str) -> str:
    return "0" if character.isdecimal() else "A" if character.isupper() else "a" if character.isalpha() else "."
