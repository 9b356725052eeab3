"""Integers outside the 64 bits that msgpack has."""

from __future__ import annotations

from typing import Any

from convelo.compat.tno.serialization import Serialization
from convelo.wire.plugins import int as core
from convelo.wire.state import builtin

__all__ = ["int_deserialize", "int_serialize", "register"]


@builtin(core.serialize)
def int_serialize(obj: int, **_kwargs: Any) -> bytes:
    """The bytes of ``obj``: two's complement, little endian."""
    return core.serialize(obj)


@builtin(core.deserialize)
def int_deserialize(obj: bytes, **_kwargs: Any) -> int:
    """The integer that ``obj`` holds."""
    return core.deserialize(obj)


def register() -> None:
    """Registers ``int``."""
    Serialization.register(int_serialize, int_deserialize, "int", check_annotations=False)
