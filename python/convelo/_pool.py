"""What every pool does, whatever its API: its transport, its peers, and messages on their way."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import time
import warnings
import weakref
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from convelo._convelo import WIRE_4, WIRE_SECOND, WIRE_UNKNOWN, Node
from convelo._engine import LoopBinding, running_loop, seconds_of
from convelo._peer import Encode, Encoded, Limits, MessageId, Peer, Turn
from convelo.exceptions import PoolClosed, ShutdownError

__all__ = [
    "DEFAULT_FLUSH_SECONDS",
    "DEFAULT_TIMEOUT_SECONDS",
    "PoolCore",
    "limits_of",
    "warn_of_first_party",
    "warn_of_plain_http",
]

DEFAULT_TIMEOUT_SECONDS = 300.0
"""How long one attempt to send may take."""

DEFAULT_FLUSH_SECONDS = 10.0
"""How long a shutdown waits for messages that are still on their way."""

# A pool says that itself, once per process.
_PLAIN = "plain HTTP"

_AnyPeer = TypeVar("_AnyPeer", bound=Peer)

_warned_of_plain_http = False

_listening: weakref.WeakSet[PoolCore[Any]] = weakref.WeakSet()
"""The pools of this process that have listened."""


class PoolCore(Generic[_AnyPeer]):
    """One party's node and its peers.

    Args:
        logger: For what concerns the pool as a whole.
        notices: For what the transport reports.
        message_limit: The most bytes in one message; by default ``mailbox_limit``.
        mailbox_limit: The most bytes of one peer's messages that may wait here to be received.
        text_ids: Whether default ids are text, as in the 5.0 API.
        on_error: Called with each error of a message that nobody awaits.

    Attributes:
        peers: The peers by name.
        node: The transport, while there is one.
        binding: The event loop that uses the pool.
        is_closed: Whether the pool was shut down.
    """

    def __init__(
        self,
        logger: logging.Logger,
        notices: logging.Logger,
        *,
        message_limit: int | None = None,
        mailbox_limit: int | None = None,
        text_ids: bool = False,
        on_error: Callable[[Exception], object] | None = None,
    ) -> None:
        self.peers: dict[str, _AnyPeer] = {}
        self.node: Node | None = None
        self.binding = LoopBinding()
        self.is_closed = False
        self.on_error = on_error
        self._logger = logger
        self._notices = notices
        self._make_node = partial(
            Node,
            message_limit=message_limit,
            mailbox_limit=mailbox_limit,
            text_ids=text_ids,
            on_notice=partial(_log_notice, notices),
        )
        self._background: set[asyncio.Future[None]] = set()
        self._lost: list[str] = []

    def open(
        self,
        key: bytes | None = None,
        certificate: bytes | None = None,
        authorities: bytes | None = None,
    ) -> None:
        """Makes the transport, with TLS if there is a key. It is not listening yet."""
        self.node = self._make_node(key=key, certificate=certificate, authorities=authorities)
        if running_loop() is not None:
            self.node.notify(self.binding.here())
        self.is_closed = False

    def listen(self, host: str, port: int, advertised_port: int | None = None) -> int:
        """Starts to listen; returns the port, a free one if 0 was asked for.

        Raises:
            OSError: The address cannot be bound.
        """
        assert self.node is not None
        try:
            port = self.node.listen(host, port, advertised_port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and _is_ours(port):
                raise OSError(
                    error.errno,
                    f"cannot listen on {host}:{port}: a pool of this process has that port; "
                    "shutdown() it first, as in a notebook before its cell is run again",
                ) from None
            raise
        _listening.add(self)
        tls = "" if self.node.fingerprint is None else " with TLS"
        self._notices.info("Serving on %s:%s%s", host, port, tls)
        return port

    async def broadcast(
        self,
        peers: Sequence[Peer],
        message: Any,
        message_id: MessageId,
        limits: Limits,
        encode: Encode,
    ) -> None:
        """Sends one message to several peers and waits until all have it.

        Raises:
            SendError: At least one peer did not get it; the notes of the error name the others.
        """
        letter = _Letter(message, encode)
        for peer in peers:
            if peer.wire != WIRE_UNKNOWN:
                letter.encoded(peer.wire, message)
        outcomes: list[BaseException | None] = await asyncio.gather(
            *letter.post(peers, message_id, limits), return_exceptions=True
        )
        errors = [outcome for outcome in outcomes if outcome is not None]
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"also: {other}")
            raise errors[0]

    def post(
        self,
        peers: Sequence[Peer],
        message: Any,
        message_id: MessageId,
        limits: Limits,
        encode: Encode,
    ) -> None:
        """Encodes a message now, and sends it in the background."""
        first = peers[0]
        if len(peers) == 1 and (wire := first.wire):
            encoded = encode(wire, message)
            if encoded[1] or type(encoded[0]) is not bytes:
                encoded = _unchanging(encoded)
            self._watch(first, message_id, first.transmit(wire, encoded, message_id, limits))
            return
        letter = _Letter(message, encode)
        for peer in peers:
            letter.keep(peer.wire)
        for peer, sending in zip(peers, letter.post(peers, message_id, limits), strict=True):
            if isinstance(sending, Turn):
                task = self.binding.near().create_task(sending.take())
                # A task that is cancelled before its first step never takes its turn.
                task.add_done_callback(sending.end)
                sending = task
            self._watch(peer, message_id, sending)

    def _watch(self, peer: Peer, message_id: MessageId, sending: Awaitable[None]) -> None:
        assert isinstance(sending, asyncio.Future)
        self._background.add(sending)
        sending.add_done_callback(partial(self._sent, peer, message_id))

    def _sent(self, peer: Peer, message_id: MessageId, future: asyncio.Future[None]) -> None:
        self._background.discard(future)
        if future.cancelled():
            sent = "a message" if message_id is None else f"message {message_id!r}"
            if not self.is_closed:
                # The event loop ends before the pool: nobody will learn whether it arrives.
                self._logger.warning("%s to '%s' was cancelled by its event loop", sent, peer.name)
                return
            error: Exception = PoolClosed(
                f"{sent} to '{peer.name}' was not acknowledged before the pool was shut down"
            )
        else:
            failure = future.exception()
            if not isinstance(failure, Exception):
                return
            error = failure
        self._logger.error("Message not received: %s", error)
        if self.on_error is None:
            self._lost.append(str(error))
        else:
            self.on_error(error)

    async def close(self, flush: float) -> None:
        """Ends the transport, after the messages that are still on their way."""
        assert self.node is not None
        self.is_closed = True
        completions = self.binding.here()
        deadline = time.monotonic() + flush
        ours = [future for future in self._background if future.get_loop() is self.binding.loop]
        if ours:
            _, late = await asyncio.wait(ours, timeout=flush)
            for future in late:
                future.cancel()
        for line in await self.node.close(completions, max(0.0, deadline - time.monotonic())):
            self._logger.warning("Dropped at shutdown: %s", line)
        # The callbacks of what was dropped just now run first.
        await asyncio.sleep(0)

    def abort(self) -> None:
        """Ends the transport at once, from outside any loop."""
        self.is_closed = True
        if self.node is not None:
            self.node.abort()

    def __del__(self) -> None:
        node = getattr(self, "node", None)
        if node is None or self.is_closed or node.port is None:
            return
        node.abort()
        warnings.warn(
            f"a pool that nobody refers to was never shut down: it no longer listens on port "
            f"{node.port}. Keep a reference to it, and await pool.shutdown()",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )

    def discard(self) -> None:
        """Ends a transport that could not be used; another may be opened."""
        if self.node is not None:
            self.node.abort()
            self.node = None

    def log_totals(self, logger: logging.Logger) -> None:
        """Logs how much was sent and received."""
        peers = self.peers.values()
        logger.info(
            "Pool shutdown.\nTotal bytes sent: %d\nTotal messages sent: %d\n"
            "Total bytes received: %d\nTotal messages received: %d",
            sum(peer.total_bytes_sent for peer in peers),
            sum(peer.msg_send_counter for peer in peers),
            sum(peer.total_bytes_recv for peer in peers),
            sum(peer.msg_recv_counter for peer in peers),
        )

    def forget(self) -> None:
        """Forgets the transport and the peers.

        Raises:
            ShutdownError: Messages that nobody awaited were lost, and there is no ``on_error``.
        """
        self.node = None
        self.peers = {}
        lost, self._lost = tuple(self._lost), []
        if lost:
            count = "a message that was" if len(lost) == 1 else f"{len(lost)} messages that were"
            raise ShutdownError(
                f"the pool is shut down; {count} not awaited did not arrive: " + "; ".join(lost),
                lost,
            )


def _is_ours(port: int) -> bool:
    """Whether a pool of this process listens on ``port``."""
    return any(
        core.node is not None and not core.is_closed and core.node.port == port
        for core in _listening
    )


def limits_of(timeout: Any, pauses: int, delay: float = 1) -> Limits:
    """How long a send may take.

    Args:
        timeout: How long one attempt may take; see :func:`convelo._engine.seconds_of`.
        pauses: How often to pause before another attempt, at most; negative for no limit.
        delay: Seconds per pause.
    """
    seconds = seconds_of(timeout)
    if pauses < 0:
        return None, pauses
    patience = pauses * delay
    return None if seconds is None else seconds * (pauses + 1) + patience, math.ceil(patience)


def warn_of_plain_http(logger: logging.Logger, advice: str, *, why: str = "") -> None:
    """Warns, once per process, that without TLS anyone can claim to be a peer."""
    global _warned_of_plain_http
    if not _warned_of_plain_http:
        _warned_of_plain_http = True
        logger.warning(
            "This pool speaks plain HTTP%s. Peers are told apart by address and port, which anyone "
            "on the network can claim, and everyone on the way can read and change messages. Give "
            "%s outside of tests.",
            why,
            advice,
        )


def warn_of_first_party(logger: logging.Logger, name: str, advice: str) -> None:
    """Warns that nothing but an address and an authority says who a peer is."""
    logger.warning(
        "Peer '%s' is registered without a certificate: the first party that comes from its "
        "address and port with a certificate of our authorities is taken for it, until one comes "
        "whose certificate names the peer's host when that of the first does not. Use %s",
        name,
        advice,
    )


class _Letter:
    """A message for several peers, encoded once for all that speak the same wire."""

    def __init__(self, message: Any, encode: Encode) -> None:
        self._message = message
        self._encode = encode
        # Keyed by whether the wire is the second one: both compatible wires have the same values.
        self._forms: dict[bool, Encoded | Exception] = {}

    def encoded(self, wire: int, message: Any) -> Encoded:
        """The message as it travels on ``wire``."""
        form = self._forms.get(wire == WIRE_SECOND)
        if form is None:
            form = self._forms[wire == WIRE_SECOND] = self._encode(wire, message)
        if isinstance(form, Exception):
            raise form
        return form

    def keep(self, wire: int) -> None:
        """Encodes the message now, and copies what could change before it is sent.

        If the wire is unknown, it encodes for both kinds; it is an error if neither can carry it.
        """
        if wire != WIRE_UNKNOWN:
            self._forms[wire == WIRE_SECOND] = _unchanging(self.encoded(wire, self._message))
            return
        for each in (WIRE_SECOND, WIRE_4):
            try:
                self.keep(each)
            except Exception as error:
                self._forms[each == WIRE_SECOND] = error
        if all(isinstance(form, Exception) for form in self._forms.values()):
            self.keep(WIRE_SECOND)

    def post(
        self, peers: Sequence[Peer], message_id: MessageId, limits: Limits
    ) -> list[Awaitable[None]]:
        """Hands the message over to all peers, or to none if there is an error."""
        posted: list[Awaitable[None]] = []
        try:
            for peer in peers:
                posted.append(peer.post(self._message, message_id, limits, self.encoded))
        except BaseException:
            for sending in posted:
                if isinstance(sending, Turn):
                    sending.end()
            raise
        return posted


def _unchanging(encoded: Encoded) -> Encoded:
    """The same, with a copy of everything that its owner could still change."""
    value, buffers = encoded
    if not isinstance(value, bytes):
        value = bytes(value) if isinstance(value, memoryview) else [bytes(part) for part in value]
    if buffers:
        buffers = [part if isinstance(part, bytes) else bytes(part) for part in buffers]
    return value, buffers


def _log_notice(notices: logging.Logger, level: int, peer: str | None, text: str) -> None:
    if peer is not None:
        notices.log(level, "%s: %s", peer, text)
    elif not text.startswith(_PLAIN):
        notices.log(level, "%s", text)
