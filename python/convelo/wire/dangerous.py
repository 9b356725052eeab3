"""Pickle: loading a pickled object runs whatever code its author chose.

Only :meth:`Serialization.pack` / :meth:`Serialization.unpack` with ``use_pickle=True`` (in the 5.x
API ``fallback_pickle``) use it: a program that packs and unpacks its own bytes. What goes to a
peer or comes from one is never pickled, whatever the settings say: ``use_pickle`` on a
handler only causes :func:`warn_ignored`.
"""

from __future__ import annotations

import pickle
import warnings
from typing import Any

__all__ = ["DangerousPickleWarning", "PickleIgnoredWarning", "dumps", "loads", "warn_ignored"]


class DangerousPickleWarning(UserWarning):
    """An object was pickled or unpickled because the caller asked for it."""


class PickleIgnoredWarning(UserWarning):
    """Pickle was asked for between parties, where it is never used."""


def dumps(value: Any) -> bytes:
    """Pickles ``value``, with a :class:`DangerousPickleWarning`."""
    warnings.warn(
        f"{type(value).__name__} has no registered serializer and is pickled: anyone who unpickles "
        "it runs what these bytes say. Register a serializer instead.",
        DangerousPickleWarning,
        stacklevel=2,
    )
    return pickle.dumps(value)


def loads(data: bytes) -> Any:
    """Unpickles ``data``, with a :class:`DangerousPickleWarning`. Runs the code in ``data``."""
    warnings.warn(
        "Unpickling runs code that the bytes contain. Never use it on what came from someone "
        "else; register a deserializer instead.",
        DangerousPickleWarning,
        stacklevel=2,
    )
    return pickle.loads(data)


def warn_ignored() -> None:
    """Says that ``use_pickle`` has no effect on messages."""
    warnings.warn(
        "use_pickle has no effect between parties: unpickling a message would let its sender run "
        "code here. Register a serializer for the type instead.",
        PickleIgnoredWarning,
        stacklevel=3,
    )
