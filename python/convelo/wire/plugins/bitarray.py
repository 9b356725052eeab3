"""bitarray: a head byte (0x10 if big endian, with the number of pad bits) and the bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitarray import bitarray

__all__ = ["deserialize", "serialize"]


def serialize(value: bitarray, _encoder: Any = None) -> bytes:
    """The head byte and the bits of ``value``."""
    from bitarray.util import serialize as write

    return write(value)


def deserialize(data: bytes, _decoder: Any = None) -> bitarray:
    """The bitarray that ``data`` holds, with its endianness.

    Raises:
        ValueError: the head byte is wrong.
    """
    from bitarray.util import deserialize as read

    return read(data)
