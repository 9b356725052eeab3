"""A TCP proxy between two parties that behaves as bad networks do.

Without TLS it understands HTTP/1.1 and breaks requests and answers; with TLS it can only cut
connections after a random number of bytes. Every choice comes from a seed.

As a program it runs until its standard input ends, then prints what it did as one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import random
import sys
from collections.abc import Coroutine
from typing import Any

HEAD_BYTES = 1 << 16
PIECE_BYTES = 1 << 16

CUT_REQUEST = "cut_request"
"""A part of the request is passed on, then both connections end."""

DROP_REQUEST = "drop_request"
"""The request is swallowed and the connection ends."""

CUT_RESPONSE = "cut_response"
"""The request arrives; a part of its answer is passed on, then the connection ends."""

DROP_RESPONSE = "drop_response"
"""The request arrives; its answer is swallowed and the connection ends."""

DUPLICATE = "duplicate"
"""The request arrives twice on one connection; one answer is passed on."""

REPLAY = "replay"
"""The request arrives once more a little later, on a connection of its own."""

DELAY = "delay"
"""The answer comes late."""

FAULTS = (CUT_REQUEST, DROP_REQUEST, CUT_RESPONSE, DROP_RESPONSE, DUPLICATE, REPLAY, DELAY)


class FaultProxy:
    """Listens on a port and passes on to another, both on the loopback interface.

    Args:
        target: Where to pass on to.
        faults: How likely each fault is, per request; all else is passed on as it is.
        seed: Of all choices.
        delay: Seconds of the longest delay.
        bytes_until_cut: With this the proxy does not look into the stream: every connection is cut
            after a random number of bytes of this mean, in either direction.
    """

    def __init__(
        self,
        target: int,
        faults: dict[str, float] | None = None,
        *,
        seed: int = 0,
        delay: float = 0.02,
        bytes_until_cut: int | None = None,
    ) -> None:
        unknown = set(faults or ()) - set(FAULTS)
        if unknown:
            raise ValueError(f"there is no fault {sorted(unknown)[0]!r}")
        self.target, self.faults, self.delay = target, dict(faults or {}), delay
        self.bytes_until_cut = bytes_until_cut
        self.counts: collections.Counter[str] = collections.Counter()
        self.next_faults: collections.deque[str] = collections.deque()
        """Taken before anything random, one per request with a body."""
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> int:
        """Listens; returns the port."""
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", port, limit=HEAD_BYTES
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Ends listening and all connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_all(self) -> None:
        """Ends all connections that are open now."""
        for task in list(self._tasks):
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._spawn(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts["connections"] += 1
        ends = [writer]
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self.target, limit=HEAD_BYTES)
            ends.append(upstream[1])
            if self.bytes_until_cut is None:
                await self._requests((reader, writer), upstream)
            else:
                await self._bytes((reader, writer), upstream)
        except (OSError, asyncio.IncompleteReadError, _Cut):
            pass
        finally:
            for end in ends:
                end.transport.abort()

    async def _requests(self, client: _End, server: _End) -> None:
        while True:
            head, body = await _message(client[0])
            fault = self._fault(head)
            if fault is not None:
                self.counts[fault] += 1
            self.counts["requests"] += 1
            if fault == DROP_REQUEST:
                raise _Cut
            if fault == CUT_REQUEST:
                request = head + body
                server[1].write(request[: self._random.randrange(len(request))])
                await server[1].drain()
                # Without this the receiver may see the end before the bytes.
                await asyncio.sleep(0.001)
                raise _Cut
            if fault == REPLAY:
                self._spawn(self._replay(head + body))
            server[1].write(head)
            server[1].write(body)
            if fault == DUPLICATE:
                server[1].write(head + body)
            await server[1].drain()
            answer = await _message(server[0])
            if fault == DUPLICATE:
                await _message(server[0])
            if fault == DROP_RESPONSE:
                raise _Cut
            if fault == CUT_RESPONSE:
                whole = answer[0] + answer[1]
                client[1].write(whole[: self._random.randrange(1, len(whole))])
                await client[1].drain()
                raise _Cut
            if fault == DELAY:
                await asyncio.sleep(self._random.random() * self.delay)
            client[1].write(answer[0])
            client[1].write(answer[1])
            await client[1].drain()

    def _fault(self, head: bytes) -> str | None:
        if self.next_faults and head.startswith(b"POST"):
            return self.next_faults.popleft() or None
        chosen = self._random.random()
        for fault, likelihood in self.faults.items():
            chosen -= likelihood
            if chosen < 0:
                return fault
        return None

    async def _replay(self, request: bytes) -> None:
        await asyncio.sleep(self._random.random() * self.delay)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                writer.write(request)
                await _message(reader)
            finally:
                writer.transport.abort()

    async def _bytes(self, client: _End, server: _End) -> None:
        assert self.bytes_until_cut is not None
        left = [int(self._random.expovariate(1 / self.bytes_until_cut)) + 1]

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while piece := await reader.read(PIECE_BYTES):
                writer.write(piece[: left[0]])
                await writer.drain()
                left[0] -= len(piece)
                if left[0] <= 0:
                    self.counts["cuts"] += 1
                    raise _Cut
            raise _Cut

        pumps = [
            asyncio.create_task(pump(client[0], server[1])),
            asyncio.create_task(pump(server[0], client[1])),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Cut(Exception):
    """This connection ends here."""


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the next request or answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return head, await reader.readexactly(length) if length else b""


async def _run(options: argparse.Namespace) -> None:
    faults = {fault: getattr(options, fault) for fault in FAULTS if getattr(options, fault)}
    proxy = FaultProxy(
        options.target, faults, seed=options.seed, bytes_until_cut=options.bytes_until_cut
    )
    print(await proxy.start(), flush=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.read)
    await proxy.stop()
    print(json.dumps(proxy.counts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bytes-until-cut", type=int)
    for fault in FAULTS:
        parser.add_argument(f"--{fault.replace('_', '-')}", type=float, default=0.0)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
