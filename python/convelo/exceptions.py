"""What can go wrong between parties, as a small hierarchy under :class:`PoolError`.

The text of every error names the peer and the message. Errors that users of
``tno.mpc.communication`` already catch can still be caught under the old names: a timeout is a
``TimeoutError``, an absent peer a ``ConnectionError``, and a refused certificate is also an
``aiohttp.ClientConnectorCertificateError``, if aiohttp is loaded.
"""

from __future__ import annotations

import sys
from typing import Any

from convelo._untrusted import shown

__all__ = [
    "AmbiguousDict",
    "AnnotationError",
    "BodyError",
    "MessageTooLarge",
    "OptionalImportError",
    "PeerDowngraded",
    "PeerLost",
    "PeerNotAuthenticated",
    "PeerRefused",
    "PeerRestarted",
    "PeerUnreachable",
    "PoolClosed",
    "PoolError",
    "QueueFull",
    "ReceiveError",
    "ReceiveTimeout",
    "RepetitionError",
    "SendError",
    "SendTimeout",
    "ShutdownError",
    "from_transport",
]


class PoolError(Exception):
    """Anything that goes wrong between parties."""


class PoolClosed(PoolError):
    """This pool was shut down, before the call or while it was waiting."""


class ShutdownError(PoolError):
    """Messages that nobody awaited were lost; ``lost`` has a line with the reason for each."""

    def __init__(self, text: str, lost: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.lost = lost


class BodyError(PoolError):
    """A message arrived that cannot be decoded. ``peer`` sent it under ``message_id``."""

    def __init__(
        self, text: str, *, peer: str | None = None, message_id: int | str | None = None
    ) -> None:
        # It tells what arrived, in words of the peer's or of a library's.
        super().__init__(shown(text))
        self.peer = peer
        self.message_id = message_id


class AmbiguousDict(PoolError, TypeError):
    """A dict has both keys ``type`` and ``data``.

    On the compatible wires these keys mark a wrapped object, so the dict would arrive as something
    else. Between two parties that use convelo, it is sent unchanged.
    """


class _MessageError(PoolError):
    def __init__(
        self,
        text: str,
        *,
        peer: str | None = None,
        message_id: int | str | None = None,
        maybe_delivered: bool = False,
    ) -> None:
        # Not super(): next to aiohttp's class, the next class in line expects other arguments.
        Exception.__init__(self, text)
        self.peer = peer
        self.message_id = message_id
        self.maybe_delivered = maybe_delivered


class SendError(_MessageError):
    """A message was not delivered, or it is not known whether it was.

    ``maybe_delivered`` is true if the message left and was not acknowledged. If it is false, the
    message certainly did not arrive, and the next one takes over its default id.
    """


class PeerUnreachable(SendError, ConnectionError):
    """Nobody answered at the peer's address in the time that ``max_retries`` allows."""


class PeerRefused(SendError):
    """The peer answered and refused the message, as it would refuse another attempt."""


class PeerNotAuthenticated(SendError):
    """The peer could not prove who it is, or did not accept our proof.

    If aiohttp is loaded, the error is also an ``aiohttp.ClientConnectorCertificateError``.
    """


class MessageTooLarge(SendError):
    """The message is larger than its wire or a limit allows."""


class SendTimeout(SendError, TimeoutError):
    """The message was not acknowledged in time."""


class PeerDowngraded(SendError):
    """The peer used wire 2 before and no longer does.

    Either another program answers at its address, or the peer now runs an older version.
    """


class QueueFull(SendError):
    """Too many messages are waiting to be sent to this peer."""


class ReceiveError(_MessageError):
    """A message that was awaited will not arrive."""


class PeerLost(ReceiveError):
    """The peer disappeared while one of its messages was awaited."""


class PeerRestarted(ReceiveError, SendError):
    """The peer was restarted: the messages that it had received or not yet sent are gone.

    The default ids of both directions start again at 0, here and at the peer.
    """


class ReceiveTimeout(ReceiveError, TimeoutError):
    """No message arrived in the time given to ``recv``. The next ``recv`` waits for it again."""


class AnnotationError(Exception):
    """The annotations of a serializer and its deserializer are missing or do not match."""


class RepetitionError(Exception):
    """Something that can be done only once was done again, such as registering a type."""


class OptionalImportError(ImportError):
    """This part of the package needs a library that is not installed."""


_KINDS: dict[str, type[_MessageError]] = {
    "unreachable": PeerUnreachable,
    "refused": PeerRefused,
    "not_authenticated": PeerNotAuthenticated,
    "too_large": MessageTooLarge,
    "timeout": SendTimeout,
    "downgraded": PeerDowngraded,
    "queue_full": QueueFull,
    "lost": PeerLost,
    "restarted": PeerRestarted,
}

_certificate_errors: dict[type[Any], type[PeerNotAuthenticated]] = {}


def from_transport(
    kind: str,
    text: str,
    peer: str,
    message_id: int | str | None,
    maybe_delivered: bool,
) -> PoolError:
    """Makes the error that the compiled transport describes by its ``kind``."""
    if kind == "closed":
        return PoolClosed(text)
    chosen = _KINDS.get(kind, SendError)
    if kind == "not_authenticated":
        chosen = _certificate_error()
    return chosen(text, peer=peer, message_id=message_id, maybe_delivered=maybe_delivered)


def _certificate_error() -> type[PeerNotAuthenticated]:
    """The class that code written for aiohttp catches, if such code can exist here."""
    # Code that names aiohttp's class has imported aiohttp.
    aiohttp = sys.modules.get("aiohttp")
    theirs = getattr(aiohttp, "ClientConnectorCertificateError", None)
    if not isinstance(theirs, type):
        return PeerNotAuthenticated
    known = _certificate_errors.get(theirs)
    if known is None:
        known = _certificate_errors[theirs] = _combined(theirs)
    return known


def _combined(theirs: type[Any]) -> type[PeerNotAuthenticated]:
    def initialise(self: Any, text: str, **names: Any) -> None:
        PeerNotAuthenticated.__init__(self, text, **names)
        # The properties of aiohttp's class read this.
        self._conn_key = _ConnectionKey(names.get("peer") or "")
        self._certificate_error = Exception(text)
        self._os_error = self._certificate_error

    return type(
        "PeerNotAuthenticated",
        (PeerNotAuthenticated, theirs),
        {
            "__module__": __name__,
            "__doc__": PeerNotAuthenticated.__doc__,
            "__init__": initialise,
            "__str__": lambda self: str(self._certificate_error),
            "__reduce__": lambda self: (
                _not_authenticated,
                (str(self), self.peer, self.message_id, self.maybe_delivered),
            ),
        },
    )


class _ConnectionKey:
    """What aiohttp's error reads from a connection."""

    __slots__ = ("host",)
    port = None
    is_ssl = True
    ssl = True

    def __init__(self, host: str) -> None:
        self.host = host


def _not_authenticated(
    text: str, peer: str | None, message_id: int | str | None, maybe_delivered: bool
) -> PoolError:
    return from_transport("not_authenticated", text, peer or "", message_id, maybe_delivered)
