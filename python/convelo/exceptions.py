"""What can go wrong, as a small hierarchy under :class:`PoolError`.

The text of every error names the peer and the message. Those that users of
``tno.mpc.communication`` already catch stay catchable by the old names: a timeout is a
``TimeoutError``, an absent peer a ``ConnectionError``, and a certificate that is refused is
``aiohttp.ClientConnectorCertificateError`` too, where aiohttp is loaded.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = [
    "AmbiguousDict",
    "BodyError",
    "MessageTooLarge",
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
    "SendError",
    "SendTimeout",
    "ShutdownError",
    "from_transport",
]


class PoolError(Exception):
    """Everything that goes wrong between parties."""


class PoolClosed(PoolError):
    """This pool was shut down: by its owner, while something was still waiting, or before."""


class ShutdownError(PoolError):
    """Messages that were not awaited were lost; ``lost`` says which and why, one line each."""

    def __init__(self, text: str, lost: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.lost = lost


class BodyError(PoolError):
    """A message arrived that cannot be decoded. ``peer`` sent it under ``message_id``."""

    def __init__(
        self, text: str, *, peer: str | None = None, message_id: int | str | None = None
    ) -> None:
        super().__init__(text)
        self.peer = peer
        self.message_id = message_id


class AmbiguousDict(PoolError, TypeError):
    """A dict has both keys ``type`` and ``data``.

    On the compatible wire that is the sign of a wrapped object, so it would arrive as something
    else. Between our own peers it is sent as it is.
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
        # Not super(): beside aiohttp's class the next in line wants other arguments.
        Exception.__init__(self, text)
        self.peer = peer
        self.message_id = message_id
        self.maybe_delivered = maybe_delivered


class SendError(_MessageError):
    """A message was not delivered, or its delivery is not known.

    ``maybe_delivered`` is true when the message left and its acknowledgement is missing. When it
    is false the message surely did not arrive, and the next one takes over its default id.
    """


class PeerUnreachable(SendError, ConnectionError):
    """Nobody answered at the peer's address, and the attempts are used up."""


class PeerRefused(SendError):
    """The peer answered and refused the message; another attempt would be refused again."""


class PeerNotAuthenticated(SendError):
    """The peer could not prove who it is, or refused what we proved to it.

    Where aiohttp is loaded, what is raised is ``aiohttp.ClientConnectorCertificateError`` too.
    """


class MessageTooLarge(SendError):
    """The message is larger than its wire or a limit allows."""


class SendTimeout(SendError, TimeoutError):
    """The message was not acknowledged in time."""


class PeerDowngraded(SendError):
    """The peer spoke the second wire before and now does not.

    Either another program answers at its address, or it was replaced by an older version.
    """


class QueueFull(SendError):
    """Too many messages already wait to be sent to this peer."""


class ReceiveError(_MessageError):
    """A message that was waited for does not come."""


class PeerLost(ReceiveError):
    """The peer went away while a message of it was waited for."""


class PeerRestarted(ReceiveError, SendError):
    """The peer lost its state since we last heard from it: what it had got or sent is gone.

    The default ids of both directions start again at 0, as they do at the peer.
    """


class ReceiveTimeout(ReceiveError, TimeoutError):
    """No message came in the time that ``recv`` was given. The next ``recv`` waits for it again."""


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
    """The class that code written for aiohttp catches, where that code can exist."""
    # Whoever names aiohttp's class has imported aiohttp.
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
        # What the properties of aiohttp's class read.
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
    """What aiohttp's error reads of a connection."""

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
