"""One peer of a pool: what is sent to it, and what is expected from it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from typing import Any, TypeVar

from convelo._convelo import WIRE_SECOND, WIRE_UNKNOWN, Node, PeerHandle
from convelo._engine import LoopBinding, Message, Receipt, running_loop
from convelo._untrusted import showable
from convelo.exceptions import BodyError, PoolError, ReceiveTimeout, SendError
from convelo.wire.coding import full_name
from convelo.wire.compatible import encode_value
from convelo.wire.second import encode as encode_second
from convelo.wire.state import State

__all__ = [
    "Encode",
    "Encoded",
    "Limits",
    "MessageId",
    "Peer",
    "Turn",
    "check_class",
    "decode_all",
    "encode",
    "give_back_all",
    "receive_all",
]

MessageId = int | str | None
"""Without an id, messages are numbered."""

Limits = tuple[float | None, int]
"""How many seconds a send may take in all, and for how many of them to wait for an absent peer."""

Encoded = tuple[Any, list[Any] | None]
"""A message ready to send: its value, and its separate buffers."""

Encode = Callable[[int, Any], Encoded]
"""Encodes a message for a wire."""

_Peer = TypeVar("_Peer", bound="Peer")
_Value = TypeVar("_Value")

_EXPIRED = "no message in time"


class Peer:
    """A peer of a node.

    Each API has a subclass that encodes and decodes its values.

    Attributes:
        name: The peer's name here.
        node: The transport, once it knows the peer.
        handle: The node's handle for the peer, once there is one.
        total_bytes_sent: Bytes of the messages sent so far, without their envelopes.
        total_bytes_recv: The same for the messages received.
        waiting: The requests for messages that have not arrived, and the ids they asked for.
    """

    def __init__(
        self, binding: LoopBinding, name: str, logger: logging.Logger, address: str
    ) -> None:
        self.name = name
        self.node: Node | None = None
        self.handle: PeerHandle
        self.total_bytes_sent = 0
        self.total_bytes_recv = 0
        self.waiting: dict[Receipt, MessageId] = {}
        self._binding = binding
        self._logger = logger
        self._address = address
        self._undecided = 0
        self._last_turn: Turn | None = None
        # Messages that reached a request although it had been cancelled.
        self._returned: deque[tuple[MessageId, Message]] = deque()

    def join(self, node: Node, handle: PeerHandle) -> None:
        """Binds this peer to its ``handle`` at ``node``."""
        self.node, self.handle = node, handle
        self._node_wire, self._node_send, self._node_recv = handle.wire, node.send, node.recv

    @property
    def wire(self) -> int:
        """The wire for the next message, if it is known yet."""
        if self._undecided or self.node is None:
            return WIRE_UNKNOWN
        return self._node_wire()

    @property
    def msg_send_counter(self) -> int:
        """Messages sent so far, which is the next default id."""
        return self.counters()[0]

    @property
    def msg_recv_counter(self) -> int:
        """Messages requested so far, which is the next default id."""
        return self.counters()[1]

    def counters(self) -> tuple[int, int]:
        """How many messages were sent and requested."""
        return (0, 0) if self.node is None else self.handle.counters()

    def reset(self) -> None:
        """Restarts the conversation: nothing parked, counters at 0."""
        if self.node is not None:
            self.handle.reset()
        self._returned.clear()
        self.total_bytes_sent = self.total_bytes_recv = 0

    def encode(self, wire: int, message: Any) -> Encoded:
        """Encodes a message the way the API does."""
        raise NotImplementedError

    def unpack(self, message: Message) -> Any:
        """Decodes an arrived message the way the API does; returns its value."""
        raise NotImplementedError

    def post(
        self, message: Any, message_id: MessageId, limits: Limits, encode: Encode | None = None
    ) -> Awaitable[None]:
        """Encodes a message and hands it over.

        Await the result; it completes when the peer has acknowledged the message.
        """
        if self._undecided or not (wire := self._node_wire()):
            return Turn(self, message, message_id, limits, encode or self.encode)
        encoded = self.encode(wire, message) if encode is None else encode(wire, message)
        return self.transmit(wire, encoded, message_id, limits)

    def transmit(
        self, wire: int, encoded: Encoded, message_id: MessageId, limits: Limits
    ) -> asyncio.Future[None]:
        """Hands over an encoded message; the future completes when it is acknowledged."""
        value, buffers = encoded
        timeout, retries = limits
        future = self._node_send(
            self._binding.here(), self.handle, message_id, wire, value, buffers, timeout, retries
        )
        self.total_bytes_sent += _size_of(value, buffers)
        return future

    def request(self, message_id: MessageId) -> Message | Receipt:
        """A message that has arrived, or the future of one that has not."""
        if self._returned and (returned := self.take_returned(message_id)):
            return returned
        receipt = self._node_recv(self._binding.here(), self.handle, message_id)
        if not isinstance(receipt, tuple):
            receipt.withdraw = self.withdraw
            self.waiting[receipt] = message_id
        return receipt

    def take_returned(self, message_id: MessageId) -> Message | None:
        """A message that was given back, if there is one."""
        for position, (asked, message) in enumerate(self._returned):
            if asked == message_id:
                del self._returned[position]
                return message
        return None

    def withdraw(self, receipt: asyncio.Future[Any]) -> None:
        """Tells the transport that a message is no longer awaited."""
        assert self.node is not None
        self.node.cancel_recv(receipt)

    async def wait(
        self, receipt: Receipt, message_id: MessageId, timeout: float | None
    ) -> Message:
        """Waits for a message. A cancelled or timed-out wait changes nothing."""
        timer = None
        if timeout is not None:
            timer = receipt.get_loop().call_later(timeout, receipt.cancel, _EXPIRED)
        try:
            message: Message = await receipt
            return message
        except asyncio.CancelledError as cancelled:
            self._undo(receipt, message_id)
            if timer is not None and cancelled.args == (_EXPIRED,):
                raise _too_late([self.name], message_id, timeout) from None
            raise
        finally:
            self.waiting.pop(receipt, None)
            if timer is not None:
                timer.cancel()

    def promise(self, message_id: MessageId) -> Any:
        """The value of a message that has arrived, or the future of one that has not."""
        raw = self.request(message_id)
        if isinstance(raw, tuple):
            return self.decode(raw)
        promised = Receipt(loop=raw.get_loop())
        promised.withdraw = lambda _promised: raw.cancel()
        raw.add_done_callback(partial(self._keep_promise, promised, message_id))
        return promised

    def _keep_promise(
        self, promised: Receipt, message_id: MessageId, raw: asyncio.Future[Message]
    ) -> None:
        assert isinstance(raw, Receipt)
        if raw.cancelled():
            promised.cancel()
        elif promised.done():
            self._undo(raw, message_id)
        elif (error := raw.exception()) is not None:
            promised.set_exception(error)
        else:
            try:
                promised.set_result(self.decode(raw.result()))
            except PoolError as undecodable:
                promised.set_exception(undecodable)
        self.waiting.pop(raw, None)

    def give_back(self, message_id: MessageId, message: Message) -> None:
        """Hands a message to another request for it, or keeps it for the next one."""
        loop = running_loop()
        for receipt, asked in self.waiting.items():
            if asked == message_id and not receipt.done() and receipt.get_loop() is loop:
                receipt.set_result(message)
                self.withdraw(receipt)
                return
        self._returned.append((message_id, message))

    def decode(self, message: Message) -> Any:
        """Decodes a received message; returns its value.

        Raises:
            BodyError: It cannot be decoded.
        """
        _, message_id, value, buffers = message
        try:
            decoded = self.unpack(message)
        except Exception as error:
            kind = "" if isinstance(error, BodyError) else f"{error.__class__.__name__}: "
            raise BodyError(
                f"message {message_id!r} from '{self.name}' cannot be decoded: {kind}{error}",
                peer=self.name,
                message_id=message_id,
            ) from showable(error)
        self.total_bytes_recv += _size_of(value, buffers)
        if self._logger.isEnabledFor(logging.INFO):
            self._logger.info("Received message from %s", self._address)
        return decoded

    def decode_as(self, message: Message, kind: type[_Value]) -> _Value:
        """Decodes a received message whose value must be an instance of ``kind``.

        Raises:
            BodyError: It cannot be decoded, or is something else.
        """
        value = self.decode(message)
        if isinstance(value, kind):
            return value
        message_id = message[1]
        raise BodyError(
            f"message {message_id!r} from '{self.name}' is {full_name(type(value))}, expected "
            f"{full_name(kind)}",
            peer=self.name,
            message_id=message_id,
        )

    def _undo(self, receipt: Receipt, message_id: MessageId) -> None:
        """Undoes a request, whatever happened to it."""
        self.waiting.pop(receipt, None)
        if not receipt.done():
            receipt.cancel()
        elif not receipt.cancelled() and receipt.exception() is None:
            # The message came in the same turn of the loop as the cancellation.
            self.give_back(message_id, receipt.result())


class Turn:
    """A message to a peer whose wire is not known yet.

    Making a turn asks the peer. Until it has answered, messages wait for each other in the order
    of their turns, because that is the order of the default ids.
    """

    def __init__(
        self, peer: Peer, message: Any, message_id: MessageId, limits: Limits, encode: Encode
    ) -> None:
        assert peer.node is not None
        self._asked = peer.node.prepare(peer._binding.here(), peer.handle, *limits)
        self._peer = peer
        self._message = message
        self._message_id = message_id
        self._limits = limits
        self._encode = encode
        self._over: asyncio.Future[None] = self._asked.get_loop().create_future()
        self._previous, peer._last_turn = peer._last_turn, self
        peer._undecided += 1

    def __await__(self) -> Generator[Any, None, None]:
        return self.take().__await__()

    async def take(self) -> None:
        """Sends the message once the wire is known and all earlier turns are over."""
        try:
            try:
                wire = await self._asked
            except SendError as error:
                if error.message_id is None and self._message_id is not None:
                    error.message_id = self._message_id
                    error.args = (f"message {self._message_id!r} to {error}",)
                raise
            previous, self._previous = self._previous, None
            if previous is not None and not previous._over.done():
                # A turn on a loop that is gone never ends.
                if previous._over.get_loop() is self._over.get_loop():
                    await asyncio.wait((previous._over,))
            encoded = self._encode(wire, self._message)
            sending = self._peer.transmit(wire, encoded, self._message_id, self._limits)
        finally:
            self.end()
        await sending

    def end(self, _task: object = None) -> None:
        """Lets the next turn go ahead."""
        if not self._over.done():
            self._over.set_result(None)
            self._previous = None
            self._peer._undecided -= 1
            if self._peer._last_turn is self:
                self._peer._last_turn = None


def encode(
    wire: int, message: Any, state: State, option: int | None, use_pickle: bool, destination: Any
) -> Encoded:
    """Encodes a message for ``wire`` with the serializers of an API."""
    if wire == WIRE_SECOND:
        return encode_second(message, state, option=option, destination=destination)
    value = encode_value(
        message,
        wire=wire,
        state=state,
        option=option,
        use_pickle=use_pickle,
        destination=destination,
    )
    return value, None


async def receive_all(
    peers: Sequence[_Peer], message_id: MessageId, timeout: float | None
) -> list[tuple[_Peer, Message]]:
    """Takes one message from each peer, in order; from none if any of them fails or is late."""
    asked = [(peer, peer.request(message_id)) for peer in peers]
    waiting = {one for _, one in asked if not isinstance(one, tuple)}
    try:
        if waiting:
            done, late = await asyncio.wait(
                waiting, timeout=timeout, return_when=asyncio.FIRST_EXCEPTION
            )
            for receipt in done:
                receipt.result()
            if late:
                names = [peer.name for peer, one in asked if one in late]
                raise _too_late(names, message_id, timeout)
        return [(peer, one if isinstance(one, tuple) else one.result()) for peer, one in asked]
    except BaseException:
        for peer, one in asked:
            if isinstance(one, tuple):
                peer.give_back(message_id, one)
            else:
                peer._undo(one, message_id)
        raise
    finally:
        for peer, one in asked:
            if not isinstance(one, tuple):
                peer.waiting.pop(one, None)


def check_class(kind: object) -> None:
    """Checks what a caller says that a value must be, before a message is taken.

    Raises:
        TypeError: It is no class.
    """
    if not isinstance(kind, type):
        raise TypeError(f"type= takes a class, such as dict or numpy.ndarray, not {kind!r}")


def give_back_all(taken: Sequence[tuple[Peer, Message]], message_id: MessageId) -> None:
    """Gives back the messages taken by :func:`receive_all`."""
    for peer, message in taken:
        peer.give_back(message_id, message)


def decode_all(
    taken: Sequence[tuple[Peer, Message]],
    message_id: MessageId,
    give_back: Callable[[Sequence[tuple[Peer, Message]], MessageId], object] = give_back_all,
) -> list[Any]:
    """Decodes the messages taken by :func:`receive_all`; returns their values.

    Raises:
        BodyError: One of them cannot be decoded and is lost; the others are given back.
    """
    values = []
    for position, (peer, message) in enumerate(taken):
        try:
            values.append(peer.decode(message))
        except BodyError:
            give_back([*taken[:position], *taken[position + 1 :]], message_id)
            raise
    return values


def _too_late(
    names: Sequence[str], message_id: MessageId, timeout: float | None
) -> ReceiveTimeout:
    wanted = "next message" if message_id is None else f"message {message_id!r}"
    listed = ", ".join(f"'{name}'" for name in names)
    return ReceiveTimeout(
        f"the {wanted} from {listed} did not arrive within {timeout:g} seconds",
        peer=names[0],
        message_id=message_id,
    )


def _size_of(value: Any, buffers: list[Any] | None) -> int:
    """The number of bytes in an encoded message."""
    if type(value) is bytes:
        total = len(value)
    elif isinstance(value, memoryview):
        total = value.nbytes
    else:
        total = sum(memoryview(part).nbytes for part in value)
    if buffers:
        total += sum(memoryview(buffer).nbytes for buffer in buffers)
    return total
