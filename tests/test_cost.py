"""What nodes cost, and what they have cost so far."""

from pathlib import Path

import pytest

from celebvision import cost
from celebvision.config import WatchedSettings
from celebvision.cost import Meter, usd_per_hour
from celebvision.job import JobFailed


def test_your_own_prices_win(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("g5.xlarge: 0.5\nours: 2\n")
    for node_type, usd in (("g5.xlarge", 0.5), ("ours", 2.0), ("g4dn.xlarge", 0.526)):
        assert usd_per_hour(WatchedSettings(node_type=node_type, prices=path)) == usd
    with pytest.raises(JobFailed, match=r"g9.huge has no price; known are: .*ours"):
        usd_per_hour(WatchedSettings(node_type="g9.huge", prices=path))
    assert usd_per_hour(WatchedSettings(prices=path)) is None


@pytest.mark.parametrize("content", [None, "- g5.xlarge", "g5.xlarge: dear", "a: ["])
def test_prices_that_are_none_are_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "prices.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(JobFailed, match=r"prices: .*prices.yaml"):
        usd_per_hour(WatchedSettings(prices=path, node_type="g5.xlarge"))


def test_nodes_that_work_are_paid_for_as_long_as_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    head, worker = ({"Alive": True, "Resources": resources} for resources in ({"memory": 1.0}, {"CPU": 4.0}))
    nodes, now = [head, worker], 0.0
    monkeypatch.setattr(cost.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(cost.time, "monotonic", lambda: now)
    meter = Meter(per_hour=3600.0)
    now = 10.0
    assert meter.read() == 10
    nodes = [head, worker, worker, worker | {"Alive": False}]
    now = 15.0  # nobody has looked since
    assert meter.read() == 15
    now = 20.0
    assert meter.read() == 20
    now = 25.0
    assert meter.read() == 30
