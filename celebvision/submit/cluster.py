"""The cluster at an address: its Jobs API, and plain words where it is none, or not one for us."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from celebvision.job import JobFailed

OURS = "celebvision-"  # what the IDs of our jobs begin with


def connect(address: str) -> JobSubmissionClient:
    """A client of the cluster at `address`, which runs what we run.

    Raises:
        JobFailed: nothing answers, the token is missing or refused, or Ray or Python are of another version there.
    """
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # which Ray would follow instead of `address`
        os.environ.pop(name, None)
    for name in ("job.sdk", "dashboard_sdk"):  # what is sent is told by us
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    token = _token()
    with clear_answers(address):
        client = JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"} if token else {})
        # No public call tells it.
        metadata = client._do_request("GET", "/api/v0/cluster_metadata").json()["data"]
    _refuse_another_version(address, "Ray", metadata["rayVersion"], ray.__version__)
    python, here = (
        ".".join(version.split(".")[:2]) for version in (metadata["pythonVersion"], platform.python_version())
    )
    _refuse_another_version(address, "Python", python, here)
    return client


def _token() -> str:
    """The token, from where Ray takes it; Ray itself looks only where RAY_AUTH_MODE was set before it was imported."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        return Path(named or "~/.ray/auth_token").expanduser().read_text().strip()
    except OSError as error:
        if named:
            raise JobFailed(f"RAY_AUTH_TOKEN_PATH {named}: cannot be read: {error.strerror}") from None
        return ""


def _refuse_another_version(address: str, what: str, there: str, here: str) -> None:
    if there != here:
        raise JobFailed(f"{address}: the cluster runs {what} {there}, and this command {here}: use the same on both")


@contextmanager
def clear_answers(address: str) -> Iterator[None]:
    """Turn what Ray's client raises into `JobFailed` with what to do."""
    try:
        yield
    except AuthenticationError as error:
        if "Authentication required" in str(error):
            does = "asks for a token, and none was sent: let RAY_AUTH_TOKEN_PATH name the file of the cluster's token"
        else:
            does = "refuses the token: it is wrong or of an earlier cluster; RAY_AUTH_TOKEN_PATH names its file"
        raise JobFailed(f"{address}: the cluster {does}") from error
    except requests.exceptions.JSONDecodeError as error:
        raise JobFailed(f"{address}: what answers there is no Ray cluster: is it the dashboard's port?") from error
    except (ConnectionError, requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        port = urlsplit(address).port or 8265
        tunnel = f"ssh -L {port}:127.0.0.1:8265 HEAD"
        raise JobFailed(
            f"{address}: no cluster answers: is it up? To one that listens on its own head, open a tunnel first: "
            f"`{tunnel}`, and give --address http://127.0.0.1:{port}"
        ) from error
    except requests.exceptions.RequestException as error:
        raise JobFailed(f"{address}: what answers there is no Ray cluster that takes jobs: {error}") from error
    except RuntimeError as error:
        if "does not exist" in str(error):
            raise JobFailed(f"{address}: no such job; `celebvision submit --address {address}` lists them") from error
        raise JobFailed(f"{address}: {error}") from error
