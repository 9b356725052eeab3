"""gmpy2 numbers in gmpy2's own binary form.

gmpy2 trusts that form: a mantissa that is too short, or not normalised, ends the process, and a
precision field makes it reserve that much memory. So what arrives is checked first.
"""

from __future__ import annotations

from typing import Any, Union
from typing import no_type_check as typeguard_ignore

from convelo.wire.budget import current_budget

__all__ = ["GmpyTypes", "deserialize", "serialize", "typeguard_ignore"]

GmpyTypes = Union["gmpy2.xmpz", "gmpy2.mpz", "gmpy2.mpfr", "gmpy2.mpq", "gmpy2.mpc"]  # type: ignore[name-defined]  # noqa: F821

_MPZ, _XMPZ, _MPQ, _MPFR, _MPC = 1, 2, 3, 4, 5
_SPECIAL = 8
_HEAD = 12
_LIMB = 8
_UNINITIALISED = 3
_NEGATIVE = 0x02
_REGULAR = 0x41
_REGULAR_FLAGS = 0x22  # sign, and sign of the exponent
_SPECIAL_KINDS = frozenset((0x00, 0x08, 0x10))  # zero, nan, infinity
_SPECIAL_PRECISION = 1 << 16


def serialize(value: Any, _encoder: Any = None) -> bytes:
    """The binary form of an mpz, xmpz, mpq, mpfr or mpc."""
    import gmpy2

    data: bytes = gmpy2.to_binary(value)
    if data[0] < _MPFR:
        return data
    # gmpy2 leaves one byte of each part as it was in memory.
    clean = bytearray(data)
    start = 0
    while start < len(clean):
        clean[start + _UNINITIALISED] = 0
        start += _length(clean, start)
    return bytes(clean)


def deserialize(data: bytes, _decoder: Any = None) -> Any:
    """The number that ``data`` holds.

    The precision of a zero, nan or infinity is cut to 65536 bits.

    Raises:
        ValueError: ``data`` is not a form that gmpy2 writes.
    """
    import gmpy2

    if not isinstance(data, bytes) or len(data) < 2:
        raise ValueError("a gmpy2 number takes at least 2 bytes")
    tag = data[0]
    if tag in (_MPZ, _XMPZ):
        return gmpy2.from_binary(data)
    if tag == _MPQ:
        return _mpq(data)
    if tag == _MPFR:
        if _checked(data, 0) != len(data):
            raise ValueError("bytes are left after an mpfr")
        _pay(data)
        return gmpy2.from_binary(_cut(data))
    if tag == _MPC:
        middle = _checked(data, 0)
        if middle >= len(data) or middle + _checked(data, middle) != len(data):
            raise ValueError("an mpc has two parts")
        _pay(data)
        return gmpy2.from_binary(_cut(data))
    raise ValueError(f"no gmpy2 number starts with the byte {tag}")


def _pay(data: bytes) -> None:
    """Zero, nan and infinity have a precision, and memory for it, that no byte has paid for."""
    start = 0
    while start < len(data):
        precision = min(_precision(data, start), _SPECIAL_PRECISION)
        if _length(data, start) == _SPECIAL:
            current_budget().pay(precision // 8, "the precision of numbers")
        start += _length(data, start)


def _mpq(data: bytes) -> Any:
    import gmpy2

    size = 8 if data[1] & 0x04 else 4
    middle = 2 + size + int.from_bytes(data[2 : 2 + size], "little")
    if data[1] & ~0x07 or len(data) <= 2 + size or middle >= len(data):
        if len(data) == 2 and data[1] == 0:
            return gmpy2.mpq(0)
        raise ValueError("an mpq holds the length of its numerator, the numerator, the denominator")
    numerator = int.from_bytes(data[2 + size : middle], "little")
    denominator = int.from_bytes(data[middle:], "little")
    if denominator == 0:
        raise ValueError("the denominator of an mpq is zero")
    return gmpy2.mpq(-numerator if data[1] & _NEGATIVE else numerator, denominator)


def _precision(data: bytes | bytearray, start: int) -> int:
    return int.from_bytes(data[start + 4 : start + 8], "little")


def _length(data: bytes | bytearray, start: int) -> int:
    if data[start + 1] & ~_REGULAR_FLAGS != _REGULAR:
        return _SPECIAL
    return _HEAD + _LIMB * ((_precision(data, start) + 63) // 64)


def _checked(data: bytes, start: int) -> int:
    """The length of the part at ``start``, which MPFR can take as it is."""
    if len(data) < start + _SPECIAL:
        raise ValueError("an mpfr takes at least 8 bytes")
    flags = data[start + 1]
    length = _length(data, start)
    precision = _precision(data, start)
    if data[start] != data[0] or precision == 0 or len(data) < start + length:
        raise ValueError("an mpfr is cut off")
    if length == _SPECIAL:
        if flags & ~_NEGATIVE not in _SPECIAL_KINDS:
            raise ValueError(f"no mpfr has the flags {flags:#04x}")
        return length
    mantissa = data[start + _HEAD : start + length]
    unused = int.from_bytes(mantissa, "little") & ((1 << (-precision % 64)) - 1)
    if not mantissa[-1] & 0x80 or unused:
        raise ValueError("the mantissa of an mpfr is not normalised")
    return length


def _cut(data: bytes) -> bytes:
    limit = _SPECIAL_PRECISION.to_bytes(4, "little")
    start = 0
    while start < len(data):
        length = _length(data, start)
        if length == _SPECIAL and _precision(data, start) > _SPECIAL_PRECISION:
            data = data[: start + 4] + limit + data[start + 8 :]
        start += length
    return data
