"""A genuine package as another process, seen from the tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("pool_party.py")
START_SECONDS = 30.0
ANSWER_SECONDS = 60.0
ANSWER_BYTES = 64 << 20


class PeerFailed(Exception):
    """The genuine package raised; ``kind`` is the name of the exception's class."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class GenuinePeer:
    """One party, run by the interpreter of a genuine package.

    Args:
        python: That interpreter.
        options: Keywords of :class:`pool_party.Party`.
    """

    def __init__(self, python: Path, **options: Any) -> None:
        self._python, self._options = python, options
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def spawn(self) -> None:
        """Runs the interpreter; the party listens only after :meth:`start`."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self._process = await asyncio.create_subprocess_exec(
            str(self._python),
            str(PROGRAM),
            json.dumps(self._options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=ANSWER_BYTES,
            env=environment,
        )
        self._reader = asyncio.create_task(self._read())

    async def start(self) -> None:
        """Runs the interpreter if it does not run, and makes the party listen."""
        if self._process is None:
            await self.spawn()
        await asyncio.wait_for(self.call("start"), START_SECONDS)

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            future = self._answers.pop(answer["number"], None)
            if future is None or future.done():
                continue
            if "error" in answer:
                future.set_exception(PeerFailed(answer["error"], answer["text"]))
            else:
                future.set_result(answer["ok"])
        for future in self._answers.values():
            if not future.done():
                future.set_exception(PeerFailed("Ended", "the genuine peer's process has ended"))

    def call(self, verb: str, **command: Any) -> asyncio.Future[Any]:
        """Gives a command; the future is the peer's answer."""
        assert self._process is not None and self._process.stdin is not None
        self._number += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = future
        line = json.dumps({"number": self._number, "do": verb, **command})
        self._process.stdin.write(line.encode() + b"\n")
        return future

    async def send(self, to: str, value: str, message_id: int | str | None = None) -> None:
        command = self.call("send", to=to, value=value, id=message_id)
        await asyncio.wait_for(command, ANSWER_SECONDS)

    async def recv(self, of: str, message_id: int | str | None = None, timeout: float = 20) -> Any:
        command = self.call("recv", of=of, id=message_id, timeout=timeout)
        return await asyncio.wait_for(command, ANSWER_SECONDS)

    async def stop(self) -> None:
        """Ends the process; an orderly end first."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._reader is not None:
            await self._reader


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for open_socket in sockets:
        open_socket.bind(("127.0.0.1", 0))
    ports = [int(open_socket.getsockname()[1]) for open_socket in sockets]
    for open_socket in sockets:
        open_socket.close()
    return ports
