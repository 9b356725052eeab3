"""The network transport of the 5.0 API, over convelo's own."""

from __future__ import annotations

import logging
import math
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ormsgpack

from convelo._convelo import WIRE_5, WIRE_UNKNOWN, Node, certificate_identity
from convelo._engine import seconds_of
from convelo._link import Link
from convelo.compat.tno.pool import DEFAULT_FLUSH_SECONDS, DEFAULT_TIMEOUT_SECONDS, certificate_pem
from convelo.compat.tno5.communicators.communicator import Communicator
from convelo.compat.tno5.contexts import SslFiles, files_of
from convelo.compat.tno5.exceptions import CommunicationError

if TYPE_CHECKING:
    from convelo.compat.tno5.pool import Pool

__all__ = ["HttpCommunicator", "HttpConnection", "logger"]

# A child of the name that the users' logging configuration knows: it takes effect on ours.
logger = logging.getLogger("tno.mpc.communication.communicators.http_communicator.convelo")


class HttpConnection:
    """How a peer is reached and recognised.

    Args:
        addr: Host name or IP address.
        port: The port under which the peer's server is known.
        cert: Path of the peer's certificate; with TLS this or ``key`` is needed to be recognised.
        cert_type: pyOpenSSL's ``FILETYPE_PEM`` (1) or ``FILETYPE_ASN1`` (2); found out without it.
        key: The peer's public key, instead of ``cert``: ``sha256:`` and hexadecimal digits, as
            ``python -m convelo.pki fingerprint`` prints it.
        wire: 2 (ours) or 5 (the genuine package's); without it the peer is asked.
    """

    def __init__(
        self,
        addr: str,
        port: int,
        cert: Path | str | None = None,
        cert_type: int | None = None,
        *,
        key: str | None = None,
        wire: int | None = None,
    ) -> None:
        self.addr = addr
        self.port = port
        self.cert = cert
        self.cert_type = cert_type
        self.key = key
        self.wire = wire
        self._certificate = None if not cert else certificate_pem(cert, cert_type)
        self._link: Link | None = None

    @property
    def network_id(self) -> str:
        """Issuer and serial number of the certificate; without one, IP address and port."""
        if self._certificate is not None:
            issuer, serial = certificate_identity(self._certificate)
            return f"{issuer}:{serial}"
        return f"{socket.gethostbyname(self.addr)}:{self.port}"

    def __str__(self) -> str:
        return f"HttpConnection(addr={self.addr}, port={self.port})"


class HttpCommunicator(Communicator[HttpConnection]):
    """A server, and connections to other parties' servers.

    It works inside a :class:`~convelo.compat.tno5.pool.Pool`.

    Args:
        addr: The address or host name to bind.
        port: The port to bind; ``None`` for 80, with TLS 443; 0 for a free one.
        ssl_client_context: With ``ssl_server_context``, switches mutual TLS on. The files of both
            have to be known and the same: see :mod:`convelo.compat.tno5.contexts`.
        ssl_server_context: See there.
        conn_timeout: Seconds that one attempt to send may take, or an ``aiohttp.ClientTimeout``.
        conn_retry_max: How often it is tried, for the genuine package; with ``conn_retry_delay``
            this says how long an absent peer is waited for.
        conn_retry_delay: Seconds between two tries.

    Raises:
        ValueError: One context without the other, or contexts whose files are not known.
    """

    def __init__(
        self,
        addr: str = "localhost",
        port: int | None = 80,
        ssl_client_context: ssl.SSLContext | None = None,
        ssl_server_context: ssl.SSLContext | None = None,
        conn_timeout: Any = DEFAULT_TIMEOUT_SECONDS,
        conn_retry_max: int = 3,
        conn_retry_delay: float = 1,
        *,
        message_limit: int | None = None,
        mailbox_limit: int | None = None,
    ) -> None:
        super().__init__()
        if (ssl_client_context is None) != (ssl_server_context is None):
            raise ValueError(
                "You must provide both the client and server SSL contexts when using SSL."
            )
        self.addr = addr
        self.use_ssl = ssl_client_context is not None
        self.port = (443 if self.use_ssl else 80) if port is None else port
        self.ssl_client_context = ssl_client_context
        self.ssl_server_context = ssl_server_context
        self.conn_timeout = conn_timeout
        self.conn_retry_max = conn_retry_max
        self.conn_retry_delay = conn_retry_delay
        self._files = _common_files(ssl_client_context, ssl_server_context)
        self._message_limit = message_limit
        self._mailbox_limit = mailbox_limit
        self._node: Node | None = None
        self._pool: Pool | None = None
        pauses = max(conn_retry_max, 1) - 1
        self._patience = math.ceil(pauses * conn_retry_delay)
        seconds = seconds_of(conn_timeout)
        self._seconds = (
            None if seconds is None else seconds * (pauses + 1) + pauses * conn_retry_delay
        )

    def _join(self, pool: Pool) -> None:
        self._pool = pool

    def _listen_now(self) -> None:
        """Binds the port. Needs no event loop."""
        files = self._files
        self._node = node = Node(
            key=None if files is None else files.key,
            certificate=None if files is None else files.certificate,
            authorities=None if files is None else files.authorities,
            mailbox_limit=self._mailbox_limit,
            message_limit=self._message_limit,
            text_ids=True,
            on_notice=_log_notice,
        )
        for name, connection in self._connections.items():
            self._connect(name, connection)
        self.port = node.listen(self.addr, self.port)
        logger.info(
            "Serving on %s:%s%s", self.addr, self.port, " with TLS" if self.use_ssl else ""
        )

    def _connect(self, name: str, connection: HttpConnection) -> None:
        node = self._node
        assert node is not None
        if (connection.cert or connection.key) and not self.use_ssl:
            raise ValueError(f"connection '{name}' has a certificate or key, but there is no TLS")
        wire = connection.wire
        if self._pool is not None and not self._pool._packs_itself:
            # A packer of one's own makes whole documents; the second wire has others.
            wire = WIRE_5
        index = node.add_peer(
            name,
            connection.addr,
            connection.port,
            wire=WIRE_UNKNOWN if wire is None else wire,
            compatible=5,
            certificate=connection._certificate,
            key=connection.key,
        )
        connection._link = Link(node, index, name)

    def _open(self) -> None:
        if self._pool is None:
            raise CommunicationError("an HttpCommunicator works inside a Pool: Pool(name, this)")
        if self._node is None:
            self._listen_now()
        for name, connection in self._connections.items():
            if connection._link is None:
                self._connect(name, connection)

    def _start_now(self) -> None:
        super()._start_now()
        self._open()

    async def _initialize(self) -> None:
        self._open()

    async def _send(self, recipient: HttpConnection, packet: bytes) -> None:
        """Sends a packet as a :class:`DefaultPacker` makes it."""
        pool, link = self._pool, recipient._link
        assert pool is not None and link is not None
        try:
            body = ormsgpack.unpackb(packet)
            message_id, document = body["id"], body["object"]
        except (ValueError, TypeError, KeyError) as error:
            raise CommunicationError(
                "an HttpCommunicator sends messages, not arbitrary packets: msgpack maps of "
                "'object' (bytes) and 'id' (str), as DefaultPacker makes them"
            ) from error
        completions = pool._completions_here()
        await link._transmit(
            completions, message_id, WIRE_5, document, None, self._seconds, self._patience
        )

    async def _shutdown(self) -> None:
        node, pool = self._node, self._pool
        if node is None or pool is None:
            return
        for line in await node.close(pool._completions_here(), DEFAULT_FLUSH_SECONDS):
            logger.warning("Dropped at shutdown: %s", line)

    def __str__(self) -> str:
        return f"HttpCommunicator(addr={self.addr}, port={self.port})"


def _log_notice(level: int, peer: str | None, text: str) -> None:
    if peer is None:
        logger.log(level, "%s", text)
    else:
        logger.log(level, "%s: %s", peer, text)


def _common_files(
    client: ssl.SSLContext | None, server: ssl.SSLContext | None
) -> SslFiles | None:
    if client is None or server is None:
        return None
    files = files_of(server)
    if files_of(client) != files:
        raise ValueError(
            "the client and server SSL contexts have different keys, certificates or authorities: "
            "a party has one identity"
        )
    return files
