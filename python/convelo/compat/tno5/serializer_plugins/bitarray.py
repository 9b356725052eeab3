"""bitarray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convelo.compat.tno5.functions import require
from convelo.compat.tno5.packers.serialization import (
    DeserializerOpts,
    Serializer,
    SerializerOpts,
)
from convelo.wire.plugins import bitarray as core
from convelo.wire.state import builtin

if TYPE_CHECKING:
    from bitarray import bitarray

__all__ = ["bitarray_deserialize", "bitarray_serialize", "register"]

require("bitarray")


@builtin(core.serialize)
def bitarray_serialize(obj: bitarray, opts: SerializerOpts) -> bytes:
    """A head byte and the bits of ``obj``."""
    return core.serialize(obj)


@builtin(core.deserialize)
def bitarray_deserialize(obj: bytes, opts: DeserializerOpts) -> bitarray:
    """The bitarray that ``obj`` holds.

    Raises:
        ValueError: it holds none.
    """
    return core.deserialize(obj)


def register() -> None:
    """Registers ``bitarray``."""
    Serializer.register(
        bitarray_serialize, bitarray_deserialize, "bitarray", check_annotations=False
    )
