"""One peer, as the facades use it: what is sent to it and awaited from it, encoded already."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop as _running_loop
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from convelo.exceptions import ReceiveTimeout, SendError

if TYPE_CHECKING:
    from convelo._convelo import Completions, Node
    from convelo._engine import Message, Receipt

__all__ = ["Link", "Turn", "request_all", "size_of", "wanted"]

_EXPIRED = "no message in time"


class Link:
    """A peer of a node.

    Attributes:
        name: What the peer is called here.
        total_bytes_sent: Bytes of the messages sent so far, without their envelopes.
        total_bytes_recv: The same of those received.
    """

    def __init__(self, node: Node, index: int, name: str) -> None:
        self.name = name
        self.total_bytes_sent = 0
        self.total_bytes_recv = 0
        self._node = node
        self._index = index
        self._node_wire = node.wire
        self._node_send = node.send
        self._node_recv = node.recv
        self._cancel_recv = node.cancel_recv
        self._undecided = 0
        self._last_turn: Turn | None = None
        # The requests that wait, by their ids; and the messages that were handed over to some which
        # ended all the same.
        self._waiting: dict[Receipt, int | str | None] = {}
        self._returned: deque[tuple[int | str | None, Message]] = deque()

    @property
    def msg_send_counter(self) -> int:
        """Messages sent so far, which is the next default id."""
        return self._node.counters(self._index)[0]

    @property
    def msg_recv_counter(self) -> int:
        """Messages asked for so far, which is the next default id."""
        return self._node.counters(self._index)[1]

    def _transmit(
        self,
        completions: Completions,
        message_id: int | str | None,
        wire: int,
        value: Any,
        buffers: list[Any] | None,
        timeout: float | None,
        retries: int,
    ) -> asyncio.Future[None]:
        """Hands an encoded message over; the future ends with its acknowledgement."""
        future = self._node_send(
            completions, self._index, message_id, wire, value, buffers, timeout, retries
        )
        self.total_bytes_sent += size_of(value, buffers)
        return future

    def _queue_up(
        self, completions: Completions, timeout: float | None, retries: int
    ) -> Turn:
        """Asks which wire the peer speaks, before something is sent to it.

        Until that is known, senders take turns in the order of their calls, because that is the
        order of the default ids.
        """
        asked = self._node.prepare(completions, self._index, timeout, retries)
        self._undecided += 1
        self._last_turn = turn = Turn(self, asked, self._last_turn)
        return turn

    def _request(
        self, completions: Completions, message_id: int | str | None
    ) -> Message | Receipt:
        """A message that is there, or the future of one that is not."""
        if self._returned:
            for position, (asked, message) in enumerate(self._returned):
                if asked == message_id:
                    del self._returned[position]
                    return message
        receipt = self._node_recv(completions, self._index, message_id)
        if not isinstance(receipt, tuple):
            receipt.withdraw = self._cancel_recv
            self._waiting[receipt] = message_id
        return receipt

    async def _wait(
        self,
        future: Receipt,
        message_id: int | str | None,
        timeout: float | None,
    ) -> Message:
        """Waits for a message; leaves no trace when it is cancelled or too late."""
        timer = None
        if timeout is not None:
            timer = future.get_loop().call_later(timeout, future.cancel, _EXPIRED)
        try:
            message: Message = await future
            return message
        except asyncio.CancelledError as cancelled:
            self._undo(future, message_id)
            if timer is not None and cancelled.args == (_EXPIRED,):
                raise ReceiveTimeout(
                    f"the {wanted(message_id)} from '{self.name}' did not arrive within "
                    f"{timeout:g} seconds",
                    peer=self.name,
                    message_id=message_id,
                ) from None
            raise
        finally:
            self._waiting.pop(future, None)
            if timer is not None:
                timer.cancel()

    def _undo(self, future: Receipt, message_id: int | str | None) -> None:
        """Undoes a request, whatever has become of it."""
        self._waiting.pop(future, None)
        if not future.done():
            future.cancel()
        elif not future.cancelled() and future.exception() is None:
            # The message came in the same turn of the loop as the cancellation.
            self._give_back(message_id, future.result())

    def _give_back(self, message_id: int | str | None, message: Message) -> None:
        """Hands a message on to who waits for such a one, or keeps it for the next who asks."""
        loop = _running_loop()
        for receipt, asked in self._waiting.items():
            if asked == message_id and not receipt.done() and receipt.get_loop() is loop:
                receipt.set_result(message)
                self._cancel_recv(receipt)
                return
        self._returned.append((message_id, message))

    def _reset(self) -> None:
        """Begins the conversation anew: nothing parked, counters at 0."""
        self._node.reset_peer(self._index)
        self._returned.clear()
        self.total_bytes_sent = self.total_bytes_recv = 0


class Turn:
    """One sender's place in the queue of those that wait for a peer's wire to be known."""

    def __init__(self, link: Link, asked: asyncio.Future[int], previous: Turn | None) -> None:
        self._link = link
        self._asked = asked
        self._previous = previous
        self._over: asyncio.Future[None] = asked.get_loop().create_future()

    async def take(
        self, message_id: int | str | None, transmit: Callable[[int], asyncio.Future[None]]
    ) -> asyncio.Future[None]:
        """Calls ``transmit`` with the wire when it is known and all earlier turns are over."""
        try:
            try:
                wire = await self._asked
            except SendError as error:
                if error.message_id is None and message_id is not None:
                    error.message_id = message_id
                    error.args = (f"message {message_id!r} to {error}",)
                raise
            previous, self._previous = self._previous, None
            if previous is not None and not previous._over.done():
                # One of a loop that is gone is not over, and never will be.
                if previous._over.get_loop() is self._over.get_loop():
                    await asyncio.wait((previous._over,))
            return transmit(wire)
        finally:
            self.end()

    def end(self) -> None:
        """Lets the next one have its turn."""
        if not self._over.done():
            self._over.set_result(None)
            self._previous = None
            link = self._link
            link._undecided -= 1
            if link._last_turn is self:
                link._last_turn = None


async def request_all(
    links: Sequence[Link],
    completions: Completions,
    message_id: int | str | None,
    timeout: float | None,
) -> list[Message]:
    """One message of each peer, in order; of none, if one fails or is too late."""
    asked = [link._request(completions, message_id) for link in links]
    waiting = {message for message in asked if not isinstance(message, tuple)}
    try:
        if waiting:
            done, late = await asyncio.wait(
                waiting, timeout=timeout, return_when=asyncio.FIRST_EXCEPTION
            )
            for future in done:
                future.result()
            if late:
                names = [link.name for link, one in zip(links, asked, strict=True) if one in late]
                listed = ", ".join(f"'{name}'" for name in names)
                raise ReceiveTimeout(
                    f"the {wanted(message_id)} from {listed} did not arrive within "
                    f"{timeout:g} seconds",
                    peer=names[0],
                    message_id=message_id,
                )
        return [message if isinstance(message, tuple) else message.result() for message in asked]
    except BaseException:
        for link, one in zip(links, asked, strict=True):
            if isinstance(one, tuple):
                link._give_back(message_id, one)
            else:
                link._undo(one, message_id)
        raise
    finally:
        for link, one in zip(links, asked, strict=True):
            if not isinstance(one, tuple):
                link._waiting.pop(one, None)


def wanted(message_id: int | str | None) -> str:
    """What a receive waits for, in words."""
    return "next message" if message_id is None else f"message {message_id!r}"


def size_of(value: Any, buffers: list[Any] | None) -> int:
    """Bytes of an encoded message."""
    if isinstance(value, bytes):
        total = len(value)
    elif isinstance(value, memoryview):
        total = value.nbytes
    else:
        total = sum(memoryview(part).nbytes for part in value)
    if buffers:
        total += sum(memoryview(buffer).nbytes for buffer in buffers)
    return total
