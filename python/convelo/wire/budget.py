"""How much memory a message may take when it is decoded, paid before it is taken.

A few bytes can stand for gigabytes: an empty map is an object of 64 bytes, a run of a million zeros
a number in a Parquet file. No message decodes to more than :data:`FACTOR` times its size and
:data:`SLACK`; one that would is refused.
"""

from __future__ import annotations

import threading
from typing import Any

import ormsgpack

from convelo._convelo import footprint
from convelo.wire.errors import TooLarge, Undecodable

__all__ = ["FACTOR", "SLACK", "Budget", "current_budget", "is_scalar"]

FACTOR = 64
"""Bytes that one byte of a message may become."""

SLACK = 1 << 20
"""Bytes that a message may become however small it is."""

# What the decoder itself needs beside the values.
_OWN = 64 << 10

# The first bytes of documents that hold one text, number or bytes object.
_SCALAR = bytes(
    not any(
        first <= head <= last
        for first, last in ((0x80, 0x9F), (0xC7, 0xC9), (0xD4, 0xD8), (0xDC, 0xDF))
    )
    for head in range(256)
)

# The table of a time zone.
_ZONE = 64 << 10

_running = threading.local()


class Budget:
    """The bytes that one message may still take.

    In a ``with`` block it is the current one of its thread: whatever decodes a part of the message
    pays from it, registered deserializers and what they call included.
    """

    __slots__ = ("_left", "_outer", "_size", "_zones")

    def __init__(self, size: int, slack: int = SLACK) -> None:
        """``size``: bytes of the message, those of its separate buffers included."""
        self._size = size
        self._left = FACTOR * size + max(0, slack - _OWN)
        self._zones: set[str] = set()
        self._outer: Budget | None = None

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return self._left

    def __enter__(self) -> Budget:
        self._outer = getattr(_running, "budget", None)
        _running.budget = self
        return self

    def __exit__(self, *_: object) -> None:
        _running.budget = self._outer

    def pay(self, amount: int, what: str) -> None:
        """Takes ``amount`` bytes for ``what``.

        Raises:
            TooLarge: there are fewer left.
        """
        if amount > self._left:
            raise TooLarge(self._size, what)
        self._left -= amount

    def pay_document(self, document: Any, option: int | None) -> None:
        """Pays for the objects of a msgpack document, and checks that it is one.

        Raises:
            TooLarge: there is too little left.
            Undecodable: it is cut off or malformed.
        """
        any_keys = option is not None and bool(option & ormsgpack.OPT_NON_STR_KEYS)
        try:
            amount = footprint(document, any_keys=any_keys)
        except ValueError as error:
            raise Undecodable(f"what arrived is not a msgpack document: {error}") from error
        self.pay(amount, "lists, dicts, texts and numbers")

    def give_back(self, amount: int) -> None:
        """Returns what was paid for memory that is free again."""
        self._left += amount

    def pay_zone(self, name: str) -> None:
        """Pays for the table of a time zone, once for each zone."""
        if name not in self._zones:
            self.pay(_ZONE, "time zones")
            self._zones.add(name)


class _Unlimited(Budget):
    """For values that this program made itself."""

    __slots__ = ()

    def pay(self, amount: int, what: str) -> None:
        pass


_UNLIMITED = _Unlimited(0)


def current_budget() -> Budget:
    """The budget of the message that is decoded in this thread; without one, there is no limit."""
    found: Budget | None = getattr(_running, "budget", None)
    return _UNLIMITED if found is None else found


def is_scalar(document: Any) -> bool:
    """Whether a document is one text, number or bytes object, which takes little more than its
    bytes.

    Raises:
        IndexError: it is empty.
    """
    return bool(_SCALAR[document[0]])
