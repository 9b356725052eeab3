"""The pool of the 5.0 API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from convelo._peer import Limits, decode_all, receive_all
from convelo._pool import PoolCore
from convelo.compat.tno5.buffer import Buffer
from convelo.compat.tno5.clients import Client, PacketClient, PackingClient, logger
from convelo.compat.tno5.communicators.communicator import (
    Communicator,
    CommunicatorState,
    require,
    stop,
)
from convelo.compat.tno5.communicators.http_communicator import HttpCommunicator
from convelo.compat.tno5.exceptions import CommunicationError
from convelo.compat.tno5.packers.packer import DefaultPacker, Packer
from convelo.exceptions import PeerNotAuthenticated, PoolError, ReceiveTimeout

__all__ = ["Pool", "logger"]


class Pool(AbstractAsyncContextManager["Pool"]):
    """Sends objects to, and receives objects from, the other parties of a computation.

    Example::

        pool = Pool("alice", HttpCommunicator("127.0.0.1", 61001))
        pool.add_client("bob", HttpConnection("127.0.0.1", 61002))
        async with pool:
            await pool.send("bob", "Hello")
            reply = await pool.recv("bob")

    Args:
        name: This party's name.
        communicator: The transport. With an :class:`HttpCommunicator`, messages go directly, and
            two parties that both use convelo use its own wire; any other communicator carries
            packets of bytes.
        packer: Turns objects into bytes; by default a :class:`DefaultPacker`.
        timeout: Seconds that a receive waits by default; ``None`` for as long as it takes.
    """

    def __init__(
        self,
        name: str,
        communicator: Communicator[Any],
        packer: Packer | None = None,
        *,
        timeout: float | None = 3,
    ) -> None:
        self.name = name
        self.communicator = communicator
        self.packer = packer or DefaultPacker()
        self.buffer: Buffer[Any] = Buffer()
        self._timeout = timeout
        self._http = communicator if isinstance(communicator, HttpCommunicator) else None
        self._core: PoolCore[Client] = self._http.core if self._http else PoolCore(logger, logger)
        self._limits: Limits = self._http.limits if self._http else (None, -1)
        self._clients = self._core.peers
        communicator.set_receive_handler(self._receive_handler)

    async def initialize(self) -> None:
        """Starts to listen.

        Raises:
            IllegalStateAction: The pool was already started.
            OSError: The address cannot be bound.
        """
        await self.communicator.initialize()

    def add_client(self, name: str, connection: Any) -> None:
        """Adds a peer to send to and to receive from.

        Args:
            name: Its name in this pool.
            connection: How the communicator reaches it.

        Raises:
            KeyError: The name is taken.
            IllegalStateAction: The pool was started.
        """
        if name in self._clients:
            raise KeyError(f"Client with name '{name}' already registered!")
        self.communicator.add_connection(name, connection)
        self.buffer.add_client(name)
        self._clients[name] = self._client(name)

    def _client(self, name: str) -> Client:
        binding, packer, communicator = self._core.binding, self.packer, self.communicator
        if self._http is None:
            return PacketClient(binding, name, packer, communicator, self.buffer)
        if self._http.sends_packets or type(packer) is not DefaultPacker:
            return PackingClient(binding, name, packer, communicator)
        return Client(binding, name, packer)

    @property
    def clients(self) -> set[str]:
        """The names of the peers."""
        return set(self._clients)

    async def send(self, recipient_name: str, message: Any, msg_id: str | None = None) -> None:
        """Sends an object and waits until the peer has it.

        Args:
            recipient_name: The peer's name.
            message: The object. Arrays and buffers must not change before this returns.
            msg_id: The id by which the peer can ask for it; by default a number counted per peer.

        Raises:
            KeyError: There is no such peer.
            TypeError: The object cannot be packed.
            CommunicationError: It was not delivered, or it is not known whether it was.
            PeerNotAuthenticated: The peer could not prove who it is (if aiohttp is loaded, an
                ``aiohttp.ClientConnectorCertificateError``).
            IllegalStateAction: The pool is not running.
        """
        client = self._reach(recipient_name, "send")
        try:
            await client.post(message, msg_id or None, self._limits)
        except PoolError as error:
            raise _communication_error(error) from error

    async def broadcast(
        self, message: Any, msg_id: str | None, recipient_names: Iterable[str] | None = None
    ) -> None:
        """Sends one object to several peers (by default to all) and waits until all have it.

        Raises:
            As :meth:`send`; the notes of the error name other peers that did not get it.
        """
        names = list(recipient_names or self._clients)
        clients = [self._reach(name, "send") for name in names]
        if not clients:
            return
        try:
            encode = clients[0].encode
            await self._core.broadcast(clients, message, msg_id or None, self._limits, encode)
        except PoolError as error:
            failure = _communication_error(error)
            if failure is not error:
                for note in getattr(error, "__notes__", ()):
                    failure.add_note(note)
            raise failure from error

    async def recv(
        self, sender_name: str, msg_id: str | None = None, timeout: float | None = None
    ) -> Any:
        """Receives an object.

        A receive that is cancelled or times out changes nothing: the next one gets the message.

        Args:
            sender_name: The name of the peer that sends it.
            msg_id: Its id; by default a number counted per peer.
            timeout: Seconds to wait; ``None`` and 0 for the pool's default.

        Raises:
            KeyError: There is no such peer.
            CommunicationError: It did not arrive in time, will never arrive, or cannot be
                decoded.
            IllegalStateAction: The pool was not started.
        """
        client = self._reach(sender_name, "recv")
        patience = timeout or self._timeout
        try:
            message = client.request(msg_id or None)
            if not isinstance(message, tuple):
                message = await client.wait(message, msg_id or None, patience)
            return client.decode(message)
        except PoolError as error:
            raise _communication_error(error) from error

    async def recv_all(
        self,
        sender_names: Iterable[str] | None = None,
        msg_id: str | None = None,
        timeout: float | None = None,
    ) -> list[tuple[str, Any]]:
        """Receives one object from each peer (by default from all).

        Returns:
            Pairs of name and object, in the order of the names.

        Raises:
            As :meth:`recv`. What the other peers sent can still be received then.
        """
        names = list(sender_names or self._clients)
        clients = [self._reach(name, "recv") for name in names]
        patience = timeout or self._timeout
        try:
            taken = await receive_all(clients, msg_id or None, patience)
            return list(zip(names, decode_all(taken, msg_id or None), strict=True))
        except PoolError as error:
            raise _communication_error(error) from error

    async def shutdown(self) -> None:
        """Ends the pool. Receives that are waiting raise :class:`CommunicationError`.

        Raises:
            IllegalStateAction: The pool is not running.
        """
        clients = self._clients.values()
        waiting = sum(len(client.waiting) for client in clients)
        if waiting:
            logger.warning(
                "There are %d messages being awaited that have not yet been received.", waiting
            )
        for client in clients:
            client.end_waiting()
        await self.communicator.shutdown()
        for client in clients:
            client.log_network_usage()
        self._core.log_totals(logger)

    def abort(self) -> None:
        """Ends the pool at once, from outside any loop."""
        stop(self.communicator)
        self._core.abort()

    def reset(self) -> None:
        """Restarts all conversations: nothing has arrived, and default ids count from 0."""
        self.buffer.empty()
        for client in self._clients.values():
            client.reset()

    async def __aenter__(self) -> Pool:
        await self.initialize()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool:
        await self.shutdown()
        return False

    def _reach(self, name: str, action: str) -> Client:
        client = self._clients.get(name)
        if client is None:
            raise KeyError(f"No client with name '{name}' is registered to this pool.")
        if self._http is not None:
            require(self._http, CommunicatorState.STARTED, action)
        return client

    async def _receive_handler(self, sender_name: str, packet: bytes) -> None:
        client = self._clients.get(sender_name)
        if client is None:
            raise KeyError(f"No client with name '{sender_name}' is registered to this pool.")
        client.receive(packet)


def _communication_error(error: PoolError) -> Exception:
    if isinstance(error, PeerNotAuthenticated):
        return error
    if isinstance(error, ReceiveTimeout):
        return CommunicationError(
            f"{error}. Either it was never sent, or it takes longer: Pool.recv(timeout=...) and "
            "Pool(timeout=...) set how long to wait"
        )
    return CommunicationError(str(error))
