"""Nodes of a small Ray cluster on loopback, each started by `ray start` and so each to be killed by itself."""

from __future__ import annotations

import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from faults.command import BIN, Marked, wait_until

START_S = 120
GAVE_UP = "timed out during startup"  # as Ray does on a busy machine, after 15 s: then it is started again
WORKER_PORTS = 60  # a node's own; Ray's default range would be shared by both


class Cluster:
    """The environment in which a command joins it, and its nodes, the head first."""

    def __init__(self, folder: Path, rays_folder: str) -> None:
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.port = free_ports(2)
        self.folder, self.rays_folder = folder, rays_folder
        self.nodes: list[Marked] = []
        self.environment = {
            "RAY_ADDRESS": f"127.0.0.1:{self.port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def add(self, cpus: int, *options: str) -> Marked:
        """Start a node and wait until it is there."""
        first = free_ports(WORKER_PORTS)
        words = [str(BIN / "ray"), "start", "--block", "--node-ip-address=127.0.0.1", f"--num-cpus={cpus}"]
        words += [f"--min-worker-port={first + 4}", f"--max-worker-port={first + WORKER_PORTS - 1}"]
        # A node that has to wait until it is told of one of these ports ends itself after 15 s.
        words += [f"--dashboard-agent-listen-port={first}", f"--dashboard-agent-grpc-port={first + 1}"]
        words += [f"--metrics-export-port={first + 2}", f"--runtime-env-agent-port={first + 3}"]
        words += [f"--temp-dir={self.rays_folder}"]
        if self.nodes:
            words += [f"--address=127.0.0.1:{self.port}"]
        else:
            words += ["--head", f"--port={self.port}", f"--ray-client-server-port={self.port + 1}"]
            words += ["--include-dashboard=false"]
        node = self._started([*words, *options])
        if node.ended() and GAVE_UP in node.stderr:
            with self.nodes.pop():  # ends what is left of it, which would hold the ports
                pass
            node = self._started([*words, *options])
        assert not node.ended(), f"no node came: {node.stdout} {node.stderr}"
        return node

    def _started(self, words: list[str]) -> Marked:
        """A node that is there, or has ended."""
        settings = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        node = Marked(words, self.folder / "node", settings)
        self.nodes.append(node)
        wait_until(lambda: "Ray runtime started" in node.stdout or node.ended(), "no node came", START_S)
        return node


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster without a node yet; whatever is left of its nodes ends with the block."""
    # Not Ray's own folder, where it notes the latest cluster for others to join. A short name: sockets lie in it.
    rays_folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    with rays_folder, ExitStack() as ends:
        made = Cluster(folder, rays_folder.name)
        try:
            yield made
        finally:
            for node in made.nodes:
                ends.enter_context(node)


_taken = 24000


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row, never given before; below those that the kernel hands out."""
    global _taken
    for first in range(_taken, 32000 - count, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        _taken = first + count
        return first
    raise RuntimeError(f"no {count} free ports in a row between 24000 and 32000: end what holds them")
