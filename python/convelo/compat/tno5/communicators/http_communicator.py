"""The network transport of the 5.0 API, over convelo's own."""

from __future__ import annotations

import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import ormsgpack

from convelo._convelo import WIRE_5, WIRE_UNKNOWN, certificate_identity
from convelo._pool import (
    DEFAULT_FLUSH_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    PoolCore,
    limits_of,
    warn_of_first_party,
    warn_of_plain_http,
)
from convelo._tls import certificate_pem
from convelo.compat.tno5.clients import Client
from convelo.compat.tno5.communicators.communicator import Communicator
from convelo.compat.tno5.contexts import SslFiles, files_of
from convelo.compat.tno5.exceptions import CommunicationError
from convelo.compat.tno5.packers.packer import DefaultPacker

__all__ = ["HttpCommunicator", "HttpConnection", "logger"]

# A child of the name in users' logging configurations, which therefore apply here too.
logger = logging.getLogger("tno.mpc.communication.communicators.http_communicator.convelo")


class HttpConnection:
    """How to reach and recognise a peer.

    Args:
        addr: Host name or IP address.
        port: The port under which the peer's server is known.
        cert: Path of the peer's certificate; with TLS, the peer is recognised by this or ``key``.
        cert_type: pyOpenSSL's ``FILETYPE_PEM`` (1) or ``FILETYPE_ASN1`` (2); by default detected.
        key: The peer's public key, instead of ``cert``: ``sha256:`` and hexadecimal digits, as
            ``python -m convelo.pki fingerprint`` prints it.
        wire: 2 (convelo's own) or 5 (the genuine package's); by default the peer is asked.
        trust_first: With TLS and neither ``cert`` nor ``key``, take the first party for the peer
            that comes from its address and port with a certificate of our authorities, until one
            comes whose certificate names ``addr`` when that of the first does not. Without it, as
            in the genuine package, nothing is accepted from the peer, and what is sent to it goes
            to any party of our authorities that answers at its address.

    Raises:
        ValueError: ``trust_first`` together with ``cert`` or ``key``.
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
        trust_first: bool = False,
    ) -> None:
        if trust_first and (cert or key):
            raise ValueError("give a certificate or a key, or else trust_first")
        self.addr = addr
        self.port = port
        self.cert = cert
        self.cert_type = cert_type
        self.key = key
        self.wire = wire
        self.trust_first = trust_first
        self._certificate = None if not cert else certificate_pem(cert, cert_type)
        self._client: Client | None = None

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
            must be known and the same: see :mod:`convelo.compat.tno5.contexts`.
        ssl_server_context: See there.
        conn_timeout: Seconds that one attempt to send may take, or an ``aiohttp.ClientTimeout``.
        conn_retry_max: How many attempts the genuine package makes; together with
            ``conn_retry_delay`` it says how long to wait for an absent peer.
        conn_retry_delay: Seconds between two attempts.

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
        self.limits = limits_of(conn_timeout, max(conn_retry_max, 1) - 1, conn_retry_delay)
        self.core: PoolCore[Client] = PoolCore(
            logger,
            logger,
            message_limit=message_limit,
            mailbox_limit=mailbox_limit,
            text_ids=True,
        )

    @property
    def sends_packets(self) -> bool:
        """Whether a subclass sees each packet that is sent."""
        return type(self)._send is not HttpCommunicator._send

    def listen(self) -> None:
        """Binds the port, before ``initialize`` would do so. Needs no event loop.

        Raises:
            OSError: The address cannot be bound.
            ValueError: A connection has a certificate, a key or ``trust_first``, but there is no
                TLS.
        """
        files = self._files
        if files is None:
            self.core.open()
        else:
            self.core.open(files.key, files.certificate, files.authorities)
        try:
            for name, connection in self._connections.items():
                self._connect(name, connection)
            self.port = self.core.listen(self.addr, self.port)
        except BaseException:
            self.core.discard()
            raise
        if files is None:
            advice = "HttpCommunicator(ssl_client_context=..., ssl_server_context=...)"
            warn_of_plain_http(logger, advice)

    def _connect(self, name: str, connection: HttpConnection) -> None:
        node = self.core.node
        assert node is not None
        pinned = bool(connection.cert or connection.key)
        if pinned and not self.use_ssl:
            raise ValueError(f"connection '{name}' has a certificate or key, but there is no TLS")
        if connection.trust_first and not self.use_ssl:
            raise ValueError(f"connection '{name}' has trust_first, but there is no TLS")
        client = self.core.peers.get(name) or Client(self.core.binding, name, DefaultPacker())
        wire = client.only_wire or connection.wire
        handle = node.add_peer(
            name,
            connection.addr,
            connection.port,
            wire=WIRE_UNKNOWN if wire is None else wire,
            compatible=5,
            certificate=connection._certificate,
            key=connection.key,
            trust_first=connection.trust_first,
        )
        if connection.trust_first:
            warn_of_first_party(logger, name, "HttpConnection(..., cert=...) or key=...")
        elif self.use_ssl and not pinned:
            logger.warning(
                "Peer '%s' is registered without a certificate: nothing is accepted from it (as in "
                "the genuine package), and what is sent to it goes to any party of our authorities "
                "that answers at its address. Use HttpConnection(..., cert=...) or key=..., or "
                "trust_first=True to take the first party for it that comes from its address",
                name,
            )
        client.join(node, handle)
        connection._client = client

    async def _initialize(self) -> None:
        if self._receive_handler is None:
            raise CommunicationError("an HttpCommunicator works inside a Pool: Pool(name, this)")
        if self.core.node is None:
            self.listen()
        for name, connection in self._connections.items():
            if connection._client is None:
                self._connect(name, connection)

    async def _send(self, recipient: HttpConnection, packet: bytes) -> None:
        """Sends a packet as a :class:`DefaultPacker` makes it."""
        try:
            body = ormsgpack.unpackb(packet)
            message_id, document = body["id"], body["object"]
        except (ValueError, TypeError, KeyError) as error:
            raise CommunicationError(
                "an HttpCommunicator sends messages, not arbitrary packets: expected a msgpack map "
                "of 'object' (bytes) and 'id' (str), as DefaultPacker makes it"
            ) from error
        assert recipient._client is not None
        await recipient._client.transmit(WIRE_5, (document, None), message_id, self.limits)

    async def _shutdown(self) -> None:
        if self.core.node is not None:
            await self.core.close(DEFAULT_FLUSH_SECONDS)

    def __str__(self) -> str:
        return f"HttpCommunicator(addr={self.addr}, port={self.port})"


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
