"""A spot instance's last two minutes: EC2's notice becomes Ray's drain, and workers leave a node that drains.

Ray does not listen for EC2's notice. So `python -m celebvision.preemption` runs beside Ray on each spot worker, waits
for the notice and drains its own node. Kubernetes needs nothing of this: there a node ends by SIGTERM, upon which
`ray start --block` drains itself, for `RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from datetime import datetime
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import ray
from ray._private.state import state
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION
from ray.core.generated.gcs_pb2 import GcsNodeInfo

from celebvision.job import JobFailed

METADATA = "http://169.254.169.254"
POLL_S = 5.0  # as EC2 advises
ANSWER_S = 2.0  # of the metadata service, which is on the machine itself
SILENCE_S = 120.0  # after which it is taken to be no EC2 instance
TOKEN_S = 60
RAY_S = 30.0  # for an answer of Ray's head, out of the two minutes
LOOK_S = 1.0
RETURN_S = 1.0  # in which the answer of a finished task gets home

log = logging.getLogger(__name__)


def draining() -> bool:
    """Whether the node of this Ray worker is about to be taken away."""
    return ray.get_runtime_context().get_node_id() in state.get_draining_nodes()


def leave_when_idle(at_work: threading.Lock) -> None:
    """Once the node of this actor drains and nobody holds `at_work`, end the process, to be started elsewhere.

    To be run in a thread of an actor that Ray restarts and whose tasks it retries: what is sent meanwhile waits for the
    lock, and is then sent again. A node that drains ends when its last worker has left it, or at its deadline.
    """
    while not draining():
        time.sleep(LOOK_S)
    at_work.acquire()
    time.sleep(RETURN_S)
    os._exit(1)  # an orderly exit would be the actor's last: Ray starts it again after any other


class Metadata:
    """What EC2 tells an instance about itself, by tokens (IMDSv2)."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint.rstrip("/")
        self.opener = build_opener(ProxyHandler({}))  # a proxy would tell of another machine

    def get(self, name: str) -> str | None:
        """The text at `name`; None: there is none, or not yet.

        Raises:
            OSError, HTTPException: no answer, or another one than these two.
        """
        try:
            lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}
            token = self._ask("PUT", "api/token", lifetime)
            return self._ask("GET", f"meta-data/{name}", {"X-aws-ec2-metadata-token": token})
        except HTTPError as error:
            with error:
                if error.code == 404:
                    return None
            raise

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = Request(f"{self.endpoint}/latest/{path}", headers=headers, method=method)  # noqa: S310 - no user's URL
        with self.opener.open(request, timeout=ANSWER_S) as answer:
            return str(answer.read().decode())


def notice(metadata: Metadata) -> datetime:
    """Wait for the notice, and give the time at which the instance is taken away.

    A rebalance recommendation is none: most such instances live on for hours.

    Raises:
        JobFailed: the metadata service has been silent for `SILENCE_S`.
    """
    heard = time.monotonic()
    while True:
        try:
            if (said := metadata.get("spot/instance-action")) is not None:
                return datetime.fromisoformat(json.loads(said)["time"])
            heard = time.monotonic()
        except (OSError, HTTPException) as error:
            if time.monotonic() - heard > SILENCE_S:
                raise JobFailed(
                    f"{metadata.endpoint}: no metadata for {SILENCE_S:g} s: {error}; on an EC2 instance allow IMDSv2, "
                    "or name the service by AWS_EC2_METADATA_SERVICE_ENDPOINT"
                ) from error
        time.sleep(POLL_S)


def drain(head: str, address: str, until: datetime) -> None:
    """Have Ray start nothing more on the living nodes at `address`, whose machine ends at `until`.

    Raises:
        JobFailed: no such node, or Ray refuses.
    """
    client = GcsClient(address=head)
    alive = client.get_all_node_info(timeout=RAY_S, state_filter=GcsNodeInfo.GcsNodeState.ALIVE)
    nodes = [node.hex() for node, told in alive.items() if told.node_manager_address == address]
    if not nodes:
        raise JobFailed(f"{address}: no node of the cluster at {head} has this address: start Ray on it first")
    for node in nodes:
        until_ms = int(until.timestamp() * 1000)
        accepted, why = client.drain_node(
            node, DRAIN_NODE_REASON_PREEMPTION, "spot instance is interrupted", until_ms, timeout=RAY_S
        )
        if not accepted:
            raise JobFailed(f"{address}: Ray does not drain the node: {why}")


def main() -> int:
    """Wait for the notice, drain this machine's node of the cluster at `RAY_ADDRESS`, and end."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    try:
        if not (head := os.environ.get("RAY_ADDRESS")):
            raise JobFailed("RAY_ADDRESS is not set: set it to the head's HOST:PORT")
        metadata = Metadata(os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", METADATA))
        until = notice(metadata)
        address = metadata.get("local-ipv4")
        if address is None:
            raise JobFailed(f"{metadata.endpoint}: knows no local-ipv4 of this machine")
        drain(head, address, until)
    except (JobFailed, OSError, HTTPException, ray.exceptions.RayError) as error:
        log.error("not drained: %s", error)
        return 1
    log.info("%s is interrupted at %s: Ray drains it", address, until.isoformat())
    return 0


if __name__ == "__main__":
    sys.exit(main())
