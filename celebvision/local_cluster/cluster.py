"""`cluster`: up, status, down."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from celebvision.config import ClusterSettings
from celebvision.job import JobFailed, Outcome
from celebvision.local_cluster.marked import MARK, kill, named, processes
from celebvision.logs import say

HOST = "127.0.0.1"
STATE, TOKEN, LOG = "cluster.json", "token", "start.log"
# Ray's own switch: else it takes an address of loopback for one that others see. Who joins needs it too.
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
START_S = 120.0
END_S = 60.0
LOG_TAIL = 2000  # characters


def cluster(settings: ClusterSettings) -> Outcome:
    """Start a cluster, end it, or say how it stands.

    Raises:
        JobFailed: there is one already, or none; a port is taken; Ray does not start. With what to do.
    """
    folder = settings.folder.expanduser().absolute()
    return {"up": _up, "status": _status, "down": _down}[settings.action](settings, folder)


def _up(settings: ClusterSettings, folder: Path) -> Outcome:
    if (folder / STATE).exists() and processes(_state(folder)["mark"]):
        raise JobFailed(f"{folder}: there is a cluster already; `celebvision cluster down` ends it")
    for name in ("port", "dashboard_port"):
        _refuse_taken(name, getattr(settings, name))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_private(folder / TOKEN, secrets.token_hex(32))
    state = {
        "mark": secrets.token_hex(16),
        "port": settings.port,
        "dashboard_port": settings.dashboard_port,
        "max_nodes": settings.max_nodes,
        # Sockets lie in it, whose names must be short.
        "rays_folder": tempfile.mkdtemp(prefix="ray-"),
    }
    _write_private(folder / STATE, json.dumps(state))
    try:
        _start(settings, folder, state)
        _wait_for_jobs(folder, state)
    except BaseException:
        _end(folder, state)
        raise
    if not settings.summary_as_json:
        for name, value in _environment(folder, state).items():
            print(f"export {name}={value}")
    return _told(folder, state)


def _status(_: ClusterSettings, folder: Path) -> Outcome:
    return _told(folder, _state(folder))


def _down(_: ClusterSettings, folder: Path) -> Outcome:
    state = _state(folder)
    ended = _end(folder, state)
    return Outcome({"ended": f"{ended} processes", "folder": str(folder)})


def _told(folder: Path, state: dict[str, Any]) -> Outcome:
    raylets = len(named("raylet", state["mark"]))  # one a node, the head among them
    if not raylets:
        raise JobFailed(f"{folder}: its cluster has ended; `celebvision cluster down` clears what is left")
    summary = {"address": f"http://{HOST}:{state['dashboard_port']}", "token": str(folder / TOKEN)}
    summary |= {"workers": f"{raylets - 1} of {state['max_nodes']}", "rays_folder": state["rays_folder"]}
    return Outcome(summary)


def _environment(folder: Path, state: dict[str, Any]) -> dict[str, str]:
    """What lets a command work on the cluster, or submit to it."""
    return {
        "RAY_ADDRESS": f"{HOST}:{state['port']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / TOKEN),
        LOOPBACK: "0",
    }


def _state(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text())
    except FileNotFoundError:
        raise JobFailed(f"{folder}: there is no cluster; `celebvision cluster up` starts one") from None
    return state


def _refuse_taken(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise JobFailed(f"{name}: {port} cannot be had ({error.strerror}); give another by --{name}") from None


def _write_private(path: Path, words: str) -> None:
    """Nobody else may read it, not even before it is written."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(words)


def _start(settings: ClusterSettings, folder: Path, state: dict[str, Any]) -> None:
    # Ray takes long to import, and nothing else here needs it.
    from celebvision.local_cluster.autoscaling import ENVIRONMENT, OBJECT_STORE_BYTES, autoscaling

    config = folder / "autoscaling.json"
    config.write_text(json.dumps(autoscaling(settings)))
    words = [str(Path(sys.executable).parent / "ray"), "start", "--head", f"--node-ip-address={HOST}"]
    words += [f"--port={settings.port}", "--num-cpus=0", "--num-gpus=0", f"--temp-dir={state['rays_folder']}"]
    words += [f"--dashboard-host={HOST}", f"--dashboard-port={settings.dashboard_port}", "--include-dashboard=true"]
    # Ports of Ray's choice, so that there may be other clusters on this machine.
    words += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
    words += [f"--ray-client-server-port={_free_port()}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    words += [f"--autoscaling-config={config}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= ENVIRONMENT | {
        MARK: state["mark"],
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # jobs begin with `python`
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / TOKEN),
        "RAY_USAGE_STATS_ENABLED": "0",
        LOOPBACK: "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Else all clusters of this machine would have the same, and Prometheus would take one's figures for another's.
        "AUTOSCALER_METRIC_PORT": str(_free_port()),
        "DASHBOARD_METRIC_PORT": str(_free_port()),
    }
    say("starts Ray")
    with (folder / LOG).open("wb") as log:
        # A session of its own: Ctrl-C in this terminal is none of the cluster's business.
        started = subprocess.run(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=False,
        )
        if not started.returncode:
            words = [sys.executable, "-m", "celebvision.capacity", str(config)]
            joined = environment | _environment(folder, state)
            started = subprocess.run(words, env=joined, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    if started.returncode:
        raise JobFailed(f"Ray does not start: {_tail(folder)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait_for_jobs(folder: Path, state: dict[str, Any]) -> None:
    """Until the cluster answers as it will answer `submit`."""
    address = f"http://{HOST}:{state['dashboard_port']}/api/version"
    asked = Request(address, headers={"Authorization": f"Bearer {(folder / TOKEN).read_text()}"})
    opener = build_opener(ProxyHandler({}))  # a proxy knows no loopback of ours
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with suppress(URLError, HTTPError, ConnectionError, TimeoutError), opener.open(asked, timeout=10):
            return
        time.sleep(0.2)
    raise JobFailed(f"{address}: no answer after {START_S:.0f} s: {_tail(folder)}")


def _tail(folder: Path) -> str:
    return (folder / LOG).read_text(errors="replace")[-LOG_TAIL:].strip()


def _end(folder: Path, state: dict[str, Any]) -> int:
    """End every process of the cluster, also those that it starts meanwhile; returns how many."""
    ended: set[int] = set()
    deadline = time.monotonic() + END_S
    while alive := processes(state["mark"]):
        if time.monotonic() > deadline:
            raise JobFailed(f"processes {', '.join(map(str, alive))} do not end; try again, or end them by hand")
        ended |= {process for process in alive if kill(process, state["mark"])}
        time.sleep(0.05)
    shutil.rmtree(state["rays_folder"], ignore_errors=True)  # it is in the system's temporary folder
    (folder / STATE).unlink()
    return len(ended)
