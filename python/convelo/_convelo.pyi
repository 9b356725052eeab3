"""The compiled half of convelo: the transport, which never takes the GIL."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, final

from typing_extensions import Buffer

from convelo._engine import Message, Receipt

__all__ = [
    "WIRE_4",
    "WIRE_5",
    "WIRE_SECOND",
    "WIRE_UNKNOWN",
    "Completions",
    "Node",
    "PeerHandle",
    "certificate_identity",
    "count_wrappers",
    "footprint",
    "key_fingerprint",
    "make_authority",
    "make_certificate",
    "make_identity",
    "parquet_claims",
]

WIRE_UNKNOWN: int
WIRE_SECOND: int
WIRE_4: int
WIRE_5: int

@final
class Completions:
    """Results on their way from the transport to one event loop.

    ``loop.add_reader(completions.fileno(), completions.drain)`` connects it.
    """

    def __new__(
        cls,
        loop: asyncio.AbstractEventLoop,
        create_receipt: Callable[[], asyncio.Future[Message]] | None = None,
    ) -> Completions: ...
    def fileno(self) -> int: ...
    def drain(self) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...

@final
class PeerHandle:
    """A peer of a node, which made it."""

    def forget(self) -> None: ...
    def reset(self) -> None: ...
    def wire(self) -> int: ...
    def set_prefix(self, prefix: str) -> None: ...
    def counters(self) -> tuple[int, int]: ...
    def parked(self) -> list[int | str]: ...

@final
class Node:
    """The transport of one party: a server, connections to peers, and a mailbox."""

    def __new__(
        cls,
        *,
        key: bytes | None = None,
        certificate: bytes | None = None,
        authorities: bytes | None = None,
        mailbox_limit: int | None = None,
        message_limit: int | None = None,
        text_ids: bool = False,
        on_notice: Callable[[int, str | None, str], None] | None = None,
    ) -> Node: ...
    def notify(self, completions: Completions) -> None:
        """Has notices delivered to this loop, before the first message."""

    def listen(self, host: str, port: int, advertised_port: int | None = None) -> int: ...
    def add_peer(
        self,
        name: str,
        host: str,
        port: int,
        *,
        wire: int = 0,
        compatible: int = 4,
        certificate: bytes | None = None,
        key: str | None = None,
        trust_first: bool = False,
    ) -> PeerHandle:
        """With TLS and neither ``certificate`` nor ``key``, nothing is accepted from the peer.

        Unless it is ``trust_first``: then the first party that comes from its address is the peer.
        """

    def prepare(
        self, completions: Completions, peer: PeerHandle, timeout: float | None, retries: int
    ) -> asyncio.Future[int]: ...
    def send(
        self,
        completions: Completions,
        peer: PeerHandle,
        message_id: int | str | None,
        wire: int,
        value: Buffer | Sequence[Buffer],
        buffers: Sequence[Buffer] | None,
        timeout: float | None,
        retries: int,
    ) -> asyncio.Future[None]: ...
    def recv(
        self, completions: Completions, peer: PeerHandle, message_id: int | str | None
    ) -> Message | Receipt: ...
    def cancel_recv(self, future: asyncio.Future[Message]) -> None: ...
    def close(self, completions: Completions, flush: float) -> asyncio.Future[list[str]]: ...
    def abort(self) -> None: ...
    @property
    def port(self) -> int | None: ...
    @property
    def fingerprint(self) -> str | None: ...

def count_wrappers(packed: Buffer) -> int:
    """How many maps in a msgpack document have both keys, ``type`` and ``data``."""

def footprint(document: Buffer, *, any_keys: bool = False) -> int:
    """Bytes of memory that the objects of a msgpack document take, at most.

    Not counted is what its extensions become. ``any_keys`` says that keys need not be texts.
    """

def parquet_claims(
    file: Buffer,
) -> tuple[int, int, list[tuple[int, bool, int, int, int, int]], list[tuple[bytes, bytes]]]:
    """What a Parquet file claims, before any library reads it.

    Returns:
        The rows, the bytes of memory that its metadata needs, and its columns: bytes of a value,
        whether values are of variable length, how many there are, how many of them refer to a
        dictionary, its bytes, and the bytes of all pages. Then its own key-value metadata.
    """

def make_authority(common_name: str, days: int) -> tuple[bytes, bytes]: ...
def make_certificate(
    authority_key: bytes, authority_certificate: bytes, common_name: str, names: Sequence[str], days: int
) -> tuple[bytes, bytes]: ...
def make_identity(common_name: str, days: int) -> tuple[bytes, bytes, str]: ...
def key_fingerprint(certificate: bytes) -> str: ...
def certificate_identity(certificate: bytes) -> tuple[str, str]: ...

