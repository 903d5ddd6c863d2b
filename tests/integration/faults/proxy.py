"""A proxy between an S3 client and its server that harms a share of the requests, the same ones for the same seed."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

ERROR = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'


@dataclass(frozen=True)
class Faults:
    """Which share of the requests meets what; all others pass."""

    slow_down: float = 0.0  # 503, not asked of the server
    reset: float = 0.0  # the server has done it, the connection breaks in the middle of its answer
    stall: float = 0.0  # as before, but then there is silence until the client gives up
    most_stalls: int = 1_000_000
    stall_on: str = ""  # end of the paths that may stall
    expire_after: int | None = None  # requests, after which all are 403 ExpiredToken until `renew`


@dataclass(frozen=True)
class Request:
    """What a client asked: `head` with the empty line behind it, and the body."""

    head: bytes
    body: bytes

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].partition(b"?")[0].decode()

    def alone(self) -> bytes:
        """The request as the only one of its connection. Host stays as the client signed it."""
        lines = self.head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        kept = [line for line in lines if line.partition(b":")[0].lower() not in (b"connection", b"expect")]
        return b"\r\n".join([*kept, b"Connection: close", b"", b""]) + self.body


class FaultProxy:
    """Serves on a loopback port in a thread of its own, one request a connection; `injected` counts the faults."""

    def __init__(self, upstream: str, seed: int, faults: Faults) -> None:
        self.faults, self.injected, self.requests = faults, Counter[str](), 0
        self._upstream, self._random = urlsplit(upstream), random.Random(seed)
        self._expires = faults.expire_after is not None
        self._loop, self._ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the proxy did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def renew(self) -> None:
        """Give the clients new credentials: nothing expires any more."""
        self._expires = False

    async def _run(self) -> None:
        self._end = asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._end.wait()
        server.close()
        open_ones = asyncio.all_tasks() - {asyncio.current_task()}
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read(reader, writer)
            await self._answer(request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # a client that was killed, or gave up
        finally:
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._draw(request)
        self.injected[fault] += 1
        if fault == "slow_down":
            writer.write(_error(503, "SlowDown", "Please reduce your request rate.", request))
        elif fault == "expired":
            writer.write(_error(403, "ExpiredToken", "The provided token has expired.", request))
        else:
            answer = await self._ask(request)
            writer.write(answer if fault == "passed" else answer[: _middle(answer)])
        await writer.drain()
        if fault == "stall":
            await reader.read()  # ends when the client closes
        elif fault == "reset":
            linger = struct.pack("ii", 1, 0)  # closing then sends RST
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    def _draw(self, request: Request) -> str:
        self.requests += 1
        if self._expires and self.requests > (self.faults.expire_after or 0):
            return "expired"
        drawn = self._random.random()  # one a request, whatever comes of it: so the seed decides
        for fault in ("slow_down", "reset", "stall"):
            drawn -= getattr(self.faults, fault)
            if drawn < 0:
                may = fault != "stall" or self._may_stall(request)
                return fault if may else "passed"
        return "passed"

    def _may_stall(self, request: Request) -> bool:
        return self.injected["stall"] < self.faults.most_stalls and request.path.endswith(self.faults.stall_on)

    async def _ask(self, request: Request) -> bytes:
        reader, writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        try:
            writer.write(request.alone())
            return await reader.read()
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")[1:]
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if fields.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert "transfer-encoding" not in fields, "our clients send the length of what they put"
    return Request(head, await reader.readexactly(int(fields.get("content-length", 0))))


def _middle(answer: bytes) -> int:
    """Half of the body, or of the head where there is no body."""
    head = answer.index(b"\r\n\r\n") + 4
    return head + (len(answer) - head) // 2 if len(answer) > head + 1 else head // 2


def _error(status: int, code: str, message: str, request: Request) -> bytes:
    content = ERROR.format(code=code, message=message).encode()
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + (b"" if request.head.startswith(b"HEAD ") else content)
