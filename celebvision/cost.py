"""What nodes cost: the price table, and a meter that runs as long as a job does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ray
import yaml

from celebvision.config import WatchedSettings
from celebvision.job import JobFailed

PRICES = Path(__file__).parents[1] / "configs" / "prices.yaml"
LOOK_S = 10.0  # between counts of the nodes


def usd_per_hour(settings: WatchedSettings) -> float | None:
    """US dollars an hour of one node of the settings' type; nothing if they name none.

    Raises:
        JobFailed: a type without a price, or a table that is none.
    """
    if settings.node_type is None:
        return None
    prices: dict[str, Any] = {}
    for path in (PRICES, settings.prices):
        if path is not None and (path is settings.prices or path.exists()):
            prices |= _prices(path)
    if settings.node_type not in prices:
        known = ", ".join(sorted(prices)) or "none"
        raise JobFailed(f"node_type: {settings.node_type} has no price; known are: {known}; give yours by --prices")
    return float(prices[settings.node_type])


def _prices(path: Path) -> dict[str, Any]:
    try:
        prices = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise JobFailed(f"prices: {path} cannot be read: {error}") from None
    if not isinstance(prices, dict) or not all(isinstance(price, int | float) for price in prices.values()):
        raise JobFailed(f"prices: {path} should hold lines such as g5.xlarge: 1.006")
    return prices


class Meter:
    """Dollars so far, of all nodes of the cluster that can work: a head without CPUs is not among them."""

    def __init__(self, per_hour: float) -> None:
        self.per_hour, self.usd = per_hour, 0.0
        self.looked, self.nodes = time.monotonic(), _nodes()

    def read(self) -> float:
        """US dollars; the nodes are counted now and then, and were as many in between."""
        now = time.monotonic()
        if now - self.looked >= LOOK_S:
            self.usd, self.looked, self.nodes = self._usd(now), now, _nodes()
        return self._usd(now)

    def _usd(self, now: float) -> float:
        return self.usd + self.nodes * self.per_hour * (now - self.looked) / 3600


def _nodes() -> int:
    return sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in ray.nodes())
