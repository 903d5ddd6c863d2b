"""The cluster's token: taken from SSM's Parameter Store into a file that its owner alone can read.

The head runs it with `--make`, and makes a token where there is none yet; workers come later and find it. Both may do
so by their instance's role: the token stands in no YAML, no image and no Terraform state.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

PARAMETER = "/celebvision/ray-token"


class NoToken(Exception):
    """There is no token for this node; the message says why, and what to do."""


def token(make: bool) -> str:
    """The cluster's token; with `make`, a new one if there is none.

    Raises:
        NoToken: there is none, or this node may not have it.
    """
    ssm = boto3.client("ssm")
    try:
        return _stored(ssm)
    except ssm.exceptions.ParameterNotFound as error:
        if not make:
            raise NoToken(f"{PARAMETER}: no such parameter in {ssm.meta.region_name}: start the head first") from error
    try:
        made = secrets.token_hex(32)
        ssm.put_parameter(Name=PARAMETER, Value=made, Type="SecureString", Description="Ray's token of this cluster")
    except ssm.exceptions.ParameterAlreadyExists:  # made meanwhile by somebody else: theirs is the one
        return _stored(ssm)
    return made


def _stored(ssm: boto3.client) -> str:
    value: str = ssm.get_parameter(Name=PARAMETER, WithDecryption=True)["Parameter"]["Value"]
    return value


def write(path: Path, value: str) -> None:
    """Let `path` hold `value`, at no moment readable by others and at no moment half."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(value)
    beside.replace(path)


def main(words: list[str]) -> int:
    """Put the token at `RAY_AUTH_TOKEN_PATH`."""
    try:
        if words not in ([], ["--make"]):
            raise NoToken(f"{' '.join(words)!r} is not understood: say --make on the head, and nothing on a worker")
        if not (path := os.environ.get("RAY_AUTH_TOKEN_PATH")):
            raise NoToken("RAY_AUTH_TOKEN_PATH is not set: set it to the file that Ray shall read")
        write(Path(path), token(make=bool(words)))
    except (NoToken, ClientError, BotoCoreError, OSError) as error:
        print(f"no token: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
