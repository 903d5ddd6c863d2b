"""What was measured of `classify` and its peers, as `docs/benchmarks.md`; a figure that was not measured is a dash."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.contestants import OURS, TITLES

HEAD = """# Benchmarks

The batch job `celebvision classify` against its peers: the same pictures, the same network and weights, the same
machine, one session, rounds interleaved, medians. Every contestant is a whole command that writes one row (name,
probability) an image to Parquet; each peer is installed alone, with the same torch. This page is written by

{commands}

{machine}

- **Total** is the command's wall-clock, from its start to its exit. **First** is when the first batch was answered,
  **steady** the images a second from then until the last row is written. Of ours both are seen from outside, by the
  parts that it writes; its steady rate leaves out the first part of every worker.
- **×** says how many times as fast as the peer ours is, by total and by steady rate; below 1 the peer is faster.
- **Memory** is the highest sum of the proportional set sizes of all processes of the command, looked at every
  half second, or less often where looking would disturb.
- **The bound** is the CPU time of our decoding and our network alone, in one process of one thread, divided among all
  cores: no job that does that work can be faster. *Together* measures as many such processes as there are cores.
- Peers agree with our labels (probability above 0.5) on at least 95 % of the images, or stand in bold. The
  weights are random; the last layer is scaled so that few answers lie near 0.5.
- The tuned `DataLoader` takes our decoder and our folded bfloat16 network, and keeps freed memory,
  as one would write it by hand.
- S3 is Ceph 16.2 on the same machine, from whose cores it takes its share: much of a job's time there is the server's.
- From S3, PySpark fetches inside its UDF over a list of names: its S3 source needs jars that are not in its package.
"""
COLUMNS = "| | version | total | first | steady, images/s | × total | × steady | memory | same labels |"
RULE = "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"


def page(results: list[dict[str, Any]]) -> str:
    """One page of those results, of runs on the same machine, that are of contests."""
    results = [result for result in results if "sets" in result or "memory" in result]
    machine = ", ".join(f"{name} {value}" for name, value in results[0]["machine"].items())
    commands = "\n".join(f"    {result['command']}" for result in results)
    parts = [HEAD.format(commands=commands, machine=f"Machine: {machine}.")]
    parts += [_section(section) for result in results for section in result.get("sets", [])]
    parts += [_memory(result["memory"]) for result in results if "memory" in result]
    return "\n".join(parts)


def _section(section: dict[str, Any]) -> str:
    title = (
        f"## {section['images']:,} {section['kind']} of {section['mean_bytes'] / 1000:.0f} kB on average, "
        f"from {section['source']}, {section['rounds']} {'round' if section['rounds'] == 1 else 'rounds'}"
    )
    rows = [_row(name, section["contestants"].get(name, {})) for name in TITLES if name in section["contestants"]]
    return "\n".join([title, "", COLUMNS, RULE, *rows, "", _bound(section["contestants"].get("bound", {})), ""])


def _row(name: str, figures: dict[str, Any]) -> str:
    if "error" in figures:
        return f"| {TITLES[name]} | {figures['version']} | failed | | | | | | |"
    cells = [
        TITLES[name],
        figures.get("version", "–"),
        _text(figures, "seconds", "{:.1f} s"),
        _text(figures, "first_s", "{:.1f} s"),
        _text(figures, "steady_images_per_s", "{:,.0f}"),
        "" if name == OURS else _text(figures, "speedup_total", "{:.2f}"),
        "" if name == OURS else _text(figures, "speedup_steady", "{:.2f}"),
        _text({"peak": figures["peak_bytes"] / 1e9} if "peak_bytes" in figures else {}, "peak", "{:.1f} GB"),
        ""
        if name == OURS
        else _text(figures, "same_labels", "{:.1%}" if figures.get("agrees", True) else "**{:.1%}**"),
    ]
    return f"| {' | '.join(cells)} |"


def _bound(figures: dict[str, Any]) -> str:
    alone, share = _text(figures, "alone_images_per_s", "{:,.0f}"), _text(figures, "ours_of_alone", "{:.0%}")
    together = _text(figures, "together_images_per_s", "{:,.0f}")
    other_share = _text(figures, "ours_of_together", "{:.0%}")
    return f"The bound is {alone} images/s ({together} together); ours runs at {share} of it ({other_share})."


def _memory(memory: dict[str, Any]) -> str:
    runs = " and ".join(f"{run['peak_bytes'] / 1e9:.2f} GB for {run['images']:,} images" for run in memory["runs"])
    more, rate = memory["runs"][1]["images"] - memory["runs"][0]["images"], memory["sustained_images_per_s"]
    bound = memory["bound"]["alone_images_per_s"]
    return (
        "## Memory, and the rate of a long run\n\n"
        f"The peak of `celebvision classify` is {runs}: {memory['ratio']:.2f} times. By the difference\n"
        f"of the two runs, {more:,} images more went at {rate:,.0f} images/s: {rate / bound:.0%} of the bound, which\n"
        f"was {bound:,.0f} images/s right after.\n"
    )


def _text(figures: dict[str, Any], name: str, form: str) -> str:
    return form.format(figures[name]) if name in figures else "–"
