"""The pool: one party's view of the network between the parties."""

from __future__ import annotations

import asyncio
import builtins
import logging
import ssl
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from convelo._convelo import certificate_identity, key_fingerprint
from convelo._peer import Limits, check_class, decode_all, receive_all
from convelo._pool import (
    DEFAULT_FLUSH_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    PoolCore,
    limits_of,
    warn_of_first_party,
    warn_of_plain_http,
)
from convelo._tls import certificate_pem, mutual_context
from convelo.compat.tno.exceptions import RepetitionError
from convelo.compat.tno.httphandlers import HTTPClient, HTTPServer, encode_for_all
from convelo.compat.tno.httphandlers import logger as notices
from convelo.exceptions import PoolClosed, ShutdownError

__all__ = ["Pool", "logger"]

# A child of the name that the users' logging configuration knows: it takes effect on ours.
logger = logging.getLogger("tno.mpc.communication.pool.convelo")

_Value = TypeVar("_Value")


class Pool:
    """Sends objects to, and receives objects from, the other parties of a computation.

    A pool has one server, and one client per peer. It can be made with or without a running event
    loop, and used from whichever loop is running when it is called.

    Example::

        pool = Pool()
        pool.add_http_server(addr="127.0.0.1", port=61001)
        pool.add_http_client("Bob", addr="127.0.0.1", port=61002)
        await pool.send("Bob", "Hello")
        reply = await pool.recv("Bob")
        await pool.shutdown()

    Args:
        key: Path of our private key, PEM: RSA, EC or Ed25519.
        cert: Path of our certificate, PEM, followed by intermediate ones if there are any.
        ca_cert: Path of the certificate authorities we trust, PEM. **TLS is on if and only if this
            or** ``identity`` **is given.**
        timeout: How long one attempt to send may take: seconds, an ``aiohttp.ClientTimeout``, or
            ``None`` for no limit. A send has ``max_retries + 1`` times that in total.
        max_retries: How many seconds to wait for an absent peer; -1 for as long as it takes.
            (The genuine package tries once a second; here pauses start short and have jitter.)
            It is also how often a message whose connection breaks is resent to a genuine peer;
            between two parties that use convelo, it resumes where it broke off.
            A peer that answers and refuses is an immediate error in any case.
        identity: Path of a PEM file with our private key and our self-signed certificate, as
            ``python -m convelo.pki identity`` makes it. It replaces the other three; each peer is
            then known by its certificate or key.
        message_limit: The most bytes in one message; by default ``mailbox_limit``.
        mailbox_limit: The most bytes of one peer's messages that may wait here to be received;
            beyond that, the sender has to wait.
        writable_arrays: Whether to copy numpy arrays from peers that use convelo, so that they can
            be changed. Otherwise they are read-only views of what arrived.
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
        self.http_server: HTTPServer | None = None
        self.handlers_lookup: dict[str, HTTPClient] = {}
        self.core: PoolCore[HTTPClient] = PoolCore(
            logger,
            notices,
            message_limit=message_limit,
            mailbox_limit=mailbox_limit,
            on_error=on_error,
        )

    def __repr__(self) -> str:
        kind = type(self)
        name = "convelo.Pool" if kind is Pool else f"{kind.__module__}.{kind.__qualname__}"
        return f"<{name} {self._described()}>"

    def _described(self) -> str:
        """Where it listens, and who its peers are."""
        node, server = self.core.node, self.http_server
        if self.core.is_closed:
            return "that was shut down"
        if node is None or node.port is None or server is None:
            where = "that does not listen yet"
        else:
            tls = "TLS" if self._is_tls else "plain HTTP"
            where = f"on {server.addr}:{server.port}, {tls}"
        peers = ", ".join(f"{peer.name!r} at {peer.addr}:{peer.port}" for peer in self._peers())
        return f"{where}; peers: {peers or 'none'}"

    def _peers(self) -> list[HTTPClient]:
        return list(self.core.peers.values())

    # The parts of a pool

    @property
    def default_timeout(self) -> Any:
        """How long one attempt to send may take, as it was given."""
        return self._default_timeout

    @default_timeout.setter
    def default_timeout(self, timeout: Any) -> None:
        self._default_limits = limits_of(timeout, self._default_max_retries)
        self._default_timeout = timeout

    @property
    def default_max_retries(self) -> int:
        """How many seconds to wait for an absent peer."""
        return self._default_max_retries

    @default_max_retries.setter
    def default_max_retries(self, max_retries: int) -> None:
        self._default_limits = limits_of(self._default_timeout, max_retries)
        self._default_max_retries = max_retries

    @property
    def on_error(self) -> Callable[[Exception], object] | None:
        """Called with each error of a message that nobody awaits."""
        return self.core.on_error

    @on_error.setter
    def on_error(self, on_error: Callable[[Exception], object] | None) -> None:
        self.core.on_error = on_error

    @property
    def pool_handlers(self) -> dict[str, HTTPClient]:
        """The peers by name."""
        return self.core.peers

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that last used the pool; before that, the one that would use it."""
        return self.core.binding.near()

    @loop.setter
    def loop(self, loop: asyncio.AbstractEventLoop) -> None:
        self.core.binding.bind(loop)

    @property
    def fingerprint(self) -> str | None:
        """How peers identify our key: ``sha256:`` and hexadecimal digits; ``None`` without TLS."""
        return None if self.core.node is None else self.core.node.fingerprint

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
            port: The port to bind, 0 for a free one (``pool.http_server.port`` says which);
                by default 80, with TLS 443.
            addr: The address or host name to bind.
            external_port: The port under which peers reach us when it is mapped. Deprecated:
                identify peers by their certificates instead.

        Raises:
            OSError: The address cannot be bound, or a file cannot be read.
            RepetitionError: The pool already has a server.
        """
        node = None if self.core.is_closed else self.core.node
        if node is not None and node.port is not None:
            raise RepetitionError("this pool has a server already; another one needs its own pool")
        if external_port:
            warnings.warn(
                "The parameter 'external_port' is deprecated: where ports are mapped, identify "
                "peers by their certificates (add_http_client(..., cert=...)).",
                DeprecationWarning,
                stacklevel=2,
            )
        if port is None:
            port = 443 if self._is_tls else 80
        if node is None:
            self.core.open(*self._credentials())
        try:
            self.http_server = HTTPServer(self, port, external_port or None, addr)
        except BaseException:
            if not self.core.peers:
                self.core.discard()
            raise
        if not self._is_tls:
            without = " although it has a certificate: ca_cert is missing" if self.cert else ""
            advice = "Pool(key=..., cert=..., ca_cert=...) or Pool(identity=...)"
            warn_of_plain_http(logger, advice, why=without)

    def _credentials(self) -> tuple[bytes, bytes, bytes | None] | tuple[()]:
        if self.identity is not None:
            content = Path(self.identity).read_bytes()
            return content, content, None
        if self.ca_cert is None:
            return ()
        if self.key is None or self.cert is None:
            raise ValueError("a pool with ca_cert needs key and cert too: peers ask who we are")
        return (
            Path(self.key).read_bytes(),
            Path(self.cert).read_bytes(),
            Path(self.ca_cert).read_bytes(),
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
        """Adds a peer to send to and to receive from, before or after :meth:`add_http_server`.

        Args:
            name: What the peer is called in this pool.
            addr: Its host name or IP address.
            port: Its port; by default 80, with TLS 443.
            cert: Its certificate, by which it is recognised: a path, or the bytes of the file.
            key: Its public key, instead of ``cert``: ``sha256:`` and hexadecimal digits, as
                ``python -m convelo.pki fingerprint`` prints it.
            wire: 2 (convelo's own), 4 or 5 (that of the genuine package's major version). By
                default the peer is asked; one that does not know wire 2 gets 4.
            **cert_kwargs: ``type``: the format of the certificate as pyOpenSSL's ``FILETYPE_PEM``
                (1) or ``FILETYPE_ASN1`` (2).

        Raises:
            ValueError: The pool has no TLS, or the certificate or key cannot be read.
        """
        filetype = cert_kwargs.pop("type", None)
        if cert_kwargs:
            raise TypeError(f"add_http_client() has no argument '{next(iter(cert_kwargs))}'")
        certificate = None if not cert else certificate_pem(cert, filetype)
        if (certificate is not None or key is not None) and not self._is_tls:
            raise ValueError(
                f"peer '{name}' has a certificate or key, but this pool has no TLS: "
                "use Pool(key=..., cert=..., ca_cert=...) or Pool(identity=...)"
            )
        if certificate is not None and self.identity is not None:
            # Without authorities a certificate says no more than its key.
            key, certificate = key_fingerprint(certificate), None
        if self.ca_cert is not None and certificate is None and key is None:
            warn_of_first_party(logger, name, "add_http_client(..., cert=...) or key=...")
        if port is None:
            port = 443 if self._is_tls else 80
        if self.core.node is None:
            self.core.open(*self._credentials())
        replaced = self.core.peers.pop(name, None)
        if replaced is not None:
            replaced.handle.forget()
        client = HTTPClient(
            self, addr, port, name=name, cert=certificate, key=key, wire=wire
        )
        self.core.peers[name] = client
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
        """An :mod:`ssl` context with the rules of a pool; the pool itself needs none.

        Returns:
            ``None`` without ``ca_cert``.
        """
        if ca_cert is None:
            return None
        if cert is None:
            raise ValueError("with ca_cert a context needs cert")
        return mutual_context(key, cert, ca_cert, server=server)

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

        If this returns, the object was delivered; otherwise it raises. Arrays and buffers are not
        copied: do not change them before this returns. After an error whose ``maybe_delivered`` is
        false, the next message takes over the default id.

        Args:
            handler_name: The peer's name.
            message: The object.
            msg_id: The id by which the peer can ask for it; by default a number counted per peer.
            timeout: How many seconds one attempt may take; by default the pool's.
            max_retries: How many seconds to wait for an absent peer; -1 for as long as it takes
                (limit that with ``asyncio.timeout``); by default the pool's.

        Raises:
            AttributeError: There is no such peer.
            TypeError: The object cannot be packed.
            SendError: It was not delivered, or it is not known whether it was.
            PoolClosed: The pool was shut down.
        """
        handler = self.core.peers.get(handler_name)
        if handler is None:
            raise self._unknown(handler_name)
        await handler.post(message, msg_id, self._limits(timeout, max_retries))

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
        is not delivered, ``on_error`` is called, or else :meth:`shutdown` raises.

        Raises:
            AttributeError: There is no such peer.
            TypeError: The object cannot be packed.
        """
        handler = self.handler(handler_name)
        limits = self._limits(timeout, max_retries)
        self.core.post([handler], message, msg_id, limits, handler.encode)

    async def broadcast(
        self,
        message: Any,
        msg_id: str | int,
        handler_names: Iterable[str] | None = None,
        timeout: Any = None,
        max_retries: int | None = None,
    ) -> None:
        """Sends one object to several peers (by default to all) and waits until all have it.

        The object is packed once for each wire that the peers use.

        Raises:
            AttributeError: There is no such peer.
            ValueError: The peers' message prefixes differ.
            TypeError: The object cannot be packed.
            SendError: At least one peer did not get it; the notes of the error name the others.
        """
        handlers = self._recipients(handler_names)
        if handlers:
            limits = self._limits(timeout, max_retries)
            encode = partial(encode_for_all, handlers)
            await self.core.broadcast(handlers, message, msg_id, limits, encode)

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
        if handlers:
            limits = self._limits(timeout, max_retries)
            self.core.post(handlers, message, msg_id, limits, partial(encode_for_all, handlers))

    # Receiving

    @overload
    async def recv(
        self,
        handler_name: str,
        msg_id: str | int | None = None,
        timeout: float | None = None,
        *,
        type: None = None,
    ) -> Any: ...
    @overload
    async def recv(
        self,
        handler_name: str,
        msg_id: str | int | None = None,
        timeout: float | None = None,
        *,
        type: builtins.type[_Value],
    ) -> _Value: ...
    async def recv(
        self,
        handler_name: str,
        msg_id: str | int | None = None,
        timeout: float | None = None,
        *,
        type: builtins.type[Any] | None = None,
    ) -> Any:
        """Receives an object.

        A receive that is cancelled or times out changes nothing: the next one gets the message.

        Args:
            handler_name: The name of the peer that sends it.
            msg_id: Its id; by default a number counted per peer.
            timeout: Seconds to wait; ``None`` for as long as it takes.
            type: The class of which the object must be an instance, which is also the type that
                a type checker sees.

        Raises:
            AttributeError: There is no such peer.
            ReceiveTimeout: It did not arrive in time (a ``TimeoutError``).
            PeerLost, PeerRestarted: It will never arrive.
            BodyError: It arrived but cannot be decoded, or is not of ``type``.
            PoolClosed: The pool was shut down.
        """
        if type is not None:
            check_class(type)
        handler = self.core.peers.get(handler_name)
        if handler is None:
            raise self._unknown(handler_name)
        message = handler.request(msg_id)
        if not isinstance(message, tuple):
            message = await handler.wait(message, msg_id, timeout)
        if type is None:
            return handler.decode(message)
        return handler.decode_as(message, type)

    def arecv(self, handler_name: str, msg_id: str | int | None = None) -> Any:
        """Asks for an object without waiting.

        Returns:
            The object itself if it has arrived, else a future of it.

        Raises:
            AttributeError: There is no such peer.
            BodyError: It has arrived but cannot be decoded.
        """
        return self.handler(handler_name).promise(msg_id)

    async def recv_all(
        self,
        handler_names: Iterable[str] | None = None,
        msg_id: str | int | None = None,
        timeout: float | None = None,
    ) -> list[tuple[str, Any]]:
        """Receives one object from each peer (by default from all).

        If one of them fails or the time is up, none is taken: all can still be received.

        Returns:
            Pairs of name and object, in the order of the names.

        Raises:
            As :meth:`recv`.
        """
        names = list(self.core.peers if handler_names is None else handler_names)
        handlers = [self.handler(name) for name in names]
        taken = await receive_all(handlers, msg_id, timeout)
        return list(zip(names, decode_all(taken, msg_id), strict=True))

    def arecv_all(
        self,
        handler_names: Iterable[str] | None = None,
        msg_id: str | int | None = None,
    ) -> tuple[tuple[str, Any], ...]:
        """Asks for one object from each peer; see :meth:`arecv`."""
        names = list(self.core.peers if handler_names is None else handler_names)
        return tuple((name, self.arecv(name, msg_id)) for name in names)

    # The rest

    def update_msg_prefix(self, msg_prefix: str | None) -> None:
        """Sets what all message ids begin with, for the peers known now, in both directions."""
        for handler in self.core.peers.values():
            handler.msg_prefix = msg_prefix

    async def shutdown(self, flush: float = DEFAULT_FLUSH_SECONDS) -> None:
        """Ends the pool, after the messages that are still on their way.

        Receives that are waiting raise :class:`PoolClosed`.

        Args:
            flush: Seconds to wait for messages on their way; those that are not acknowledged by
                then are dropped, and the log names them.

        Raises:
            ShutdownError: Messages of ``asend`` or ``async_broadcast`` were lost, now or earlier,
                and the pool has no ``on_error``.
        """
        if self.core.is_closed or self.core.node is None:
            self.core.is_closed = True
            return
        await self.core.close(flush)
        self.core.log_totals(logger)
        self._forget()

    def abort(self) -> None:
        """Ends the pool at once, from outside any loop.

        Raises:
            ShutdownError: As :meth:`shutdown`.
        """
        self.core.abort()
        self._forget()

    def _forget(self) -> None:
        self.handlers_lookup = {}
        self.core.forget()

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
            # What ended the block says more; this becomes a note on it.
            if exc_value is not None:
                exc_value.add_note(str(error))

    def handler(self, name: str) -> HTTPClient:
        """The peer of that name.

        Raises:
            AttributeError: There is none.
            PoolClosed: The pool was shut down.
        """
        handler = self.core.peers.get(name)
        if handler is None:
            raise self._unknown(name)
        return handler

    def _unknown(self, name: str) -> Exception:
        if self.core.is_closed:
            return PoolClosed(f"this pool was shut down; '{name}' can no longer be reached")
        known = ", ".join(f'"{known}"' for known in self.core.peers) or "none"
        return AttributeError(f'No pool handler named "{name}" (known: {known})')

    def _limits(self, timeout: Any, max_retries: int | None) -> Limits:
        if timeout is None and max_retries is None:
            return self._default_limits
        return limits_of(
            self._default_timeout if timeout is None else timeout,
            self._default_max_retries if max_retries is None else max_retries,
        )

    def _recipients(self, names: Iterable[str] | None) -> list[HTTPClient]:
        if names is None:
            if self.core.is_closed:
                raise PoolClosed("this pool was shut down")
            handlers = list(self.core.peers.values())
        else:
            handlers = [self.handler(name) for name in names]
        prefixes = {handler.msg_prefix for handler in handlers}
        if len(prefixes) > 1:
            listed = ", ".join(f"'{handler.name}': {handler.msg_prefix!r}" for handler in handlers)
            raise ValueError(
                f"a broadcast has one id, but the message prefixes of its peers differ: {listed}"
            )
        return handlers
