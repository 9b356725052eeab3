"""The compatible wire by hand: what a genuine peer sends and answers, and what an attacker might."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import ormsgpack

RESET = "reset"
"""As an answer of :class:`RawPeer`: the connection is reset without one."""

SILENCE = "silence"
"""As an answer of :class:`RawPeer`: none, and the connection stays open."""

_OPTIONS = ormsgpack.OPT_SERIALIZE_NUMPY
_SECONDS = 40.0


def body_4(value: Any, message_id: int | str) -> bytes:
    """The body of a 4.x message, value packed plainly."""
    return ormsgpack.packb({"object": value, "id": message_id}, option=_OPTIONS)


def body_5(value: Any, message_id: str) -> bytes:
    """The body of a 5.x message, value packed plainly."""
    return ormsgpack.packb({"object": ormsgpack.packb(value, option=_OPTIONS), "id": message_id})


def head(length: int | None, server_port: int | None, **headers: str) -> bytes:
    """The head of a genuine sender's request."""
    lines = ["POST / HTTP/1.1", "Host: 127.0.0.1", "Accept: */*"]
    if server_port is not None:
        lines.append(f"Cookie: server_port={server_port}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    lines.append("Content-Type: application/octet-stream")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of an answer."""
    text = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _SECONDS)
    length = 0
    for line in text.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body = await asyncio.wait_for(reader.readexactly(length), _SECONDS) if length else b""
    return int(text.split()[1]), body


async def post(
    port: int,
    body: bytes,
    server_port: int | None,
    *,
    tls: ssl.SSLContext | None = None,
    source: str = "127.0.0.1",
    **headers: str,
) -> tuple[int, bytes]:
    """Sends one message on a connection of its own; returns status and body of the answer."""
    request = head(len(body), server_port, **headers) + body
    return await exchange(port, request, tls=tls, source=source)


async def exchange(
    port: int, request: bytes, *, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1"
) -> tuple[int, bytes]:
    """Sends any bytes on a connection of its own; returns status and body of the answer."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, local_addr=(source, 0)
    )
    try:
        writer.write(request)
        return await read_answer(reader)
    finally:
        writer.transport.abort()


Answer = int | str
Responder = Callable[[bytes], Answer]


class RawPeer:
    """Answers as a genuine 4.x server does, or as ``responder`` says, and keeps what it got.

    Attributes:
        bodies: Of all messages that were read to their end, in order.
        attempts: How many messages began to arrive.
    """

    def __init__(self, responder: Responder | None = None) -> None:
        self.responder = responder or (lambda _body: 200)
        self.bodies: list[bytes] = []
        self.attempts = 0
        self.reset_after: int | None = None
        """Bytes of a body after which the connection is reset."""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self, port: int = 0) -> int:
        """Listens; returns the port, which is also what to give as ``server_port``."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def stop(self) -> None:
        """Ends listening and all connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The bodies, unpacked."""
        return [ormsgpack.unpackb(body) for body in self.bodies]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while True:
                await self._request(reader, writer)
        except (OSError, asyncio.IncompleteReadError, _Reset):
            pass
        finally:
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in text.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if text.startswith(b"GET"):
            writer.write(_answer(200, b"Connection working (GET)"))
            return
        self.attempts += 1
        if self.reset_after is not None and length > self.reset_after:
            await reader.readexactly(self.reset_after)
            raise _Reset
        body = await reader.readexactly(length)
        self.bodies.append(body)
        answer = self.responder(body)
        if answer == RESET:
            raise _Reset
        if answer == SILENCE:
            await asyncio.sleep(3600)
        assert isinstance(answer, int)
        writer.write(_answer(answer, b"Message received" if answer == 200 else b"refused"))
        await writer.drain()


class _Reset(Exception):
    """This connection is reset."""


def _answer(status: int, body: bytes) -> bytes:
    return (
        f"HTTP/1.1 {status} Whatever\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
