"""What there is to say of a training: its curves, its pictures, its settings, and the cards of what it published."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow.parquet as pq

from celebvision.metrics import names
from celebvision.page import Picture, page
from celebvision.report.plots import curves
from celebvision.storage import NotFound, Store, join, open_store
from celebvision.training.files import CONFIG, HISTORY, PICTURES, PUBLISHED

GRIDS = 4  # epochs whose pictures are shown
GROUPS = {
    "losses": names.LOSSES,
    "on the validation split": [name for name in names.VALIDATED if name not in ("score", "fid")],
    "FID": ["fid"],
    "images a second": ["images_per_s"],
    "share of the time that steps waited for data": ["wait_share"],
}


def page_of_training(run: str) -> str:
    """The page of the training whose folder `run` is. Raises `StorageError` if it cannot be read."""
    store = open_store(run)
    history = pq.read_table(io.BytesIO(store.get(HISTORY))).to_pydict()
    groups = {title: {name: history[name] for name in columns if name in history} for title, columns in GROUPS.items()}
    groups = {title: lines for title, lines in groups.items() if lines}
    config, published = _json(store, CONFIG), _json(store, PUBLISHED)
    figures = {name: value for name, value in published.items() if name != "models"}
    epochs = history["epoch"]
    pictures = [Picture("curves", "png", partial(curves, epochs, groups))]
    grids = _grids(store)
    pictures += [Picture(name, "png", partial(store.get, name)) for _, name in grids]
    return page(
        "training.html",
        f"Training of {', '.join(published.get('models', {})) or _name(config) or run.rpartition('/')[2]}",
        pictures,
        run=store.uri,
        state="done" if published else f"not finished: {len(epochs)} epochs are done; the same command goes on",
        models=published.get("models", {}),
        figures=figures,
        epochs=len(epochs),
        minutes=sum(history["epoch_s"]) / 60,
        workers=sorted(set(history["workers"])),
        grids=grids,
        config=config,
        cards=_cards(str(config.get("registry", "")), published.get("models", {})),
    )


def _json(store: Store, key: str) -> dict[str, Any]:
    """Nothing where it is not there yet."""
    try:
        content: dict[str, Any] = json.loads(store.get(key))
    except NotFound:
        return {}
    return content


def _name(config: dict[str, Any]) -> str:
    return str(config.get("name") or config.get("architecture") or "")


def _grids(store: Store) -> list[tuple[str, str]]:
    """Words and keys of pictures of some epochs, the first and the last among them."""
    by_epoch: dict[int, list[str]] = {}
    for stat in store.list(f"{PICTURES}/"):
        if found := re.fullmatch(rf"{PICTURES}/epoch-(\d+)-\w+\.png", stat.key):
            by_epoch.setdefault(int(found[1]), []).append(stat.key)
    epochs = _ends_and_between(sorted(by_epoch), GRIDS)
    return [
        (f"epoch {epoch}: {key.rpartition('-')[2].removesuffix('.png').replace('_', ' ')}", key)
        for epoch in epochs
        for key in by_epoch[epoch]
    ]


def _ends_and_between(things: Sequence[int], count: int) -> list[int]:
    if len(things) <= count:
        return list(things)
    return [things[round(at * (len(things) - 1) / (count - 1))] for at in range(count)]


def _cards(registry: str, models: dict[str, str]) -> dict[str, str]:
    """The text for people of each version that was published, where it can still be read."""
    cards = {}
    for name, version in models.items():
        try:
            cards[f"{name}@{version}"] = open_store(join(registry, name, version)).get("card.md").decode()
        except (NotFound, ValueError):
            cards[f"{name}@{version}"] = "Its card is not there any more."
    return cards
