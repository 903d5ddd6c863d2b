"""The tables of `docs/performance.md`: between `<!-- figures: NAME -->` and `<!-- end -->` stands what was measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from tests.benchmarks import steps
from tests.benchmarks.feeding import CONSUMER, OURS, TITLES

PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
STAGES = {  # of the profile, and what they are called in its table
    "network": "network",
    "decode": "decode, encode",
    "storage": "storage",
    "figures": "figures",
    "digest": "digest",
    "Ray": "Ray",
    "imports": "imports",
    "other": "other",
}
KINDS = (*steps.KINDS, steps.OTHER)
ELSEWHERE = {"gpu", "scale"}  # measures that were taken on another machine than the rest, maybe
BILLION = 1_000_000_000
SHARD_KEYS, PAGE_KEYS = 1000, 1000
GET_USD, PUT_USD = 0.0004 / 1000, 0.005 / 1000  # S3 standard, us-east-1; listing costs as much as putting


def filled(text: str, results: list[dict[str, Any]]) -> str:
    """The page with each table made anew; one of which nothing is known stays as it is."""
    measured: dict[str, Any] = {}
    for result in results:
        for name in result.keys() & ELSEWHERE:
            measured[name] = result[name] | {"machine": result["machine"]}
        rest = {name: value for name, value in result.items() if name not in ("command", "machine", *ELSEWHERE)}
        if rest:
            measured |= rest | {"machine": result["machine"]}

    def table(found: re.Match[str]) -> str:
        name = found[2]
        made = TABLES[name](measured) if NEEDS[name] in measured else None
        return found[0] if made is None else f"{found[1]}\n{made}\n\n{found[3]}"

    return PLACE.sub(table, text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _machine(measured: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in measured["machine"].items())


def _parts(measured: dict[str, Any]) -> str:
    return _table(
        ("part", "a second"),
        [(f"`{name}`", f"{value:,.0f}") for name, value in measured["parts"].items()],
    )


def _choices(measured: dict[str, Any]) -> str:
    rows = []
    for choice, options in measured["choices"].items():
        taken = next(iter(options.values()))
        for number, (option, rate) in enumerate(options.items()):
            times = "taken" if not number else f"{rate / taken:.2f}"
            rows.append(("" if number else choice, option, f"{rate:,.0f}", times))
    return _table(("choice", "option", "images/s", "× the one taken"), rows)


def _profile(measured: dict[str, Any]) -> str:
    rows = []
    for name, told in measured["profile"].items():
        cpu_s = told["cpu_s"]
        largest = max(cpu_s, key=lambda stage: cpu_s[stage])
        cells = [f"{cpu_s[stage]:.1f}" if cpu_s.get(stage, 0) >= 0.05 else "" for stage in STAGES]
        cells[list(STAGES).index(largest)] = f"**{cells[list(STAGES).index(largest)]}**"
        rows.append(
            (f"`{name}`", f"{told['seconds']:.1f}", *cells, f"{told['idle_s']:.1f}", f"{told['needed_share']:.0%}")
        )
    return _table(("path", "s", *STAGES.values(), "idle", "needed"), rows)


def _steps(measured: dict[str, Any]) -> str:
    rows = []
    for name, told in measured["steps"].items():
        shares = [f"{told['shares'][kind]:.0%}" if told["shares"].get(kind, 0) >= 0.005 else "" for kind in KINDS]
        rows.append((f"`{name}`", f"{told['images_per_s']:,.1f}", *shares))
    return _table(("step", "images/s, one thread", *KINDS), rows)


def _gpu_networks(measured: dict[str, Any]) -> str:
    rows = []
    for told in measured["gpu"]["networks"]:
        size = f", {told['size']} pixels" if "size" in told else ""
        rates = [f"{told[f'{kind}images_per_s']:,.0f}" for kind in ("", "alone_")]
        compiled = f"{told['compiled_images_per_s']:,.0f}" if "compiled_images_per_s" in told else ""
        rows.append((told["name"] + size, str(told["batch"]), *rates, compiled, f"{told['of_peak']:.1%}"))
    return _table(("network", "batch", "images/s", "on the card alone", "the same, compiled", "of the peak"), rows)


def _gpu_steps(measured: dict[str, Any]) -> str:
    rows = [
        (
            told["name"],
            str(told["batch"]),
            f"{told['images_per_s']:,.0f}",
            f"{told['of_peak']:.1%}",
            f"{told['idle']:.0%}",
            f"{told['gib']:.1f} GiB",
        )
        for told in measured["gpu"]["steps"]
    ]
    return _table(("step", "batch", "images/s", "of the peak", "the card waits", "memory"), rows)


def _gpu_paintings(measured: dict[str, Any]) -> str:
    rows = [
        (
            f"{told['size']} pixels",
            str(told["batch"]),
            f"{told['pictures_per_min']:,.0f}",
            f"{told['of_peak']:.0%}",
            f"{told['gib']:.1f} GiB",
        )
        for told in measured["gpu"]["paintings"]
    ]
    return _table(("picture", "batch", "pictures a minute, 300 steps", "of the peak", "memory"), rows)


def _gpu(measured: dict[str, Any]) -> str:
    told = measured["gpu"]
    rate = f"{told['ceilings']['bfloat16_tflops']:,.0f} TFLOP/s in a product of bfloat16 matrices"
    return f"{_machine(told)}; {rate}"


def _feeding(measured: dict[str, Any]) -> str:
    feeders = measured["feeding"]["feeders"]
    rows = []
    for name, told in feeders.items():
        base, _, tuned = name.partition(" ")
        title = "the CNN learns" if name == CONSUMER else TITLES[base] + (", our decoder" if tuned else "")
        first = f"{told['first_batch_s']:.2f} s" if "first_batch_s" in told else ""
        times = "" if name == OURS else f"{told['x']:.2f}"
        rows.append((title, told.get("version", ""), f"{told['images_per_s']:,.0f}", first, times))
    return _table(("feeder", "version", "images/s", "first batch of an epoch", "ours ×"), rows)


def _inventory(measured: dict[str, Any]) -> str:
    rows = [
        (
            f"{point['keys']:,}",
            f"{point['seconds']:.1f} s",
            f"{1e6 * point['seconds'] / point['keys']:.1f} µs",
            f"{point['requests']:,}",
            f"{point['peak_bytes'] / 1e6:.0f} MB",
        )
        for point in measured["scale"]["inventory"]
    ]
    return _table(("keys", "time", "a key", "requests", "memory"), rows)


def _images(measured: dict[str, Any]) -> str:
    points = measured["scale"]["images"]
    slopes = ["", *[f"{1e6 * _slope(one, two):.0f} µs" for one, two in pairwise(points)]]
    rows = [
        (
            f"{point['images']:,}",
            f"{point['seconds']:.1f} s",
            f"{point['first_s']:.1f} s",
            f"{1e6 * point['image_s']:.0f} µs" if point["work_s"] else "",
            f"{point['finish_s']:.1f} s",
            slope,
            f"{point['peak_bytes'] / 1e9:.2f} GB",
        )
        for point, slope in zip(points, slopes, strict=True)
    ]
    head = ("images", "time", "first part", "an image then", "from the last part on", "each image more", "memory")
    return _table(head, rows)


def _slope(one: dict[str, Any], two: dict[str, Any]) -> float:
    return float((two["seconds"] - one["seconds"]) / (two["images"] - one["images"]))


def _waiting(name: str) -> Callable[[dict[str, Any]], str]:
    def table(measured: dict[str, Any]) -> str:
        points = measured["cluster"][name]
        rows = [
            (
                str(point[name]),
                f"{point['images_per_s']:,.0f}",
                f"{point['images_per_s'] / points[0]['images_per_s']:.2f}",
                f"{point['of_waiting_networks']:.0%}",
            )
            for point in points
        ]
        return _table((name, "images/s", "× one", "of what the networks allow"), rows)

    return table


def _billion(measured: dict[str, Any]) -> str:
    """The model `time = start + images / rate` and its requests, at the measured points and at a billion."""
    points, inventory = measured["scale"]["images"], measured["scale"]["inventory"]
    least, middle = points[0], points[-2]
    each_s, start_s = _slope(least, middle), least["seconds"] - least["images"] * _slope(least, middle)
    key_s = inventory[-2]["seconds"] / inventory[-2]["keys"]
    rows = []
    for point in points:
        foretold = start_s + each_s * point["images"]
        share = f"{foretold / point['seconds']:.2f}"
        rows.append((f"{point['images']:,} images", f"{foretold:,.0f} s", f"{point['seconds']:,.0f} s", share))
    for listed in inventory:
        foretold = key_s * listed["keys"]
        share = f"{foretold / listed['seconds']:.2f}"
        rows.append((f"{listed['keys']:,} keys listed", f"{foretold:,.1f} s", f"{listed['seconds']:,.1f} s", share))
    checked = _table(("point", "model", "measured", "ratio"), rows)
    shards = BILLION / SHARD_KEYS
    gets, puts = BILLION + 3 * shards, BILLION / PAGE_KEYS + 2 * shards
    needs = [
        ("listing", f"{key_s * BILLION / 3600:.1f} h of the driver"),
        ("GET", f"{gets / 1e9:.3f} billion, {gets * GET_USD:,.0f} USD"),
        ("LIST and PUT", f"{puts / 1e6:.0f} million, {puts * PUT_USD:,.0f} USD"),
        ("keys of the inventory, a shard each 1,000", f"{shards:,.0f} shards"),
    ]
    return checked + "\n\n" + _table(("a billion images", "need"), needs)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "machine": _machine,
    "parts": _parts,
    "choices": _choices,
    "profile": _profile,
    "steps": _steps,
    "feeding": _feeding,
    "scale": lambda measured: _machine(measured["scale"]),
    "inventory": _inventory,
    "images": _images,
    "workers": _waiting("workers"),
    "nodes": _waiting("nodes"),
    "billion": _billion,
    "gpu": _gpu,
    "gpu_networks": _gpu_networks,
    "gpu_steps": _gpu_steps,
    "gpu_paintings": _gpu_paintings,
}
OWN = ("machine", "parts", "choices", "profile", "steps", "feeding")  # tables of a measure of their name
NEEDS = dict.fromkeys(TABLES, "scale") | {name: name for name in OWN} | {"workers": "cluster", "nodes": "cluster"}
NEEDS |= {name: "gpu" for name in TABLES if name.startswith("gpu")}
