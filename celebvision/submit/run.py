"""`submit`: check, send, follow; and look at, follow or stop what was sent before."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from celebvision.config import SPEECH, SubmitSettings
from celebvision.job import JobFailed, Outcome, digest
from celebvision.logs import say
from celebvision.submit.cluster import OURS, clear_answers, connect
from celebvision.submit.follow import INTERRUPTED, exit_status, follow
from celebvision.submit.package import JOB, PROBE, fill
from celebvision.submit.places import places, sent
from celebvision.submit.probe import ANSWER

PROBES = f"{OURS}probe-"
POLL_S = 0.5
PROBE_S = 600.0  # in which a cluster that is busy starts a process and unpacks the code
STOP_S = 60  # for a job to write how it stands, before Ray kills it
# Of the job's process only, which ends by SIGTERM as by Ctrl-C; Ray's own patience is 3 s.
ENVIRONMENT = {"RAY_JOB_STOP_SIGNAL": "SIGTERM", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)}


def submit(settings: SubmitSettings) -> Outcome:
    """Run a verb on the cluster, or say what ran there.

    Raises:
        JobFailed: no cluster, or not one for us; the same job runs already; something is in the job's way there.
    """
    client = connect(settings.address)
    with clear_answers(settings.address):
        if settings.verb is not None:
            job_id = _send(settings, client)
            if not settings.follow:
                return Outcome(_how(settings, job_id))
            return _until_it_ends(settings, client, job_id, sys.stderr)  # stdout is for the outcome
        if settings.logs is not None:
            return _logs(settings, client, settings.logs)
        if settings.stop is not None:
            return _stop(client, settings.stop)
        if settings.status is not None:
            return Outcome(_standing(client.get_job_info(settings.status)))
        ours = [job for job in client.list_jobs() if (job.submission_id or "").startswith(OURS)]
        jobs = [job for job in ours if not _is_probe(job)]
        return Outcome(
            {str(job.submission_id): job.status for job in sorted(jobs, key=lambda job: job.start_time or 0)}
        )


def _send(settings: SubmitSettings, client: JobSubmissionClient) -> str:
    """The ID of the job, which runs now."""
    job, verb = settings.job(), str(settings.verb)
    words = job.model_dump(mode="json", exclude=SPEECH)
    job_id = _free_id(settings, client, f"{OURS}{verb}-{digest({'verb': verb, **words})}")
    environment = ENVIRONMENT | {name: _value(name) for name in settings.env}
    with tempfile.TemporaryDirectory(prefix="celebvision-") as folder:
        size = fill(Path(folder), sent(job), places(verb, job), settings.gpus, with_code=settings.code == "here")
        say(f"sends {size / 1000:,.0f} kB; the cluster looks whether the job can run")
        # The package's address, from the first upload on: Ray puts it there in place of the folder.
        runtime_env: dict[str, Any] = {"working_dir": folder, "env_vars": environment}
        client._upload_working_dir_if_needed(runtime_env)
        _refuse_what_is_in_the_way(client, runtime_env)
        _start(settings, client, f"exec python -m celebvision {verb} --config {JOB}", job_id, runtime_env)
    say(f"{job_id} runs")
    return job_id


def _free_id(settings: SubmitSettings, client: JobSubmissionClient, first: str) -> str:
    """`first`, or `first-2` and so on, so that logs of what ended stay.

    Raises:
        JobFailed: the job of these words has not ended.
    """
    there = {job.submission_id: JobStatus(job.status) for job in client.list_jobs()}
    job_id, number = first, 1
    while job_id in there:
        if not there[job_id].is_terminal():
            raise _runs_already(settings, job_id)
        number += 1
        job_id = f"{first}-{number}"
    return job_id


def _runs_already(settings: SubmitSettings, job_id: str) -> JobFailed:
    command = f"celebvision submit --address {settings.address}"
    return JobFailed(f"{job_id}: the job of these words runs already; follow it by `{command} --logs {job_id}`")


def _value(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise JobFailed(f"env: {name} is not set here; set it, or leave it out") from None


def _start(
    settings: SubmitSettings, client: JobSubmissionClient, entrypoint: str, job_id: str, runtime_env: dict[str, Any]
) -> None:
    try:
        client.submit_job(entrypoint=entrypoint, submission_id=job_id, runtime_env=runtime_env)
    except RuntimeError as error:
        if "already exists" in str(error):  # somebody else was quicker: of two at once Ray takes one
            raise _runs_already(settings, job_id) from error
        raise


def _refuse_what_is_in_the_way(client: JobSubmissionClient, runtime_env: dict[str, Any]) -> None:
    """A job of a few seconds that looks, and that a later submission deletes.

    Raises:
        JobFailed: with everything that it found.
    """
    # Later, not at once: Ray looks after a job for a second more, and one that it does not find it notes as failed.
    for job in client.list_jobs():
        if _is_probe(job) and job.end_time and job.end_time / 1000 < time.time() - PROBE_S:
            with suppress(RuntimeError):  # somebody else has deleted it
                client.delete_job(str(job.submission_id))
    probe = f"{PROBES}{uuid.uuid4().hex[:8]}"
    entrypoint = f"exec python -m celebvision.submit.probe {PROBE}"
    client.submit_job(entrypoint=entrypoint, submission_id=probe, runtime_env=runtime_env)
    try:
        ended = _ended(client, probe, PROBE_S)
    except (KeyboardInterrupt, JobFailed):
        client.stop_job(probe)
        raise
    log = client.get_job_logs(probe)
    answers = [line.removeprefix(ANSWER) for line in log.splitlines() if line.startswith(ANSWER)]
    if ended.status != JobStatus.SUCCEEDED or not answers:
        raise JobFailed(f"the cluster cannot run the code that was sent: {ended.message}")
    if problems := json.loads(answers[-1]):
        raise JobFailed("\n".join(["the cluster cannot run this job:", *problems]))


def _is_probe(job: JobDetails) -> bool:
    return (job.submission_id or "").startswith(PROBES)


def _ended(client: JobSubmissionClient, job_id: str, within_s: float) -> JobDetails:
    deadline = time.monotonic() + within_s
    while not JobStatus((details := client.get_job_info(job_id)).status).is_terminal():
        if time.monotonic() > deadline:
            raise JobFailed(
                f"{job_id}: has not ended after {within_s:.0f} s; it is {details.status}: {details.message}"
            )
        time.sleep(POLL_S)
    return details


def _logs(settings: SubmitSettings, client: JobSubmissionClient, job_id: str) -> Outcome:
    if not settings.follow:
        sys.stdout.write(client.get_job_logs(job_id))
        return Outcome()
    client.get_job_info(job_id)  # or nobody would tell that there is none
    return _until_it_ends(settings, client, job_id, sys.stdout)


def _until_it_ends(settings: SubmitSettings, client: JobSubmissionClient, job_id: str, stream: TextIO) -> Outcome:
    """Ctrl-C lets go of the job, and does not end it."""
    try:
        details = follow(client, job_id, stream)
    except KeyboardInterrupt:
        say("not followed any more; the job goes on")
        return Outcome(_how(settings, job_id), status=INTERRUPTED)
    return Outcome(_standing(details), status=exit_status(details))


def _stop(client: JobSubmissionClient, job_id: str) -> Outcome:
    """Ends when the job has: it is given time to write how it stands."""
    client.stop_job(job_id)
    return Outcome(_standing(_ended(client, job_id, 2 * STOP_S)))


def _how(settings: SubmitSettings, job_id: str) -> dict[str, Any]:
    command = f"celebvision submit --address {settings.address}"
    return {"id": job_id} | {does: f"{command} --{does} {job_id}" for does in ("status", "logs", "stop")}


def _standing(details: JobDetails) -> dict[str, Any]:
    standing = {"id": details.submission_id, "status": JobStatus(details.status).value}
    if JobStatus(details.status).is_terminal():
        standing["exit_status"] = exit_status(details)
    if details.start_time:
        standing["seconds"] = round((details.end_time or time.time() * 1000) / 1000 - details.start_time / 1000)
    return standing
