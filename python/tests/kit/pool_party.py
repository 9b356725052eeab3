"""One party of either API line, driven by name: of our package, or of the genuine one.

Run as a program, in the interpreter of a genuine package, it takes commands as JSON lines on its
standard input and answers on its standard output, until the input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import ssl
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import sample_values

COMMAND_BYTES = 1 << 20


class Party:
    """A pool with its peers, and the same few verbs for both API lines.

    Args:
        module: What to import.
        api: 4 or 5.
        port: Our port on the loopback interface.
        peers: Port, and path of the certificate with TLS, of every peer.
        tls: Paths of ``key``, ``cert`` and ``ca_cert``; ``None`` without TLS.
        wires: What ``add_http_client`` of our package is told of each peer.
        tries: How often a communicator of the 5.0 API tries to connect, once a second.
    """

    def __init__(
        self,
        module: str,
        api: int,
        port: int,
        peers: dict[str, tuple[int, str | None]],
        tls: dict[str, str] | None = None,
        wires: dict[str, int] | None = None,
        tries: int = 3,
    ) -> None:
        self.module = importlib.import_module(module)
        self.api, self.port, self.peers, self.tls = api, port, peers, tls
        self.wires, self.tries = wires or {}, tries
        self.pool: Any = None

    def register_classes(self) -> None:
        if self.api == 4:
            registry = self.module.Serialization
        else:
            name = f"{self.module.__name__}.packers.serialization"
            registry = importlib.import_module(name).Serializer
        for cls in sample_values.CLASSES:
            registry.register_class(cls, check_annotations=False, overwrite=True)

    async def start(self) -> None:
        if self.api == 4:
            self.pool = self.module.Pool(**(self.tls or {}))
            self.pool.add_http_server(port=self.port, addr="127.0.0.1")
            for name, (port, cert) in self.peers.items():
                more: dict[str, Any] = {"cert": cert} if cert else {}
                if name in self.wires:
                    more["wire"] = self.wires[name]
                self.pool.add_http_client(name, "127.0.0.1", port=port, **more)
            if hasattr(self.pool.http_server, "server_task"):
                # The genuine server is a task that needs a few turns of the loop.
                await asyncio.sleep(0.05)
            return
        contexts = {}
        if self.tls:
            # Ours cannot read the key back from a context that it did not see being made.
            with getattr(self.module, "remember_ssl_files", contextlib.nullcontext)():
                contexts = {
                    "ssl_client_context": self._context(ssl.Purpose.SERVER_AUTH),
                    "ssl_server_context": self._context(ssl.Purpose.CLIENT_AUTH),
                }
        communicator = self.module.HttpCommunicator(
            addr="127.0.0.1", port=self.port, conn_retry_max=self.tries, **contexts
        )
        self.pool = self.module.Pool("me", communicator, timeout=None)
        for name, (port, cert) in self.peers.items():
            more = {"cert": cert} if cert else {}
            self.pool.add_client(name, self.module.HttpConnection("127.0.0.1", port, **more))
        await self.pool.initialize()

    def _context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        assert self.tls is not None
        context = ssl.create_default_context(purpose)
        context.load_cert_chain(self.tls["cert"], self.tls["key"])
        context.load_verify_locations(self.tls["ca_cert"])
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    async def send(
        self, to: str, value: Any, message_id: int | str | None = None, retries: int | None = None
    ) -> None:
        if self.api == 4:
            more = {} if retries is None else {"max_retries": retries}
            await self.pool.send(to, value, message_id, **more)
        else:
            await self.pool.send(to, value, message_id)

    async def recv(
        self, of: str, message_id: int | str | None = None, timeout: float = 20.0
    ) -> Any:
        return await asyncio.wait_for(self.pool.recv(of, message_id), timeout)

    async def broadcast(
        self, value: Any, message_id: str, to: Sequence[str] | None = None
    ) -> None:
        await self.pool.broadcast(value, message_id, to)

    async def recv_all(
        self, message_id: str, of: Sequence[str] | None = None, timeout: float = 20.0
    ) -> list[tuple[str, Any]]:
        received = await asyncio.wait_for(self.pool.recv_all(of, message_id), timeout)
        return sorted((name, value) for name, value in received)

    async def stop(self) -> None:
        if self.pool is not None:
            await self.pool.shutdown()


async def obey(party: Party, command: dict[str, Any]) -> Any:
    """Carries out one command; what is received is described."""
    verb = command.pop("do")
    if verb == "start":
        return await party.start()
    if verb == "send":
        value = sample_values.VALUES[command["value"]]()
        return await party.send(command["to"], value, command["id"], command.get("retries"))
    if verb == "send_numbers":
        for number in range(command["count"]):
            await party.send(command["to"], number)
        return None
    if verb == "recv":
        return sample_values.describe(
            await party.recv(command["of"], command["id"], command["timeout"])
        )
    if verb == "recv_numbers":
        return [await party.recv(command["of"]) for _ in range(command["count"])]
    if verb == "broadcast":
        value = sample_values.VALUES[command["value"]]()
        return await party.broadcast(value, command["id"], command["to"])
    if verb == "recv_all":
        received = await party.recv_all(command["id"], command["of"])
        return [[name, sample_values.describe(value)] for name, value in received]
    if verb == "prefix":
        return party.pool.update_msg_prefix(command["prefix"])
    raise ValueError(f"there is no verb {verb!r}")


async def serve(party: Party) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=COMMAND_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()

    async def answer(number: int, command: dict[str, Any]) -> None:
        try:
            result = {"ok": await obey(party, command)}
        except Exception as error:
            result = {"error": type(error).__name__, "text": str(error)}
        print(json.dumps({"number": number, **result}), flush=True)

    while line := await reader.readline():
        command = json.loads(line)
        task = asyncio.create_task(answer(command.pop("number"), command))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()
    await asyncio.wait_for(party.stop(), 5)


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    options = json.loads(sys.argv[1])
    party = Party(**options)
    party.register_classes()
    asyncio.run(serve(party))


if __name__ == "__main__":
    main()
