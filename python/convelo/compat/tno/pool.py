"""The pool: one party's view of the network between the parties."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import ssl
import time
import warnings
from asyncio import get_running_loop
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from convelo._convelo import (
    WIRE_4,
    WIRE_SECOND,
    WIRE_UNKNOWN,
    Completions,
    Node,
    certificate_identity,
    key_fingerprint,
)
from convelo._engine import completions_of, loop_here, seconds_of
from convelo._link import Turn, request_all
from convelo.compat.tno.exceptions import RepetitionError
from convelo.compat.tno.httphandlers import HTTPClient, HTTPServer, log_notice
from convelo.compat.tno.serialization import DEFAULT_PACK_OPTION, STATE
from convelo.exceptions import BodyError, PoolClosed, ShutdownError
from convelo.wire.compatible import encode_value
from convelo.wire.second import encode as encode_second

__all__ = ["DEFAULT_FLUSH_SECONDS", "DEFAULT_TIMEOUT_SECONDS", "Pool", "certificate_pem", "logger"]

# A child of the name that the users' logging configuration knows: it takes effect on ours.
logger = logging.getLogger("tno.mpc.communication.pool.convelo")

DEFAULT_TIMEOUT_SECONDS = 300.0
"""How long one attempt to send may take."""

DEFAULT_FLUSH_SECONDS = 10.0
"""How long ``shutdown`` waits for messages that are still on their way."""

_Packed = tuple[Any, list[Any] | None]

_FILETYPE_PEM = 1
_FILETYPE_ASN1 = 2

_said_unauthenticated = False


class Pool:
    """Sends objects to, and receives objects from, the other parties of a computation.

    A pool has one server, and one client per peer. It can be made anywhere, with or without a
    running event loop, and used from whichever loop runs when it is called.

    Example::

        pool = Pool()
        pool.add_http_server(addr="127.0.0.1", port=61001)
        pool.add_http_client("Bob", addr="127.0.0.1", port=61002)
        await pool.send("Bob", "Hello")
        reply = await pool.recv("Bob")
        await pool.shutdown()

    Args:
        key: Path of our private key, PEM: RSA, EC or Ed25519.
        cert: Path of our certificate, PEM, with intermediate ones behind it if there are any.
        ca_cert: Path of the certificate authorities we trust, PEM. **TLS is on if and only if this
            or** ``identity`` **is given.**
        timeout: How long one attempt to send may take: seconds, an ``aiohttp.ClientTimeout``, or
            ``None`` for no limit. A send has ``max_retries + 1`` times that in all.
        max_retries: For how many seconds an absent peer is waited for; -1 for as long as it takes.
            (The genuine package tries once a second; here pauses begin short and have jitter.)
            To a genuine peer, a message whose connection breaks is also sent again so often at
            most; between our own it goes on where it was cut.
            A peer that answers and refuses is an error at once, whatever this says.
        identity: Path of a PEM file with our private key and our self-signed certificate, as
            ``python -m convelo.pki identity`` makes it. It takes the place of the other three;
            every peer is then pinned by its certificate or key.
        message_limit: Bytes that one message may have.
        mailbox_limit: Bytes of arrived messages that one peer may leave waiting to be received;
            a sender beyond it has to wait.
        writable_arrays: Whether numpy arrays from peers of ours are copied, so that they can be
            changed. Without it they are read-only views of what arrived.
        on_error: Called with each error of a message that nobody awaits (``asend``,
            ``async_broadcast``). Without it ``shutdown`` raises them.

    Raises:
        ValueError: ``identity`` together with ``key``, ``cert`` or ``ca_cert``; a bad timeout.
    """

    def __init__(
        self,
        key: Path | str | None = None,
        cert: Path | str | None = None,
        ca_cert: Path | str | None = None,
        timeout: Any = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = -1,
        *,
        identity: Path | str | None = None,
        message_limit: int | None = None,
        mailbox_limit: int | None = None,
        writable_arrays: bool = False,
        on_error: Callable[[Exception], object] | None = None,
    ) -> None:
        if identity is not None and (key or cert or ca_cert):
            raise ValueError("give either identity, or key, cert and ca_cert")
        self.key = key
        self.cert = cert
        self.ca_cert = ca_cert
        self.identity = identity
        self._default_max_retries = max_retries
        self.default_timeout = timeout
        self.writable_arrays = writable_arrays
        self.on_error = on_error
        self.http_server: HTTPServer | None = None
        self.pool_handlers: dict[str, HTTPClient] = {}
        self.handlers_lookup: dict[str, HTTPClient] = {}
        self._message_limit = message_limit
        self._mailbox_limit = mailbox_limit
        self._node: Node | None = None
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._completions: Completions | None = None
        self._background: set[asyncio.Future[None]] = set()
        self._lost: list[str] = []

    # What a pool is made of

    @property
    def default_timeout(self) -> Any:
        """How long one attempt to send may take, as it was given."""
        return self._default_timeout

    @default_timeout.setter
    def default_timeout(self, timeout: Any) -> None:
        self._default_limits = _limits(timeout, self._default_max_retries)
        self._default_timeout = timeout

    @property
    def default_max_retries(self) -> int:
        """How long an absent peer is waited for."""
        return self._default_max_retries

    @default_max_retries.setter
    def default_max_retries(self, max_retries: int) -> None:
        self._default_limits = _limits(self._default_timeout, max_retries)
        self._default_max_retries = max_retries

    def _limits(self, timeout: Any, max_retries: int | None) -> tuple[float | None, int]:
        return _limits(
            self._default_timeout if timeout is None else timeout,
            self._default_max_retries if max_retries is None else max_retries,
        )

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop the pool was last used from; before, the one it would be used from."""
        return loop_here(self._loop)

    @loop.setter
    def loop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._bind(loop)

    @property
    def fingerprint(self) -> str | None:
        """What peers pin us by, ``sha256:`` and hexadecimal digits; ``None`` without TLS."""
        return None if self._node is None else self._node.fingerprint

    @property
    def _is_tls(self) -> bool:
        return self.ca_cert is not None or self.identity is not None

    def add_http_server(
        self,
        port: int | None = None,
        addr: str = "0.0.0.0",
        external_port: int | None = None,
    ) -> None:
        """Starts to listen.

        Args:
            port: The port to bind, 0 for a free one (``pool.http_server.port`` says which).
                Without it 80, with TLS 443.
            addr: The address or host name to bind.
            external_port: The port under which peers reach us when it is mapped. Deprecated:
                identify peers by their certificates instead.

        Raises:
            OSError: The address cannot be bound, or a file cannot be read.
            RepetitionError: The pool has a server.
        """
        if self._node is not None and not self._closed:
            raise RepetitionError("this pool has a server; a second one needs a pool of its own")
        if external_port:
            warnings.warn(
                "The parameter 'external_port' is deprecated: where ports are mapped, identify "
                "peers by their certificates (add_http_client(..., cert=...)).",
                DeprecationWarning,
                stacklevel=2,
            )
        if port is None:
            port = 443 if self._is_tls else 80
        self._node = self._make_node()
        with contextlib.suppress(RuntimeError):
            self._node.notify(self._bind(get_running_loop()))
        self._closed = False
        try:
            self.http_server = HTTPServer(self, port, external_port or None, addr)
        except BaseException:
            self._node.abort()
            self._node = None
            raise
        if not self._is_tls:
            _say_unauthenticated(self.cert is not None)

    def _make_node(self) -> Node:
        key = certificate = authorities = None
        if self.identity is not None:
            key = certificate = Path(self.identity).read_bytes()
        elif self.ca_cert is not None:
            if self.key is None or self.cert is None:
                raise ValueError("with ca_cert a pool needs key and cert: peers ask for ours")
            key = Path(self.key).read_bytes()
            certificate = Path(self.cert).read_bytes()
            authorities = Path(self.ca_cert).read_bytes()
        return Node(
            key=key,
            certificate=certificate,
            authorities=authorities,
            mailbox_limit=self._mailbox_limit,
            message_limit=self._message_limit,
            on_notice=log_notice,
        )

    def add_http_client(
        self,
        name: str,
        addr: str,
        port: int | None = None,
        cert: Path | str | bytes | None = None,
        *,
        key: str | None = None,
        wire: int | None = None,
        **cert_kwargs: Any,
    ) -> None:
        """Makes a peer known, to which we send and from which we receive.

        Args:
            name: What the peer is called in this pool.
            addr: Its host name or IP address.
            port: Its port; without it 80, with TLS 443.
            cert: Its certificate, by which it is recognised: a path, or the bytes of the file.
            key: Its public key, instead of ``cert``: ``sha256:`` and hexadecimal digits, as
                ``python -m convelo.pki fingerprint`` prints it.
            wire: 2 (ours), 4 or 5 (what that major version of the genuine package speaks). Without
                it the peer is asked; one that does not know ours is spoken to as version 4.
            **cert_kwargs: ``type``: the format of the certificate as pyOpenSSL's ``FILETYPE_PEM``
                (1) or ``FILETYPE_ASN1`` (2).

        Raises:
            AttributeError: The pool has no server yet.
            ValueError: A certificate or key in a pool without TLS, or one that cannot be read.
        """
        if self._node is None:
            raise AttributeError(
                "No HTTP Server initialized (yet). Call add_http_server before add_http_client."
            )
        filetype = cert_kwargs.pop("type", None)
        if cert_kwargs:
            raise TypeError(f"add_http_client() has no argument '{next(iter(cert_kwargs))}'")
        certificate = None if not cert else certificate_pem(cert, filetype)
        if (certificate is not None or key is not None) and not self._is_tls:
            raise ValueError(
                f"peer '{name}' has a certificate or key, but this pool has no TLS: "
                "give Pool(key=..., cert=..., ca_cert=...) or Pool(identity=...)"
            )
        if certificate is not None and self.identity is not None:
            # Without authorities a certificate says no more than its key.
            key, certificate = key_fingerprint(certificate), None
        if self.ca_cert is not None and certificate is None and key is None:
            logger.warning(
                "Peer '%s' is registered without a certificate: the first certificate of our "
                "authorities that comes from its address and port is taken for it, and bound to it. "
                "Give add_http_client(..., cert=...) or key=...",
                name,
            )
        if port is None:
            port = 443 if self._is_tls else 80
        replaced = self.pool_handlers.pop(name, None)
        if replaced is not None:
            self._node.forget_peer(replaced._index)
        client = HTTPClient(
            self, addr, port, name=name, cert=certificate, key=key, wire=wire
        )
        self.pool_handlers[name] = client
        if certificate is None:
            self.handlers_lookup[f"{addr}:{port}"] = client
        else:
            issuer, serial = certificate_identity(certificate)
            self.handlers_lookup[f"{issuer}:{serial}"] = client

    @staticmethod
    def create_ssl_context(
        key: Path | str | None,
        cert: Path | str | None,
        ca_cert: Path | str | None = None,
        server: bool = False,
    ) -> ssl.SSLContext | None:
        """A context of Python's :mod:`ssl` with the same rules; the pool itself does not need it.

        Returns:
            ``None`` without ``ca_cert``.
        """
        if ca_cert is None:
            return None
        if cert is None:
            raise ValueError("with ca_cert a context needs cert")
        purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
        context = ssl.create_default_context(purpose)
        context.load_cert_chain(cert, key)
        context.load_verify_locations(ca_cert)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    @staticmethod
    def get_port(ssl_ctx: ssl.SSLContext | None) -> int:
        """The default port: 80, with TLS 443."""
        return 80 if ssl_ctx is None else 443

    # Sending

    async def send(
        self,
        handler_name: str,
        message: Any,
        msg_id: str | int | None = None,
        timeout: Any = None,
        max_retries: int | None = None,
    ) -> None:
        """Sends an object and waits until the peer has it.

        Returning means that it was delivered; everything else raises. Arrays and buffers are not
        copied: do not change them before this returns. After an error whose ``maybe_delivered`` is
        false the next message takes over the default id.

        Args:
            handler_name: The peer's name.
            message: The object.
            msg_id: Under which the peer can ask for it; without it, a number counted up per peer.
            timeout: How long one attempt may take, in seconds; without it the pool's.
            max_retries: For how many seconds an absent peer is waited for; -1 for as long as it
                takes (``asyncio.timeout`` bounds it then); without it the pool's.

        Raises:
            AttributeError: There is no such peer.
            TypeError: The object cannot be packed.
            SendError: It was not delivered, or that is not known.
            PoolClosed: The pool was shut down.
        """
        handler = self.pool_handlers.get(handler_name)
        if handler is None:
            raise self._unknown(handler_name)
        loop = get_running_loop()
        completions = self._completions if loop is self._loop else self._bind(loop)
        assert completions is not None
        if timeout is None and max_retries is None:
            seconds, retries = self._default_limits
        else:
            seconds, retries = self._limits(timeout, max_retries)
        if handler._undecided or not (wire := handler._node_wire(handler._index)):

            def transmit(wire: int) -> asyncio.Future[None]:
                packed = handler._encode(wire, message)
                return handler._transmit(completions, msg_id, wire, *packed, seconds, retries)

            turn = handler._queue_up(completions, seconds, retries)
            await (await turn.take(msg_id, transmit))
            return
        value, buffers = handler._encode(wire, message)
        await handler._transmit(completions, msg_id, wire, value, buffers, seconds, retries)

    def asend(
        self,
        handler_name: str,
        message: Any,
        msg_id: str | int | None = None,
        timeout: Any = None,
        max_retries: int | None = None,
    ) -> None:
        """Sends an object without waiting for it.

        The object is packed (and buffers that could change are copied) before this returns. If it
        is not delivered, ``on_error`` is called, or :meth:`shutdown` raises.

        Raises:
            AttributeError: There is no such peer.
            TypeError: The object cannot be packed.
        """
        handler = self._handler(handler_name)
        seconds, retries = self._limits(timeout, max_retries)
        if handler._undecided or not (wire := handler._node_wire(handler._index)):
            self._post([handler], message, msg_id, seconds, retries, handler)
            return
        completions = self._bind(loop_here(self._loop))
        value, buffers = handler._encode(wire, message)
        if buffers:
            value, buffers = _settled((value, buffers))
        self._watch(
            handler,
            msg_id,
            handler._transmit(completions, msg_id, wire, value, buffers, seconds, retries),
        )

    async def broadcast(
        self,
        message: Any,
        msg_id: str | int,
        handler_names: Iterable[str] | None = None,
        timeout: Any = None,
        max_retries: int | None = None,
    ) -> None:
        """Sends one object to several peers (without names: to all) and waits until all have it.

        The object is packed once per wire that the peers speak.

        Raises:
            AttributeError: There is no such peer.
            ValueError: The peers' message prefixes differ.
            TypeError: The object cannot be packed.
            SendError: At least one peer did not get it; the notes of the error name the others.
        """
        handlers = self._recipients(handler_names)
        if not handlers:
            return
        completions = self._bind(get_running_loop())
        seconds, retries = self._limits(timeout, max_retries)
        packed: dict[bool, _Packed] = {}

        def pack(wire: int) -> _Packed:
            is_second = wire == WIRE_SECOND
            if is_second not in packed:
                packed[is_second] = _encode_for(handlers, is_second, message, handlers)
            return packed[is_second]

        def transmit(handler: HTTPClient, wire: int) -> asyncio.Future[None]:
            return handler._transmit(completions, msg_id, wire, *pack(wire), seconds, retries)

        async def in_turn(turn: Turn, handler: HTTPClient) -> None:
            await (await turn.take(msg_id, functools.partial(transmit, handler)))

        wires = [
            WIRE_UNKNOWN if handler._undecided else handler._node_wire(handler._index)
            for handler in handlers
        ]
        for wire in wires:
            if wire != WIRE_UNKNOWN:
                pack(wire)
        outcomes: list[BaseException | None] = await asyncio.gather(
            *(
                in_turn(handler._queue_up(completions, seconds, retries), handler)
                if wire == WIRE_UNKNOWN
                else transmit(handler, wire)
                for handler, wire in zip(handlers, wires, strict=True)
            ),
            return_exceptions=True,
        )
        errors = [outcome for outcome in outcomes if outcome is not None]
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"also: {other}")
            raise errors[0]

    def async_broadcast(
        self,
        message: Any,
        msg_id: str | int,
        handler_names: Iterable[str] | None = None,
        timeout: Any = None,
        max_retries: int | None = None,
    ) -> None:
        """Sends one object to several peers without waiting; see :meth:`asend`."""
        handlers = self._recipients(handler_names)
        seconds, retries = self._limits(timeout, max_retries)
        if handlers:
            self._post(handlers, message, msg_id, seconds, retries, handlers)

    def _post(
        self,
        handlers: list[HTTPClient],
        message: Any,
        msg_id: str | int | None,
        seconds: float | None,
        retries: int,
        destination: HTTPClient | list[HTTPClient],
    ) -> None:
        loop = loop_here(self._loop)
        completions = self._bind(loop)
        letter = _Letter(handlers, message, destination)
        wires = [
            WIRE_UNKNOWN if handler._undecided else handler._node_wire(handler._index)
            for handler in handlers
        ]
        for wire in wires:
            letter.pack(wire)
        for handler, wire in zip(handlers, wires, strict=True):
            future: asyncio.Future[None]
            if wire == WIRE_UNKNOWN:
                turn = handler._queue_up(completions, seconds, retries)
                future = loop.create_task(
                    letter.send_in_turn(turn, handler, completions, msg_id, seconds, retries)
                )
                # A task that is cancelled before its first step never takes its turn.
                future.add_done_callback(functools.partial(_end_turn, turn))
            else:
                future = handler._transmit(
                    completions, msg_id, wire, *letter.packed(wire), seconds, retries
                )
            self._watch(handler, msg_id, future)

    def _watch(
        self, handler: HTTPClient, msg_id: str | int | None, future: asyncio.Future[None]
    ) -> None:
        self._background.add(future)
        future.add_done_callback(functools.partial(self._posted, handler, msg_id))

    def _posted(
        self, handler: HTTPClient, msg_id: str | int | None, future: asyncio.Future[None]
    ) -> None:
        self._background.discard(future)
        if future.cancelled():
            sent = "a message" if msg_id is None else f"message {msg_id!r}"
            if not self._closed:
                # The event loop ends before the pool: whether it arrives is not known any more.
                logger.warning("%s to '%s' was cancelled by its event loop", sent, handler.name)
                return
            error: Exception = PoolClosed(
                f"{sent} to '{handler.name}' was not acknowledged before the pool was shut down"
            )
        else:
            failure = future.exception()
            if not isinstance(failure, Exception):
                return
            error = failure
        logger.error("Message not received: %s", error)
        if self.on_error is None:
            self._lost.append(str(error))
        else:
            self.on_error(error)

    # Receiving

    async def recv(
        self,
        handler_name: str,
        msg_id: str | int | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Receives an object.

        A receive that is cancelled, or too late, changes nothing: the next one gets the message.

        Args:
            handler_name: The name of the peer that sends it.
            msg_id: Its id; without it, a number counted up per peer.
            timeout: Seconds to wait; ``None`` for as long as it takes.

        Raises:
            AttributeError: There is no such peer.
            ReceiveTimeout: It did not come in time (a ``TimeoutError``).
            PeerLost, PeerRestarted: It cannot come any more.
            BodyError: It came and cannot be decoded.
            PoolClosed: The pool was shut down.
        """
        handler = self.pool_handlers.get(handler_name)
        if handler is None:
            raise self._unknown(handler_name)
        loop = get_running_loop()
        completions = self._completions if loop is self._loop else self._bind(loop)
        assert completions is not None
        message = handler._request(completions, msg_id)
        if not isinstance(message, tuple):
            message = await handler._wait(message, msg_id, timeout)
        return handler._decode(message)

    def arecv(self, handler_name: str, msg_id: str | int | None = None) -> Any:
        """Asks for an object without waiting.

        Returns:
            The object itself if it is there, else a future of it.

        Raises:
            AttributeError: There is no such peer.
            BodyError: It is there and cannot be decoded.
        """
        handler = self._handler(handler_name)
        loop = loop_here(self._loop)
        return handler._future(self._bind(loop), loop, msg_id)

    async def recv_all(
        self,
        handler_names: Iterable[str] | None = None,
        msg_id: str | int | None = None,
        timeout: float | None = None,
    ) -> list[tuple[str, Any]]:
        """Receives one object of each peer (without names: of all).

        If one of them fails, or the time is over, none is taken: all can be received again.

        Returns:
            Pairs of name and object, in the order of the names.

        Raises:
            As :meth:`recv`.
        """
        names = list(self.pool_handlers if handler_names is None else handler_names)
        handlers = [self._handler(name) for name in names]
        completions = self._bind(get_running_loop())
        messages = await request_all(handlers, completions, msg_id, timeout)
        received: list[tuple[str, Any]] = []
        for position, (name, handler, message) in enumerate(
            zip(names, handlers, messages, strict=True)
        ):
            try:
                received.append((name, handler._decode(message)))
            except BodyError:
                # What cannot be decoded is gone; the others wait for another call.
                for other, (link, kept) in enumerate(zip(handlers, messages, strict=True)):
                    if other != position:
                        link._give_back(msg_id, kept)
                raise
        return received

    def arecv_all(
        self,
        handler_names: Iterable[str] | None = None,
        msg_id: str | int | None = None,
    ) -> tuple[tuple[str, Any], ...]:
        """Asks for one object of each peer; see :meth:`arecv`."""
        names = list(self.pool_handlers if handler_names is None else handler_names)
        return tuple((name, self.arecv(name, msg_id)) for name in names)

    # The rest

    def update_msg_prefix(self, msg_prefix: str | None) -> None:
        """Sets what every message id begins with, for all peers known now, in both directions."""
        for handler in self.pool_handlers.values():
            handler.msg_prefix = msg_prefix

    async def shutdown(self, flush: float = DEFAULT_FLUSH_SECONDS) -> None:
        """Ends the pool, after the messages that are still on their way.

        Whoever still waits for a message gets :class:`PoolClosed`.

        Args:
            flush: Seconds that messages on their way have; what is not acknowledged then is
                dropped and named.

        Raises:
            ShutdownError: Messages of ``asend`` or ``async_broadcast`` were lost, now or earlier,
                and there is no ``on_error``.
        """
        if self._closed or self._node is None:
            self._closed = True
            return
        self._closed = True
        loop = get_running_loop()
        completions = self._bind(loop)
        deadline = time.monotonic() + flush
        ours = [future for future in self._background if future.get_loop() is loop]
        if ours:
            _, late = await asyncio.wait(ours, timeout=flush)
            for future in late:
                future.cancel()
        sent, received = self._totals()
        dropped = await self._node.close(completions, max(0.0, deadline - time.monotonic()))
        for line in dropped:
            logger.warning("Dropped at shutdown: %s", line)
        # The callbacks of what was dropped just now run first.
        await asyncio.sleep(0)
        self._forget()
        logger.info(
            "Pool shutdown.\nTotal bytes sent: %d\nTotal messages sent: %d\n"
            "Total bytes received: %d\nTotal messages received: %d",
            *sent,
            *received,
        )
        self._raise_lost()

    def _abort(self) -> None:
        """Ends the pool at once, from outside of any loop."""
        node, self._closed = self._node, True
        if node is not None:
            node.abort()
            self._forget()
            self._raise_lost()

    def _totals(self) -> tuple[tuple[int, int], tuple[int, int]]:
        handlers = self.pool_handlers.values()
        return (
            (sum(h.total_bytes_sent for h in handlers), sum(h.msg_send_counter for h in handlers)),
            (sum(h.total_bytes_recv for h in handlers), sum(h.msg_recv_counter for h in handlers)),
        )

    def _forget(self) -> None:
        self._node = None
        self.pool_handlers = {}
        self.handlers_lookup = {}

    def _raise_lost(self) -> None:
        lost, self._lost = tuple(self._lost), []
        if lost:
            count = "a message that was" if len(lost) == 1 else f"{len(lost)} messages that were"
            raise ShutdownError(
                f"the pool is shut down; {count} not awaited did not arrive: " + "; ".join(lost),
                lost,
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            await self.shutdown()
            return
        try:
            await self.shutdown(flush=0.0)
        except ShutdownError as error:
            # What ends the block is more telling; this is in its notes.
            if exc_value is not None:
                exc_value.add_note(str(error))

    def _bind(self, loop: asyncio.AbstractEventLoop) -> Completions:
        if loop is not self._loop or self._completions is None:
            self._completions = completions_of(loop)
            self._loop = loop
        return self._completions

    def _handler(self, name: str) -> HTTPClient:
        handler = self.pool_handlers.get(name)
        if handler is None:
            raise self._unknown(name)
        return handler

    def _unknown(self, name: str) -> Exception:
        if self._closed:
            return PoolClosed(f"this pool was shut down; '{name}' cannot be reached any more")
        known = ", ".join(f'"{known}"' for known in self.pool_handlers) or "none"
        return AttributeError(f'No pool handler named "{name}" (known: {known})')

    def _recipients(self, names: Iterable[str] | None) -> list[HTTPClient]:
        if names is None:
            if self._closed:
                raise PoolClosed("this pool was shut down")
            handlers = list(self.pool_handlers.values())
        else:
            handlers = [self._handler(name) for name in names]
        prefixes = {handler.msg_prefix for handler in handlers}
        if len(prefixes) > 1:
            listed = ", ".join(f"'{handler.name}': {handler.msg_prefix!r}" for handler in handlers)
            raise ValueError(
                f"a broadcast has one id, but the message prefixes of its peers differ ({listed})"
            )
        return handlers


def _limits(timeout: Any, max_retries: int) -> tuple[float | None, int]:
    """Seconds that a send has in all, and how many of them an absent peer is waited for."""
    seconds = seconds_of(timeout)
    if seconds is None or max_retries < 0:
        return None, max_retries
    return seconds * (max_retries + 1) + max_retries, max_retries


class _Letter:
    """An object that is packed now and sent when the peer's wire is known."""

    def __init__(
        self, handlers: list[HTTPClient], message: Any, destination: HTTPClient | list[HTTPClient]
    ) -> None:
        self._handlers = handlers
        self._message = message
        self._destination = destination
        # By whether the wire is the second one: both compatible wires have the same values.
        self._packed: dict[bool, _Packed | Exception] = {}

    def pack(self, wire: int) -> None:
        """Packs for a wire; for all that are possible as long as it is unknown."""
        if wire != WIRE_UNKNOWN:
            self._pack(wire == WIRE_SECOND)
            return
        for is_second in (True, False):
            try:
                self._pack(is_second)
            except Exception as error:
                self._packed[is_second] = error
        if all(isinstance(outcome, Exception) for outcome in self._packed.values()):
            self.packed(WIRE_SECOND)

    def _pack(self, is_second: bool) -> None:
        known = self._packed.get(is_second)
        if isinstance(known, Exception):
            raise known
        if known is None:
            self._packed[is_second] = _settled(
                _encode_for(self._handlers, is_second, self._message, self._destination)
            )

    def packed(self, wire: int) -> _Packed:
        """What was packed for a wire."""
        outcome = self._packed[wire == WIRE_SECOND]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def send_in_turn(
        self,
        turn: Turn,
        handler: HTTPClient,
        completions: Completions,
        msg_id: str | int | None,
        timeout: float | None,
        retries: int,
    ) -> None:
        """Sends when it is known which wire the peer speaks."""

        def transmit(wire: int) -> asyncio.Future[None]:
            packed = self.packed(wire)
            return handler._transmit(completions, msg_id, wire, *packed, timeout, retries)

        await (await turn.take(msg_id, transmit))


def _encode_for(
    handlers: list[HTTPClient],
    is_second: bool,
    message: Any,
    destination: HTTPClient | list[HTTPClient],
) -> _Packed:
    option = functools.reduce(
        lambda one, other: one & other,
        (DEFAULT_PACK_OPTION if h.option is None else h.option for h in handlers),
    )
    if is_second:
        return encode_second(message, STATE, option=option, destination=destination)
    value = encode_value(
        message,
        wire=WIRE_4,
        state=STATE,
        option=option,
        use_pickle=any(handler.use_pickle for handler in handlers),
        destination=destination,
    )
    return value, None


def _settled(packed: _Packed) -> _Packed:
    """The same, with a copy of everything that its owner could still change."""
    value, buffers = packed
    if not isinstance(value, bytes):
        value = bytes(value) if isinstance(value, memoryview) else [bytes(part) for part in value]
    if buffers:
        buffers = [part if isinstance(part, bytes) else bytes(part) for part in buffers]
    return value, buffers


def _end_turn(turn: Turn, _future: asyncio.Future[None]) -> None:
    turn.end()


def certificate_pem(cert: Path | str | bytes, filetype: int | None) -> bytes:
    """A certificate as PEM."""
    content = cert if isinstance(cert, bytes) else Path(cert).read_bytes()
    if filetype is None:
        filetype = _FILETYPE_PEM if b"-----BEGIN" in content else _FILETYPE_ASN1
    if filetype == _FILETYPE_ASN1:
        return ssl.DER_cert_to_PEM_cert(content).encode()
    if filetype == _FILETYPE_PEM:
        return content
    raise ValueError(
        f"a certificate of type {filetype!r} cannot be read: "
        f"FILETYPE_PEM ({_FILETYPE_PEM}) and FILETYPE_ASN1 ({_FILETYPE_ASN1}) can"
    )


def _say_unauthenticated(has_certificate: bool) -> None:
    global _said_unauthenticated
    if _said_unauthenticated:
        return
    _said_unauthenticated = True
    hint = " although it has a certificate: ca_cert is missing" if has_certificate else ""
    logger.warning(
        "This pool speaks plain HTTP%s. Peers are told apart by address and port, which anyone on "
        "the network can claim, and everyone on the way can read and change messages. "
        "Give Pool(key=..., cert=..., ca_cert=...) or Pool(identity=...) outside of tests.",
        hint,
    )
