"""The two halves of a pool: :class:`HTTPServer`, and one :class:`HTTPClient` per peer.

Both are views of the compiled transport, which does the work. A pool makes them; what downstream
code reads of them (ports, addresses, prefixes, counters, what has arrived) is here.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Generator, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from convelo._convelo import WIRE_SECOND, WIRE_UNKNOWN, Node
from convelo._engine import Message, Receipt
from convelo._link import Link, size_of
from convelo.compat.tno.serialization import DEFAULT_PACK_OPTION, STATE
from convelo.exceptions import BodyError, PoolError
from convelo.wire.compatible import decode_value, encode_value
from convelo.wire.second import decode as decode_second
from convelo.wire.second import encode as encode_second

if TYPE_CHECKING:
    from convelo._convelo import Completions
    from convelo.compat.tno.pool import Pool

__all__ = ["HTTPClient", "HTTPServer", "ParkedMessage", "log_notice", "logger"]

# A child of the name that the users' logging configuration knows: it takes effect on ours.
logger = logging.getLogger("tno.mpc.communication.httphandlers.convelo")

# The pool says that itself, once per process.
_PLAIN = "plain HTTP"


class ParkedMessage:
    """A message that has arrived and was not received yet. It is not decoded before ``recv``."""

    __slots__ = ("message_id",)

    def __init__(self, message_id: int | str) -> None:
        self.message_id = message_id

    def __repr__(self) -> str:
        return f"ParkedMessage({self.message_id!r})"


class _Parked(Mapping[int | str, ParkedMessage]):
    """What has arrived of one peer, by message id."""

    def __init__(self, node: Node, index: int) -> None:
        self._node = node
        self._index = index

    def __getitem__(self, message_id: int | str) -> ParkedMessage:
        if message_id not in self._node.parked(self._index):
            raise KeyError(message_id)
        return ParkedMessage(message_id)

    def __iter__(self) -> Iterator[int | str]:
        return iter(self._node.parked(self._index))

    def __len__(self) -> int:
        return len(self._node.parked(self._index))

    def __repr__(self) -> str:
        return f"<arrived and not received: {list(self)}>"


class HTTPClient(Link):
    """A peer: how it is reached, and what was sent to it and received from it.

    Args:
        pool: The pool, which must have a server.
        addr: Host name or IP address of the peer.
        port: The port under which the peer's server is known, 0 to 65535.
        ssl_ctx: Accepted for compatibility; the transport uses the pool's key and certificates.
        option: ormsgpack options for messages on the compatible wire.
        use_pickle: Without effect but a warning: what is sent is never pickled.
        msg_prefix: What every message id of this peer begins with, in both directions.
        name: The peer's name in errors; ``addr:port`` if not given.
        cert: The peer's certificate, PEM or DER.
        key: The peer's public key: ``sha256:`` and the SHA-256 of its SubjectPublicKeyInfo in
            hexadecimal digits, as ``python -m convelo.pki`` prints it.
        wire: 2 (ours), 4 or 5 (the genuine package's of that major version), or ``None`` to ask
            the peer.

    Raises:
        AttributeError: The pool has no server yet.
    """

    def __init__(
        self,
        pool: Pool,
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
        node = pool._node
        if node is None:
            raise AttributeError(
                "No HTTP Server initialized (yet). Call add_http_server before add_http_client."
            )
        name = f"{addr}:{port}" if name is None else name
        index = node.add_peer(
            name,
            addr,
            port,
            wire=WIRE_UNKNOWN if wire is None else wire,
            certificate=cert,
            key=key,
        )
        super().__init__(node, index, name)
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
        self._node.set_prefix(self._index, prefix or "")
        self._msg_prefix = prefix

    @property
    def buffer(self) -> Mapping[int | str, ParkedMessage]:
        """What has arrived and was not received yet, by message id; read only."""
        return _Parked(self._node, self._index)

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
        """Sends one message; see :meth:`Pool.send`. ``retry_delay`` is chosen by the transport."""
        del retry_delay
        await self.pool.send(self.name, message, msg_id, timeout, max_retries)

    def recv(self, msg_id: str | int | None = None) -> Any:
        """Asks for one message; see :meth:`Pool.arecv`."""
        return self.pool.arecv(self.name, msg_id)

    def _encode(self, wire: int, message: Any) -> tuple[Any, list[Any] | None]:
        option = self.option
        if wire == WIRE_SECOND:
            return encode_second(message, STATE, option=option, destination=self)
        value = encode_value(
            message,
            wire=wire,
            state=STATE,
            option=option,
            use_pickle=self.use_pickle,
            destination=self,
        )
        return value, None

    def _decode(self, message: Message) -> Any:
        wire, message_id, value, buffers = message
        server = self.pool.http_server
        try:
            if wire == WIRE_SECOND:
                decoded = decode_second(
                    value, buffers, STATE, writable=self.pool.writable_arrays, origin=self
                )
            else:
                decoded = decode_value(
                    value,
                    wire=wire,
                    state=STATE,
                    option=None if server is None else server.option,
                    use_pickle=server is not None and server.use_pickle,
                    origin=self,
                )
        except Exception as error:
            if isinstance(error, BodyError):
                reason = str(error)
            else:
                reason = f"{error.__class__.__name__}: {error}"
            raise BodyError(
                f"message {message_id!r} from '{self.name}' cannot be decoded: {reason}",
                peer=self.name,
                message_id=message_id,
            ) from error
        self.total_bytes_recv += size_of(value, buffers)
        if logger.isEnabledFor(logging.INFO):
            logger.info("Received message from %s:%s", self.addr, self.port)
        return decoded

    def _future(
        self, completions: Completions, loop: asyncio.AbstractEventLoop, msg_id: int | str | None
    ) -> Any:
        """The message that is there, decoded, or the future of one that is not."""
        raw = self._request(completions, msg_id)
        if isinstance(raw, tuple):
            return self._decode(raw)
        promised = Receipt(loop=loop)
        promised.withdraw = partial(self._abandon, raw)
        raw.add_done_callback(partial(self._settle, promised, msg_id))
        return promised

    def _settle(
        self, promised: Receipt, msg_id: int | str | None, raw: asyncio.Future[Message]
    ) -> None:
        assert isinstance(raw, Receipt)
        if raw.cancelled():
            promised.cancel()
        elif promised.done():
            self._undo(raw, msg_id)
        elif (error := raw.exception()) is not None:
            promised.set_exception(error)
        else:
            try:
                promised.set_result(self._decode(raw.result()))
            except PoolError as undecodable:
                promised.set_exception(undecodable)
        self._waiting.pop(raw, None)

    @staticmethod
    def _abandon(raw: Receipt, _promised: asyncio.Future[Any]) -> None:
        raw.cancel()


def log_notice(level: int, peer: str | None, text: str) -> None:
    """Logs what the transport has to say."""
    if peer is not None:
        logger.log(level, "%s: %s", peer, text)
    elif not text.startswith(_PLAIN):
        logger.log(level, "%s", text)


class _Started:
    """Stands for the genuine package's server task: the server runs when it was made."""

    def __await__(self) -> Generator[Any, None, None]:
        return iter(())  # type: ignore[return-value]

    def done(self) -> bool:
        """Whether the server runs or has run."""
        return True

    def cancelled(self) -> bool:
        """Whether it was cancelled, which only a task can be."""
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
    """The listening half of a pool. It serves from its construction on.

    Attributes:
        addr: The address it is bound to.
        port: The port it is bound to; the one that was chosen, if 0 was asked for.
        external_port: The port under which peers know it.
        option: ormsgpack options for reading messages of the compatible wire.
        use_pickle: Without effect but a warning: what arrives is never unpickled.
        server_task: Can be awaited; ends at once.

    Raises:
        OSError: The address cannot be bound.
    """

    def __init__(
        self,
        pool: Pool,
        port: int,
        external_port: int | None = None,
        addr: str = "0.0.0.0",
        ssl_ctx: ssl.SSLContext | None = None,
        option: int | None = None,
        use_pickle: bool = False,
    ) -> None:
        node = pool._node
        if node is None:
            raise AttributeError("a server is made by Pool.add_http_server")
        self.pool = pool
        self.addr = addr
        self.port = node.listen(addr, port, external_port)
        self.external_port = self.port if external_port is None else external_port
        self.ssl_ctx = ssl_ctx
        self.option = option
        self.use_pickle = use_pickle
        self.server_task = _Started()
        self.site = _Site(f"{'https' if pool._is_tls else 'http'}://{addr}:{self.port}")
        logger.info("Serving on %s:%s%s", addr, self.port, " with TLS" if pool._is_tls else "")

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The pool's event loop."""
        return self.pool.loop

    @property
    def msg_recv_counter(self) -> int:
        """Messages asked for so far, of all peers."""
        return sum(client.msg_recv_counter for client in self.pool.pool_handlers.values())

    @property
    def total_bytes_recv(self) -> int:
        """Bytes of the messages received so far, without their envelopes."""
        return sum(client.total_bytes_recv for client in self.pool.pool_handlers.values())
