"""Nodes that are processes on this machine, as Ray's autoscaler starts and ends them."""

from __future__ import annotations

from typing import Any

from ray._private import ray_constants
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class LocalNodes(FakeMultiNodeProvider):
    """Ray's own, but each node unpacks a job's code into a folder of its own.

    In the one that they would share, a node that comes replaces the code that others are at work in.
    """

    def _create_node_with_resources_and_labels(self, *words: Any) -> None:
        with self.lock:
            ray_constants.DEFAULT_RUNTIME_ENV_DIR_NAME = f"runtime_resources_{self._next_node_id + 1}"
            super()._create_node_with_resources_and_labels(*words)
