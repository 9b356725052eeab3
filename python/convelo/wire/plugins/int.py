"""Integers outside [-2**63, 2**64 - 1]: two's complement, little endian, one sign bit to spare."""

from __future__ import annotations

from typing import Any

__all__ = ["deserialize", "serialize"]


def serialize(value: int, _encoder: Any = None) -> bytes:
    """The bytes of ``value``; ``(bit_length + 8) // 8`` of them."""
    return value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)


def deserialize(data: bytes, _decoder: Any = None) -> int:
    """The integer that ``data`` holds."""
    return int.from_bytes(data, "little", signed=True)
