"""What a job says, as it says it, until it ends."""

from __future__ import annotations

import asyncio
import time
from typing import TextIO

import aiohttp
import requests
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from celebvision.job import JobFailed
from celebvision.logs import say

QUIET_S = 60.0  # without a word, after which the connection is made anew: a dead one is as quiet
AGAIN_S = 1.0
LOST_S = 300.0  # without an answer of the cluster, after which nobody follows any more
INTERRUPTED = 130


def follow(client: JobSubmissionClient, job_id: str, stream: TextIO) -> JobDetails:
    """Write the job's log to `stream` until the job has ended; each line once, however often the connection drops.

    Raises:
        JobFailed: the cluster has not answered for `LOST_S`; the job may go on.
    """
    log, answered, told = _Log(client, job_id, stream), time.monotonic(), False
    while True:
        try:
            asyncio.run(log.tail())
            details = client.get_job_info(job_id)
            answered, told = time.monotonic(), False
            if JobStatus(details.status).is_terminal():
                log.write_all(client.get_job_logs(job_id))
                return details
        except (OSError, aiohttp.ClientError, requests.exceptions.RequestException, _Dropped) as error:
            if time.monotonic() - answered > LOST_S:
                raise JobFailed(f"{job_id}: no answer of the cluster for {LOST_S:.0f} s; the job may go on") from error
            if not told:
                say("the connection was lost; it is tried again, and the job goes on")
                told = True
            time.sleep(AGAIN_S)


def exit_status(details: JobDetails) -> int:
    """What the job's own process ended with; 130 if it was stopped."""
    if details.status == JobStatus.STOPPED:
        return INTERRUPTED
    if details.status == JobStatus.SUCCEEDED:
        return 0
    return details.driver_exit_code or 1


class _Dropped(Exception):
    """The connection ended before the log did."""


class _Log:
    """A log of which a beginning has been written."""

    def __init__(self, client: JobSubmissionClient, job_id: str, stream: TextIO) -> None:
        self.client, self.job_id, self.stream = client, job_id, stream
        self.written = 0  # characters

    def write_all(self, log: str) -> None:
        self._write(log, 0)

    def _write(self, text: str, at: int) -> None:
        """Write what is new of `text`, which stands at character `at` of the log."""
        self.stream.write(text[max(0, self.written - at) :])
        self.stream.flush()
        self.written = max(self.written, at + len(text))

    async def tail(self) -> None:
        """Write what comes until nothing comes for `QUIET_S`, or the log ends. Raises `_Dropped`, `ClientError`."""
        at, lines = 0, self.client.tail_job_logs(self.job_id)  # which begins with the first, each time
        try:
            while (text := await asyncio.wait_for(anext(lines, None), QUIET_S)) is not None:
                self._write(text, at)
                at += len(text)
        except TimeoutError:
            return
        except RuntimeError as error:
            raise _Dropped from error
