"""The two halves of a pool: :class:`HTTPServer`, and one :class:`HTTPClient` per peer.

A pool makes them. They have the attributes that other programs read: ports, addresses, prefixes,
counters, and messages that have arrived.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from convelo._convelo import WIRE_SECOND, WIRE_UNKNOWN
from convelo._engine import Message
from convelo._peer import Encoded, Peer, encode
from convelo._pool import PoolCore, limits_of
from convelo.compat.tno.serialization import DEFAULT_PACK_OPTION, STATE
from convelo.wire.compatible import decode_value
from convelo.wire.second import decode

__all__ = ["HTTPClient", "HTTPServer", "ParkedMessage", "encode_for_all", "logger"]

# A child of the name in users' logging configurations, which therefore apply here too.
logger = logging.getLogger("tno.mpc.communication.httphandlers.convelo")


class ParkedMessage:
    """A message that has arrived but has not been received yet. ``recv`` decodes it."""

    __slots__ = ("message_id",)

    def __init__(self, message_id: int | str) -> None:
        self.message_id = message_id

    def __repr__(self) -> str:
        return f"ParkedMessage({self.message_id!r})"


class _Parked(Mapping[int | str, ParkedMessage]):
    """What has arrived from one peer, by message id."""

    def __init__(self, parked: Callable[[], list[int | str]]) -> None:
        self._parked = parked

    def __getitem__(self, message_id: int | str) -> ParkedMessage:
        if message_id not in self._parked():
            raise KeyError(message_id)
        return ParkedMessage(message_id)

    def __iter__(self) -> Iterator[int | str]:
        return iter(self._parked())

    def __len__(self) -> int:
        return len(self._parked())

    def __repr__(self) -> str:
        return f"<arrived and not received: {self._parked()}>"


class HTTPClient(Peer):
    """A peer: how to reach it, and what was sent to it and received from it.

    Args:
        pool: The pool, which must have a server, or have been given a peer.
        addr: Host name or IP address of the peer.
        port: The port under which the peer's server is known, 0 to 65535.
        ssl_ctx: Accepted for compatibility; the transport uses the pool's key and certificates.
        option: ormsgpack options for messages on the compatible wire.
        use_pickle: Causes a warning and nothing else: what is sent is never pickled.
        msg_prefix: What every message id of this peer begins with, in both directions.
        name: The peer's name in errors; ``addr:port`` if not given.
        cert: The peer's certificate, PEM or DER.
        key: The peer's public key: ``sha256:`` and the SHA-256 of its SubjectPublicKeyInfo in
            hexadecimal digits, as ``python -m convelo.pki`` prints it.
        wire: 2 (ours), 4 or 5 (the genuine package's of that major version), or ``None`` to ask
            the peer.

    Raises:
        AttributeError: The pool has neither.
    """

    def __init__(
        self,
        pool: Any,
        addr: str,
        port: int,
        ssl_ctx: ssl.SSLContext | None = None,
        option: int | None = DEFAULT_PACK_OPTION,
        use_pickle: bool = False,
        msg_prefix: str | None = None,
        *,
        name: str | None = None,
        cert: bytes | None = None,
        key: str | None = None,
        wire: int | None = None,
    ) -> None:
        core: PoolCore[HTTPClient] = pool.core
        if core.node is None:
            raise AttributeError(
                "No HTTP Server initialized (yet). Call add_http_server before add_http_client."
            )
        address = f"{addr}:{port}"
        super().__init__(core.binding, address if name is None else name, logger, address)
        handle = core.node.add_peer(
            self.name,
            addr,
            port,
            wire=WIRE_UNKNOWN if wire is None else wire,
            certificate=cert,
            key=key,
            # As in the genuine package, a certificate need not be registered.
            trust_first=True,
        )
        self.join(core.node, handle)
        self.pool = pool
        self.addr = addr
        self.port = port
        self.ssl_ctx = ssl_ctx
        self.cert = cert
        self.option = option
        self.use_pickle = use_pickle
        self._msg_prefix: str | None = None
        if msg_prefix is not None:
            self.msg_prefix = msg_prefix

    @property
    def msg_prefix(self) -> str | None:
        """What the message ids of both directions begin with."""
        return self._msg_prefix

    @msg_prefix.setter
    def msg_prefix(self, prefix: str | None) -> None:
        assert self.node is not None
        self.handle.set_prefix(prefix or "")
        self._msg_prefix = prefix

    @property
    def buffer(self) -> Mapping[int | str, ParkedMessage]:
        """What has arrived and has not been received yet, by message id; read only."""
        assert self.node is not None
        return _Parked(self.handle.parked)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HTTPClient):
            return NotImplemented
        return self.addr == other.addr and self.port == other.port

    def __hash__(self) -> int:
        return hash((self.addr, self.port))

    def __repr__(self) -> str:
        return f"<HTTPClient '{self.name}' at {self.addr}:{self.port}>"

    async def send(
        self,
        message: Any,
        msg_id: str | int | None = None,
        retry_delay: float = 1,
        timeout: Any = 300,
        max_retries: int = -1,
    ) -> None:
        """Sends one message; see :meth:`Pool.send`. The transport ignores ``retry_delay``."""
        del retry_delay
        await self.post(message, msg_id, limits_of(timeout, max_retries))

    def recv(self, msg_id: str | int | None = None) -> Any:
        """Asks for one message; see :meth:`Pool.arecv`."""
        return self.promise(msg_id)

    def encode(self, wire: int, message: Any) -> Encoded:
        """Encodes a message for this peer."""
        return encode(wire, message, STATE, self.option, self.use_pickle, self)

    def unpack(self, message: Message) -> Any:
        """The value of a message that has arrived."""
        wire, _, value, buffers = message
        pool = self.pool
        if wire == WIRE_SECOND:
            return decode(value, buffers, STATE, writable=pool.writable_arrays, origin=self)
        server = pool.http_server
        return decode_value(
            value,
            wire=wire,
            state=STATE,
            option=server.option,
            use_pickle=server.use_pickle,
            origin=self,
        )


def encode_for_all(recipients: Sequence[HTTPClient], wire: int, message: Any) -> Encoded:
    """Encodes a message once for several peers."""
    options = [DEFAULT_PACK_OPTION if peer.option is None else peer.option for peer in recipients]
    option = functools.reduce(lambda one, other: one & other, options)
    use_pickle = any(peer.use_pickle for peer in recipients)
    return encode(wire, message, STATE, option, use_pickle, recipients)


class _Started:
    """Stands in for the genuine package's server task; the server is already running."""

    def __await__(self) -> Generator[Any, None, None]:
        return iter(())  # type: ignore[return-value]

    def done(self) -> bool:
        """Whether the server runs or has run."""
        return True

    def cancelled(self) -> bool:
        """Whether it was cancelled; only a task can be."""
        return False

    def cancel(self) -> bool:
        """Does nothing: there is no task."""
        return False

    def exception(self) -> None:
        """Nothing: an error is raised by ``add_http_server``."""

    def result(self) -> None:
        """Nothing."""


class _Site:
    """Where the server listens."""

    # The port may be bound again as soon as it is closed.
    _reuse_port = True

    def __init__(self, name: str) -> None:
        self.name = name


class HTTPServer:
    """The listening half of a pool. It serves as soon as it exists.

    Attributes:
        addr: The address it is bound to.
        port: The port it is bound to; a free one, if 0 was asked for.
        external_port: The port under which peers know it.
        option: ormsgpack options for reading messages of the compatible wire.
        use_pickle: Causes a warning and nothing else: what arrives is never unpickled.
        server_task: Can be awaited; ends at once.

    Raises:
        OSError: The address cannot be bound.
    """

    def __init__(
        self,
        pool: Any,
        port: int,
        external_port: int | None = None,
        addr: str = "0.0.0.0",
        ssl_ctx: ssl.SSLContext | None = None,
        option: int | None = None,
        use_pickle: bool = False,
    ) -> None:
        core: PoolCore[HTTPClient] = pool.core
        if core.node is None:
            raise AttributeError("a pool makes its server itself: call Pool.add_http_server")
        self.pool = pool
        self.addr = addr
        self.port = core.listen(addr, port, external_port)
        self.external_port = self.port if external_port is None else external_port
        self.ssl_ctx = ssl_ctx
        self.option = option
        self.use_pickle = use_pickle
        self.server_task = _Started()
        scheme = "http" if core.node.fingerprint is None else "https"
        self.site = _Site(f"{scheme}://{addr}:{self.port}")
        self._core = core

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The pool's event loop."""
        return self._core.binding.near()

    @property
    def msg_recv_counter(self) -> int:
        """Messages asked for so far, from all peers."""
        return sum(client.msg_recv_counter for client in self._core.peers.values())

    @property
    def total_bytes_recv(self) -> int:
        """Bytes of the messages received so far, without their envelopes."""
        return sum(client.total_bytes_recv for client in self._core.peers.values())
