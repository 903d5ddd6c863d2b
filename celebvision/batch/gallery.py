"""The pictures that `stylize` leaves in an output: of one input and one style, with a sheet of some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pyarrow as pa

from celebvision import images
from celebvision.batch.fetch import Failure, Fetcher, Key
from celebvision.batch.inventory import read_keys
from celebvision.batch.record import IMAGES, Run, find_runs
from celebvision.config import STYLE_WORDS, StylizeSettings
from celebvision.job import JobFailed
from celebvision.registry import ModelVersion
from celebvision.sheet import TILE, contact_sheet, histograms
from celebvision.storage import Store, open_store, read_table

SAME = ("input", "model", "registry", "format", "quality", "size", *STYLE_WORDS)  # words of all pictures of an output
SHOWN, PAIRS_A_ROW = 20, 5  # of the sheet
LETTERS = 20  # of a key, its last
LOSSES = ("content_loss", "style_loss")
QUANTILES = (5, 50, 95)  # per cent
MOST_PARTS = 200  # whose losses are looked at

T = TypeVar("T")


def refuse_own_pictures(settings: StylizeSettings) -> None:
    """Raise `JobFailed` where what is drawn would be listed as input later, or be put in the input's place."""
    source, output = (f"{open_store(uri).uri.rstrip('/')}/" for uri in (settings.input, settings.output))
    if source == output or source.startswith(output + IMAGES):
        raise JobFailed(
            f"output: {settings.output} would hold the pictures that are drawn among those of the input; "
            "give it a folder of its own, inside the input or elsewhere"
        )


def refuse_mixture(settings: StylizeSettings, output: Store, model: ModelVersion, words: str) -> None:
    """Raise `JobFailed` where pictures of another input or style would be replaced, whose rows then were wrong."""
    mine = settings.model_dump(mode="json")
    for run in _drawn(output):
        other = [f"{name} is {run.config.get(name)} there" for name in SAME if run.config.get(name) != mine[name]]
        if other:
            raise JobFailed(
                f"output: {settings.output} holds what run {run.run_id} drew, with other words "
                f"({', '.join(other)}); give another output"
            )
        if run.state != "done" and not run.run_id.endswith(f"-{words}") and run.model["version"] != model.version:
            raise JobFailed(
                f"output: {settings.output} holds half of what run {run.run_id} draws by another version of "
                f"{model.name}; let the same command as then finish it, or give another output"
            )


def standing(output: Store, model: ModelVersion, runs: list[Run]) -> list[Run]:
    """Runs of a version whose pictures no later run has replaced by those of another version."""
    others = [run.run_id for run in _drawn(output) if run.model["version"] != model.version]
    return [run for run in runs if run.run_id > max(others, default="")]


def _drawn(output: Store) -> list[Run]:
    return [run for run in find_runs(output) if run.verb == "stylize"]


def put_sheet(settings: StylizeSettings, output: Store, run: Run) -> None:
    """Put a sheet of some pictures, spread over the run, each beside what was drawn of it; what cannot be read is grey.

    To be called while the parts are there.
    """
    shown = _shown(output, run)
    if not shown:
        return
    sources = Fetcher.of(settings, lambda data: images.decode_whole(data, TILE, settings.max_pixels))
    before = _tiles(sources, [key for key, _ in shown])
    after = _tiles(replace(sources, store=output), [Key(IMAGES + name, 0, "") for _, name in shown])
    tiles = []
    for (key, _), one, other in zip(shown, before, after, strict=True):
        tiles += [(one, key.key[-LETTERS:].encode("ascii", "replace").decode()), (other, "")]
    output.put(run.sheet, contact_sheet(tiles, columns=2 * PAIRS_A_ROW))


def put_losses(output: Store, run: Run) -> dict[str, dict[str, float]]:
    """Put a picture of how the losses of a run's pictures are spread, and give quantiles of each.

    To be called while the parts are there; of a large run they are of some parts, spread over it.
    """
    parts = [read_table(output, run.part(number)) for number in _spread(range(run.inventory["shards"]), MOST_PARTS)]
    rows = pa.concat_tables(parts)
    found = {name: rows[name].drop_null().to_numpy() for name in LOSSES if name in rows.column_names}
    found = {name: values for name, values in found.items() if len(values)}
    if found:
        output.put(run.losses_plot, histograms(found))
    return {
        name: {f"p{share:02}": float(np.percentile(values, share)) for share in QUANTILES}
        for name, values in found.items()
    }


def _shown(output: Store, run: Run) -> list[tuple[Key, str]]:
    """Keys that were drawn, as evenly spread as their shards tell, and the names of what was drawn."""
    numbers = _spread(range(run.inventory["shards"]), SHOWN)
    shown: list[tuple[Key, str]] = []
    for number in numbers:
        names = read_table(output, run.part(number), ["output_key"])["output_key"].to_pylist()
        of_shard = zip(read_keys(output, run, number), names, strict=True)
        shown += _spread([(key, name) for key, name in of_shard if name], -(-SHOWN // len(numbers)))
    return _spread(shown, SHOWN)


def _spread(things: Sequence[T], count: int) -> list[T]:
    """So many of them, or all if there are fewer, at equal distances."""
    count = min(count, len(things))
    return [things[at * len(things) // count] for at in range(count)]


def _tiles(fetcher: Fetcher, keys: list[Key]) -> list[bytes]:
    return [b"" if isinstance(one, Failure) else images.encode(one, "png") for one in fetcher.pixels(keys)]
