"""The peers of a pool of the 5.0 API."""

from __future__ import annotations

import asyncio
import heapq
import logging
import warnings
from asyncio import get_running_loop
from collections import deque
from typing import Any

import ormsgpack

from convelo._convelo import WIRE_5, WIRE_SECOND, WIRE_UNKNOWN
from convelo._engine import LoopBinding, Message, Receipt
from convelo._peer import Encode, Encoded, Limits, MessageId, Peer, encode
from convelo.compat.tno5.buffer import Buffer
from convelo.compat.tno5.communicators.communicator import (
    Communicator,
    CommunicatorState,
    state_of,
)
from convelo.compat.tno5.exceptions import CommunicationError, NumpySerializationWarning
from convelo.compat.tno5.packers.packer import DefaultPacker, Packer
from convelo.compat.tno5.packers.serialization import STATE
from convelo.exceptions import PoolClosed
from convelo.wire.compatible import decode_value
from convelo.wire.second import decode

__all__ = ["Client", "PacketClient", "PackingClient", "logger"]

# A child of the name in users' logging configurations, which therefore apply here too.
logger = logging.getLogger("tno.mpc.communication.pool.convelo")


class Client(Peer):
    """A peer to which messages go directly, not as packets."""

    def __init__(self, binding: LoopBinding, name: str, packer: Packer) -> None:
        super().__init__(binding, name, logger, name)
        self.packer = packer

    @property
    def only_wire(self) -> int | None:
        """The only wire that its messages can go by, if there is but one."""
        return None

    @property
    def identifier(self) -> str:
        """The peer's name in this pool."""
        return self.name

    def receive(self, packet: bytes) -> None:
        """Takes a packet from a communicator that hands packets over."""
        raise CommunicationError(f"messages from '{self.name}' do not arrive as packets")

    def end_waiting(self) -> None:
        """Ends the receives that are waiting, unless the transport does that."""

    def log_network_usage(self) -> None:
        """Logs how much was sent and received."""
        logger.info(
            "Client %s shutdown\nTotal bytes sent: %d\nTotal messages sent: %d\n"
            "Total bytes received: %d\nTotal messages received: %d",
            self.name,
            self.total_bytes_sent,
            self.msg_send_counter,
            self.total_bytes_recv,
            self.msg_recv_counter,
        )

    def encode(self, wire: int, message: Any) -> Encoded:
        """Encodes a message."""
        assert isinstance(self.packer, DefaultPacker)
        if wire != WIRE_SECOND and type(message).__name__ == "ndarray":
            warnings.warn(
                "The peer uses the genuine package: the numpy array may arrive as nested lists; "
                "np.asarray turns them into an array.",
                NumpySerializationWarning,
                stacklevel=4,
            )
        options = self.packer.serializer_opts
        return encode(wire, message, STATE, options.ormsgpack_option, options.fallback_pickle, self)

    def unpack(self, message: Message) -> Any:
        """The value of a message that has arrived."""
        wire, _, value, buffers = message
        if wire == WIRE_SECOND:
            return decode(value, buffers, STATE)
        assert isinstance(self.packer, DefaultPacker)
        options = self.packer.deserializer_opts
        return decode_value(
            value,
            wire=wire,
            state=STATE,
            option=options.ormsgpack_option,
            use_pickle=options.fallback_pickle,
        )


class PackingClient(Client):
    """A peer to which packets are sent, because the packer or the communicator is custom."""

    def __init__(
        self, binding: LoopBinding, name: str, packer: Packer, communicator: Communicator[Any]
    ) -> None:
        super().__init__(binding, name, packer)
        self.communicator = communicator
        self.packs_itself = type(packer) is DefaultPacker

    @property
    def wire(self) -> int:
        """Unknown: that is the communicator's business."""
        return WIRE_UNKNOWN

    @property
    def only_wire(self) -> int | None:
        """A custom packer makes whole documents, which the second wire does not carry."""
        return None if self.packs_itself else WIRE_5

    async def post(
        self, message: Any, message_id: MessageId, limits: Limits, encode: Encode | None = None
    ) -> None:
        """Packs a message and has it sent."""
        number = self.msg_send_counter if message_id is None else message_id
        await self.communicator.send(self.name, self.packer.pack(message, str(number)))

    def unpack(self, message: Message) -> Any:
        """The value of a message that has arrived."""
        if self.packs_itself:
            return super().unpack(message)
        _, message_id, value, _ = message
        packet = ormsgpack.packb({"object": bytes(value), "id": message_id})
        return self.packer.unpack(packet)[1]


class PacketClient(PackingClient):
    """A peer that also sends packets. They are unpacked as they arrive."""

    def __init__(
        self,
        binding: LoopBinding,
        name: str,
        packer: Packer,
        communicator: Communicator[Any],
        buffer: Buffer[Any],
    ) -> None:
        super().__init__(binding, name, packer, communicator)
        self._buffer = buffer
        self._sending, self._receiving = _Counter(), _Counter()
        # The requests that are waiting, in the order of their calls: for which id, and the number
        # that each has taken.
        self._asked: dict[asyncio.Future[Any], tuple[str, int]] = {}
        # Further messages under an id that is already in the buffer.
        self._later: dict[str, deque[Any]] = {}

    def counters(self) -> tuple[int, int]:
        """How many messages were sent and asked for."""
        return self._sending.count, self._receiving.count

    def reset(self) -> None:
        """Restarts the conversation."""
        super().reset()
        self._sending, self._receiving = _Counter(), _Counter()
        self._later.clear()

    async def post(
        self, message: Any, message_id: MessageId, limits: Limits, encode: Encode | None = None
    ) -> None:
        """Packs a message and has it sent."""
        number = self._sending.take()
        try:
            packet = self.packer.pack(message, str(number if message_id is None else message_id))
            await self.communicator.send(self.name, packet)
        except Exception:
            self._sending.give_back(number)
            raise
        self.total_bytes_sent += len(packet)

    def receive(self, packet: bytes) -> None:
        """Takes a packet that has arrived."""
        message_id, content = self.packer.unpack(packet)
        self.total_bytes_recv += len(packet)
        for receipt, (wanted, _) in self._asked.items():
            if wanted == message_id and not receipt.done():
                del self._asked[receipt]
                receipt.set_result((WIRE_UNKNOWN, message_id, content, None))
                return
        if self._buffer.has_message(self.name, message_id):
            self._later.setdefault(message_id, deque()).append(content)
        else:
            self._buffer.push(self.name, message_id, content)

    def request(self, message_id: MessageId) -> Message | Receipt:
        """A message that is there, or the future of one that is not."""
        if returned := self.take_returned(message_id):
            return returned
        number = self._receiving.take()
        wanted = str(number if message_id is None else message_id)
        if self._buffer.has_message(self.name, wanted):
            content = self._buffer.pop(self.name, wanted)
            if later := self._later.get(wanted):
                self._buffer.push(self.name, wanted, later.popleft())
            return WIRE_UNKNOWN, wanted, content, None
        if state_of(self.communicator) == CommunicatorState.STOPPED:
            self._receiving.give_back(number)
            raise PoolClosed("this pool was shut down")
        receipt = Receipt(loop=get_running_loop())
        receipt.withdraw = self.withdraw
        self.waiting[receipt] = message_id
        self._asked[receipt] = wanted, number
        return receipt

    def withdraw(self, receipt: asyncio.Future[Any]) -> None:
        """Gives the number of a request back."""
        asked = self._asked.pop(receipt, None)
        if asked is not None:
            self._receiving.give_back(asked[1])

    def decode(self, message: Message) -> Any:
        """The value of a message, which was unpacked when it arrived."""
        return message[2]

    def end_waiting(self) -> None:
        """Ends the receives that are waiting."""
        for receipt, (wanted, _) in self._asked.items():
            if not receipt.done():
                receipt.set_exception(
                    PoolClosed(
                        f"the pool was shut down while message {wanted!r} from '{self.name}' was "
                        "waited for"
                    )
                )
        self._asked.clear()


class _Counter:
    """Default ids for one direction; an id that was given back is used next."""

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
