"""The numbers of gmpy2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from convelo.compat.tno5.functions import require
from convelo.compat.tno5.packers.serialization import (
    DeserializerOpts,
    Serializer,
    SerializerOpts,
)
from convelo.wire.plugins import gmpy as core
from convelo.wire.state import builtin

if TYPE_CHECKING:
    from typeguard import typeguard_ignore as typeguard_ignore
else:
    from typing import no_type_check as typeguard_ignore

__all__ = ["GmpyTypes", "gmpy_deserialize", "gmpy_serialize", "register", "typeguard_ignore"]

require("gmpy2")

GmpyTypes = Union["gmpy2.xmpz", "gmpy2.mpz", "gmpy2.mpfr", "gmpy2.mpq", "gmpy2.mpc"]  # type: ignore[name-defined]  # noqa: F821


@typeguard_ignore
@builtin(core.serialize)
def gmpy_serialize(obj: GmpyTypes, opts: SerializerOpts) -> bytes:
    """The binary form of ``obj``."""
    return core.serialize(obj)


@typeguard_ignore
@builtin(core.deserialize)
def gmpy_deserialize(obj: bytes, opts: DeserializerOpts) -> GmpyTypes:
    """The number that ``obj`` holds.

    Raises:
        ValueError: it holds none.
    """
    return core.deserialize(obj)


def register() -> None:
    """Registers ``xmpz``, ``mpz``, ``mpfr``, ``mpq`` and ``mpc``."""
    names = ("xmpz", "mpz", "mpfr", "mpq", "mpc")
    Serializer.register(gmpy_serialize, gmpy_deserialize, *names, check_annotations=False)
