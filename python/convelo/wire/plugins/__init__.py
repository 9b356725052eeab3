"""How values of known types are written into a message and read from it.

:data:`PLUGINS` is the table of them: for each type a function ``serialize(value, encoder)`` and a
function ``deserialize(data, decoder)`` for the compatible wire's form. Those longer than a few
lines have their own modules. No library is imported before a value of it is met.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from convelo.wire.budget import current_budget
from convelo.wire.plugins import gmpy, numpy, pandas

if TYPE_CHECKING:
    from bitarray import bitarray
    from torch import Tensor

__all__ = [
    "PLUGINS",
    "TENSOR_KEY",
    "Codec",
    "Plugin",
    "serialize_int",
    "serialize_tuple",
]

TENSOR_KEY = "my_tensor"


def serialize_int(value: int, _encoder: Any = None) -> bytes:
    """An integer of any size: two's complement, little endian, with one sign bit to spare."""
    return value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)


def deserialize_int(data: bytes, _decoder: Any = None) -> int:
    """The integer that ``data`` holds."""
    return int.from_bytes(data, "little", signed=True)


def serialize_tuple(value: tuple[Any, ...], _encoder: Any = None) -> list[Any]:
    """The items of a tuple."""
    return list(value)


def deserialize_tuple(data: list[Any], decoder: Any) -> tuple[Any, ...]:
    """A tuple of the restored items."""
    return tuple(decoder.restore(data))


# Decoders that have restored the items build the value directly.
deserialize_tuple.build = tuple  # type: ignore[attr-defined]


def serialize_bitarray(value: bitarray, _encoder: Any = None) -> bytes:
    """A head byte (0x10 if big endian, with the number of pad bits) and the bits."""
    from bitarray.util import serialize

    return serialize(value)


def deserialize_bitarray(data: bytes, _decoder: Any = None) -> bitarray:
    """The bitarray that ``data`` holds, with its endianness.

    Raises:
        ValueError: the head byte is wrong.
    """
    from bitarray.util import deserialize

    return deserialize(data)


def serialize_tensor(value: Tensor, _encoder: Any = None) -> tuple[int, ...] | bytes:
    """The safetensors file of a tensor, or its sizes where one of them is 0."""
    if value.numel() == 0:
        return tuple(value.size())
    from safetensors.torch import save

    data: bytes = save({TENSOR_KEY: value})
    return data


def deserialize_tensor(data: Any, decoder: Any) -> Tensor:
    """The tensor, in the memory of the CPU.

    Args:
        data: bytes, or the sizes: a tuple, or the wrapper of one.
        decoder: restores the wrapper.
    """
    if isinstance(data, bytes):
        from safetensors.torch import load

        # What is read, the tensor, and a description of every tensor in the file.
        current_budget().pay(24 * len(data), "tensors")
        return load(data)[TENSOR_KEY]
    import torch

    if isinstance(data, dict):
        data = decoder.restore(data)
    return torch.tensor([]).reshape(data)


class Codec(NamedTuple):
    """The two functions for some types."""

    types: tuple[str, ...]
    """The ``__name__`` of each class that they serve."""
    serialize: Callable[..., Any]
    deserialize: Callable[..., Any]
    suffix: str = ""
    """What distinguishes the functions from others of their plugin."""


class Plugin(NamedTuple):
    """What is known about the types of one library."""

    name: str
    libraries: tuple[str, ...]
    """What must be installed for it."""
    codecs: tuple[Codec, ...]


PLUGINS: tuple[Plugin, ...] = (
    Plugin(
        "bitarray",
        ("bitarray",),
        (Codec(("bitarray",), serialize_bitarray, deserialize_bitarray),),
    ),
    Plugin(
        "gmpy",
        ("gmpy2",),
        (Codec(("xmpz", "mpz", "mpfr", "mpq", "mpc"), gmpy.serialize, gmpy.deserialize),),
    ),
    Plugin("int", (), (Codec(("int",), serialize_int, deserialize_int),)),
    Plugin("numpy", ("numpy",), (Codec(("ndarray",), numpy.serialize, numpy.deserialize),)),
    Plugin(
        "pandas",
        ("pandas",),
        (
            Codec(("DataFrame",), pandas.serialize_frame, pandas.deserialize_frame, "_dataframe"),
            Codec(("Series",), pandas.serialize_series, pandas.deserialize_series, "_series"),
            Codec(
                ("Timestamp",),
                pandas.serialize_timestamp,
                pandas.deserialize_timestamp,
                "_timestamp",
            ),
        ),
    ),
    Plugin(
        "torch",
        ("torch", "safetensors"),
        (Codec(("Tensor",), serialize_tensor, deserialize_tensor, "_tensor"),),
    ),
    Plugin("tuple", (), (Codec(("tuple",), serialize_tuple, deserialize_tuple),)),
)
