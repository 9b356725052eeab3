"""The pool of the 5.0 API."""

from __future__ import annotations

import asyncio
import heapq
import logging
import warnings
from asyncio import get_running_loop
from collections import deque
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import ormsgpack

from convelo._convelo import WIRE_SECOND, Completions
from convelo._engine import Message, completions_of, loop_here
from convelo._link import Link, request_all, size_of, wanted
from convelo.compat.tno5.buffer import Buffer
from convelo.compat.tno5.communicators.communicator import (
    Communicator,
    CommunicatorState,
    IllegalStateAction,
)
from convelo.compat.tno5.communicators.http_communicator import HttpCommunicator
from convelo.compat.tno5.exceptions import CommunicationError, NumpySerializationWarning
from convelo.compat.tno5.packers.packer import DefaultPacker, Packer
from convelo.compat.tno5.packers.serialization import STATE
from convelo.exceptions import PeerNotAuthenticated, PoolError, ReceiveTimeout
from convelo.wire.compatible import decode_value, encode_value
from convelo.wire.second import decode as decode_second
from convelo.wire.second import encode as encode_second

__all__ = ["Pool", "logger"]

# A child of the name that the users' logging configuration knows: it takes effect on ours.
logger = logging.getLogger("tno.mpc.communication.pool.convelo")

_STARTED = CommunicatorState.STARTED


class _Counter:
    """Default ids of one direction; one that was not used is used next."""

    def __init__(self) -> None:
        self._next = 0
        self._returned: list[int] = []

    def take(self) -> int:
        if self._returned:
            return heapq.heappop(self._returned)
        self._next += 1
        return self._next - 1

    def give_back(self, number: int) -> None:
        heapq.heappush(self._returned, number)

    @property
    def count(self) -> int:
        return self._next - len(self._returned)


class _Client:
    """What a pool counts of one peer."""

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier
        self._sent_bytes = 0
        self._received_bytes = 0
        self._link: Link | None = None
        self._sending = _Counter()
        self._receiving = _Counter()
        self._waiting: dict[str, deque[asyncio.Future[Any]]] = {}
        # Further messages under an id that is in the buffer already.
        self._later: dict[str, deque[Any]] = {}

    @property
    def total_bytes_sent(self) -> int:
        """Bytes of the messages sent so far."""
        return self._sent_bytes + (0 if self._link is None else self._link.total_bytes_sent)

    @property
    def total_bytes_recv(self) -> int:
        """Bytes of the messages received so far."""
        return self._received_bytes + (0 if self._link is None else self._link.total_bytes_recv)

    @property
    def msg_send_counter(self) -> int:
        """Messages sent so far."""
        return self._sending.count if self._link is None else self._link.msg_send_counter

    @property
    def msg_recv_counter(self) -> int:
        """Messages asked for so far."""
        return self._receiving.count if self._link is None else self._link.msg_recv_counter

    def log_network_usage(self) -> None:
        """Logs the four numbers."""
        logger.info(
            "Client %s shutdown\nTotal bytes sent: %d\nTotal messages sent: %d\n"
            "Total bytes received: %d\nTotal messages received: %d",
            self.identifier,
            self.total_bytes_sent,
            self.msg_send_counter,
            self.total_bytes_recv,
            self.msg_recv_counter,
        )

    def reset(self) -> None:
        """Begins the conversation anew."""
        self._sent_bytes = self._received_bytes = 0
        self._sending, self._receiving = _Counter(), _Counter()
        self._later.clear()
        if self._link is not None:
            self._link._reset()


class Pool(AbstractAsyncContextManager["Pool"]):
    """Sends objects to, and receives objects from, the other parties of a computation.

    Example::

        async with Pool("alice", communicator) as pool:
            await pool.send("bob", "Hello")
            reply = await pool.recv("bob")

    Args:
        name: What this party is called.
        communicator: The transport. With an :class:`HttpCommunicator` messages go the short way,
            and two parties that both use convelo speak its own wire; any other gets and hands on
            packets of bytes.
        packer: Makes bytes of objects; :class:`DefaultPacker` without it.
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
        self._clients: dict[str, _Client] = {}
        self._timeout = timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._completions: Completions | None = None
        self._packs_itself = type(self.packer) is DefaultPacker
        self._http: HttpCommunicator | None = None
        if isinstance(communicator, HttpCommunicator):
            self._http = communicator
            communicator._join(self)
        self._is_direct = (
            self._http is not None
            and self._packs_itself
            and type(self._http)._send is HttpCommunicator._send
        )
        communicator.set_receive_handler(self._receive_handler)

    async def initialize(self) -> None:
        """Starts to listen.

        Raises:
            IllegalStateAction: The pool was started before.
            OSError: The address cannot be bound.
        """
        await self.communicator.initialize()

    def add_client(self, name: str, connection: Any) -> None:
        """Makes a peer known.

        Args:
            name: What it is called in this pool.
            connection: How the communicator reaches it.

        Raises:
            KeyError: The name is taken.
            IllegalStateAction: The pool was started.
        """
        if name in self._clients:
            raise KeyError(f"Client with name '{name}' already registered!")
        self.communicator.add_connection(name, connection)
        self.buffer.add_client(name)
        self._clients[name] = _Client(name)

    @property
    def clients(self) -> set[str]:
        """The names of the peers."""
        return set(self._clients)

    async def send(self, recipient_name: str, message: Any, msg_id: str | None = None) -> None:
        """Sends an object and waits until the peer has it.

        Args:
            recipient_name: The peer's name.
            message: The object. Arrays and buffers must not change before this returns.
            msg_id: Under which the peer can ask for it; without it a number counted up per peer.

        Raises:
            KeyError: There is no such peer.
            TypeError: The object cannot be packed.
            CommunicationError: It was not delivered, or that is not known.
            PeerNotAuthenticated: The peer could not prove who it is (where aiohttp is loaded, an
                ``aiohttp.ClientConnectorCertificateError``).
            IllegalStateAction: The pool does not run.
        """
        client = self._client(recipient_name)
        if not self._is_direct:
            await self._send_packet(client, message, msg_id)
            return
        link = self._link(client, "send")
        http = self._http
        assert http is not None
        completions = self._completions_here()
        chosen, seconds, patience = msg_id or None, http._seconds, http._patience
        try:
            if link._undecided or not (wire := link._node_wire(link._index)):

                def transmit(wire: int) -> asyncio.Future[None]:
                    return link._transmit(
                        completions, chosen, wire, *self._encode(wire, message), seconds, patience
                    )

                turn = link._queue_up(completions, seconds, patience)
                await (await turn.take(chosen, transmit))
                return
            value, buffers = self._encode(wire, message)
            await link._transmit(completions, chosen, wire, value, buffers, seconds, patience)
        except PoolError as error:
            raise _communication_error(error) from error

    async def broadcast(
        self, message: Any, msg_id: str | None, recipient_names: Iterable[str] | None = None
    ) -> None:
        """Sends one object to several peers (without names: to all) and waits until all have it.

        Raises:
            As :meth:`send`; the notes of the error name further peers that did not get it.
        """
        names = list(recipient_names or self._clients)
        clients = [self._client(name) for name in names]
        work = [
            asyncio.ensure_future(self.send(client.identifier, message, msg_id))
            for client in clients
        ]
        if not work:
            return
        try:
            await asyncio.wait(work)
        except asyncio.CancelledError:
            for task in work:
                task.cancel()
            raise
        errors = [error for task in work if (error := task.exception()) is not None]
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"also: {other}")
            raise errors[0]

    async def recv(
        self, sender_name: str, msg_id: str | None = None, timeout: float | None = None
    ) -> Any:
        """Receives an object.

        A receive that is cancelled, or too late, changes nothing: the next one gets the message.

        Args:
            sender_name: The name of the peer that sends it.
            msg_id: Its id; without it a number counted up per peer.
            timeout: Seconds to wait; ``None`` and 0 for the pool's default.

        Raises:
            KeyError: There is no such peer.
            CommunicationError: It did not come in time, cannot come any more, or cannot be
                decoded.
            IllegalStateAction: The pool was not started.
        """
        client = self._client(sender_name)
        patience = timeout or self._timeout
        if self._http is None:
            return await self._recv_packet(client, msg_id or None, patience)
        link = self._link(client, "recv")
        try:
            message = link._request(self._completions_here(), msg_id or None)
            if not isinstance(message, tuple):
                message = await link._wait(message, msg_id or None, patience)
        except PoolError as error:
            raise _communication_error(error) from error
        return self._decode(link, message)

    async def recv_all(
        self,
        sender_names: Iterable[str] | None = None,
        msg_id: str | None = None,
        timeout: float | None = None,
    ) -> list[tuple[str, Any]]:
        """Receives one object of each peer (without names: of all).

        Returns:
            Pairs of name and object, in the order of the names.

        Raises:
            As :meth:`recv`. What the other peers sent can still be received then.
        """
        names = list(sender_names or self._clients)
        clients = [self._client(name) for name in names]
        if self._http is None:
            return await self._recv_packets(clients, msg_id or None, timeout or self._timeout)
        completions = self._completions_here()
        links = [self._link(client, "recv") for client in clients]
        try:
            messages = await request_all(
                links, completions, msg_id or None, timeout or self._timeout
            )
        except PoolError as error:
            raise _communication_error(error) from error
        received: list[tuple[str, Any]] = []
        for position, (name, link, message) in enumerate(
            zip(names, links, messages, strict=True)
        ):
            try:
                received.append((name, self._decode(link, message)))
            except CommunicationError:
                # What cannot be decoded is gone; the others wait for another call.
                for other, (its_link, kept) in enumerate(zip(links, messages, strict=True)):
                    if other != position:
                        its_link._give_back(msg_id or None, kept)
                raise
        return received

    async def shutdown(self) -> None:
        """Ends the pool. Whoever still waits for a message gets :class:`CommunicationError`.

        Raises:
            IllegalStateAction: The pool does not run.
        """
        waiting = self._end_waiting()
        if waiting:
            logger.warning(
                "There are %d messages being awaited that have not yet been received.", waiting
            )
        await self.communicator.shutdown()
        clients = self._clients.values()
        for client in clients:
            client.log_network_usage()
        logger.info(
            "Pool shutdown.\nTotal bytes sent: %d\nTotal messages sent: %d\n"
            "Total bytes received: %d\nTotal messages received: %d",
            sum(client.total_bytes_sent for client in clients),
            sum(client.msg_send_counter for client in clients),
            sum(client.total_bytes_recv for client in clients),
            sum(client.msg_recv_counter for client in clients),
        )

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

    # By the transport

    def _completions_here(self) -> Completions:
        loop = loop_here(self._loop)
        if loop is not self._loop or self._completions is None:
            self._completions = completions_of(loop)
            self._loop = loop
        return self._completions

    def _client(self, name: str) -> _Client:
        client = self._clients.get(name)
        if client is None:
            raise KeyError(f"No client with name '{name}' is registered to this pool.")
        return client

    def _link(self, client: _Client, action: str) -> Link:
        state = self.communicator._state
        if state != _STARTED:
            raise IllegalStateAction(action, state)
        link = client._link
        if link is None:
            assert self._http is not None
            link = self._http._connections[client.identifier]._link
            assert link is not None
            client._link = link
        return link

    def _encode(self, wire: int, message: Any) -> tuple[Any, list[Any] | None]:
        packer = self.packer
        assert isinstance(packer, DefaultPacker)
        options = packer.serializer_opts
        if wire == WIRE_SECOND:
            return encode_second(message, STATE, option=options.ormsgpack_option)
        if type(message).__name__ == "ndarray":
            warnings.warn(
                "The peer uses the genuine package: the numpy array may arrive as nested lists; "
                "np.asarray makes an array of them.",
                NumpySerializationWarning,
                stacklevel=3,
            )
        value = encode_value(
            message,
            wire=wire,
            state=STATE,
            option=options.ormsgpack_option,
            use_pickle=options.fallback_pickle,
        )
        return value, None

    def _decode(self, link: Link, message: Message) -> Any:
        wire, message_id, value, buffers = message
        packer = self.packer
        try:
            if not self._packs_itself:
                packet = ormsgpack.packb({"object": bytes(value), "id": message_id})
                decoded = packer.unpack(packet)[1]
            elif wire == WIRE_SECOND:
                decoded = decode_second(value, buffers, STATE)
            else:
                assert isinstance(packer, DefaultPacker)
                options = packer.deserializer_opts
                decoded = decode_value(
                    value,
                    wire=wire,
                    state=STATE,
                    option=options.ormsgpack_option,
                    use_pickle=options.fallback_pickle,
                )
        except Exception as error:
            raise CommunicationError(
                f"message {message_id!r} from '{link.name}' cannot be decoded: {error}"
            ) from error
        link.total_bytes_recv += size_of(value, buffers)
        if logger.isEnabledFor(logging.INFO):
            logger.info("Received message from %s", link.name)
        return decoded

    # By packets of bytes

    async def _send_packet(self, client: _Client, message: Any, msg_id: str | None) -> None:
        if self._http is not None:
            link = self._link(client, "send")
            packet = self.packer.pack(message, msg_id or str(link.msg_send_counter))
            try:
                await self.communicator.send(client.identifier, packet)
            except PoolError as error:
                raise _communication_error(error) from error
            return
        number = client._sending.take()
        try:
            packet = self.packer.pack(message, msg_id or str(number))
            await self.communicator.send(client.identifier, packet)
        except Exception:
            client._sending.give_back(number)
            raise
        client._sent_bytes += len(packet)

    async def _receive_handler(self, sender_name: str, packet: bytes) -> None:
        client = self._client(sender_name)
        msg_id, message = self.packer.unpack(packet)
        client._received_bytes += len(packet)
        self._deliver(client, msg_id, message)

    def _deliver(self, client: _Client, msg_id: str, message: Any) -> None:
        waiting = client._waiting.get(msg_id)
        while waiting:
            future = waiting.popleft()
            if not waiting:
                del client._waiting[msg_id]
            if not future.done():
                future.set_result(message)
                return
        if self.buffer.has_message(client.identifier, msg_id):
            client._later.setdefault(msg_id, deque()).append(message)
        else:
            self.buffer.push(client.identifier, msg_id, message)

    def _ask(self, client: _Client, msg_id: str) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = get_running_loop().create_future()
        if self.buffer.has_message(client.identifier, msg_id):
            future.set_result(self.buffer.pop(client.identifier, msg_id))
            later = client._later.get(msg_id)
            if later:
                self.buffer.push(client.identifier, msg_id, later.popleft())
        elif self.communicator._state == CommunicatorState.STOPPED:
            future.set_exception(CommunicationError("this pool was shut down"))
        else:
            client._waiting.setdefault(msg_id, deque()).append(future)
        return future

    def _unask(
        self, client: _Client, msg_id: str, number: int, future: asyncio.Future[Any]
    ) -> None:
        client._receiving.give_back(number)
        if not future.done():
            future.cancel()
        if not future.cancelled():
            if future.exception() is None:
                self._deliver(client, msg_id, future.result())
            return
        waiting = client._waiting.get(msg_id)
        if waiting and future in waiting:
            waiting.remove(future)
            if not waiting:
                del client._waiting[msg_id]

    async def _recv_packet(
        self, client: _Client, msg_id: str | None, timeout: float | None
    ) -> Any:
        return (await self._recv_packets([client], msg_id, timeout))[0][1]

    async def _recv_packets(
        self, clients: list[_Client], msg_id: str | None, timeout: float | None
    ) -> list[tuple[str, Any]]:
        asked: list[tuple[_Client, str, int, asyncio.Future[Any]]] = []
        for client in clients:
            number = client._receiving.take()
            wanted_id = msg_id or str(number)
            asked.append((client, wanted_id, number, self._ask(client, wanted_id)))
        futures = [future for *_, future in asked]
        try:
            if futures:
                await asyncio.wait(
                    futures, timeout=timeout, return_when=asyncio.FIRST_EXCEPTION
                )
            late = [client.identifier for client, _, _, future in asked if not future.done()]
            for future in futures:
                if future.done():
                    future.result()
            if late:
                raise CommunicationError(_too_late(late, msg_id, timeout))
        except BaseException:
            for one in asked:
                self._unask(*one)
            raise
        return [(client.identifier, future.result()) for client, _, _, future in asked]

    def _end_waiting(self) -> int:
        count = 0
        for client in self._clients.values():
            for msg_id, waiting in client._waiting.items():
                for future in waiting:
                    if not future.done():
                        count += 1
                        future.set_exception(
                            CommunicationError(
                                f"the pool was shut down while message {msg_id!r} from "
                                f"'{client.identifier}' was waited for"
                            )
                        )
            client._waiting.clear()
        return count

    # For fixtures

    def _reset(self) -> None:
        """Begins all conversations anew."""
        self.buffer.empty()
        for client in self._clients.values():
            if self._http is not None and client._link is None:
                client._link = self._http._connections[client.identifier]._link
            client.reset()

    def _abort(self) -> None:
        """Ends the pool at once, from outside of any loop."""
        self.communicator._state = CommunicatorState.STOPPED
        if self._http is not None and self._http._node is not None:
            self._http._node.abort()


def _communication_error(error: PoolError) -> Exception:
    if isinstance(error, PeerNotAuthenticated):
        return error
    if isinstance(error, ReceiveTimeout):
        return CommunicationError(
            f"{error}. Either it is never sent, or it needs longer: Pool.recv(timeout=...) and "
            "Pool(timeout=...) say how long is waited"
        )
    return CommunicationError(str(error))


def _too_late(names: list[str], msg_id: str | None, timeout: float | None) -> str:
    listed = ", ".join(f"'{name}'" for name in names)
    return (
        f"the {wanted(msg_id)} from {listed} did not arrive within {timeout:g} seconds. Either it is never "
        "sent, or it needs longer: Pool.recv(timeout=...) and Pool(timeout=...) say how long is "
        "waited"
    )
