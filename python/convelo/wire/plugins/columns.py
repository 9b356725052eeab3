"""How much memory the columns of an Arrow table take in pandas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from convelo.wire.budget import current_budget

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["dictionaries", "leaves", "pay_zones", "text", "weight"]

_POINTER = 8
_OBJECT = 64
_DICT = 64 + 128
_ARRAY = 128
_UNKNOWN = 256


def weight(kind: pa.DataType) -> int:
    """Bytes that pandas needs for each value of a type, at most; without the content of texts."""
    from pyarrow import types

    if hasattr(kind, "storage_type"):
        return 2 * weight(kind.storage_type)
    if types.is_dictionary(kind):
        return 2 * _POINTER
    if types.is_struct(kind):
        children = (kind.field(position).type for position in range(kind.num_fields))
        size = max(1, kind.num_fields // 4)
        inside = sum(weight(child) + _OBJECT // 2 for child in children)
        return _POINTER + _DICT * int(size) + inside
    if types.is_map(kind):
        return _POINTER + _ARRAY + _OBJECT + weight(kind.key_type) + weight(kind.item_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _POINTER + _ARRAY + weight(kind.value_type)
    if types.is_decimal(kind):
        return _POINTER + 2 * _OBJECT
    if types.is_fixed_size_binary(kind):
        return _POINTER + _OBJECT + int(kind.byte_width)
    if (
        types.is_null(kind)
        or types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_timestamp(kind)
        or types.is_duration(kind)
    ):
        return _POINTER
    if types.is_date(kind) or types.is_time(kind) or _is_bytes(kind):
        return _POINTER + _OBJECT
    return _UNKNOWN


def _is_bytes(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def pay_zones(kind: pa.DataType) -> None:
    """Pays for the time zones of a type."""
    from pyarrow import types

    if types.is_timestamp(kind) and kind.tz is not None:
        current_budget().pay_zone(kind.tz)
    for position in range(kind.num_fields):
        pay_zones(kind.field(position).type)


def leaves(kind: pa.DataType) -> int:
    """How many columns of plain values a column of a type has in a Parquet file."""
    from pyarrow import types

    if hasattr(kind, "storage_type"):
        return leaves(kind.storage_type)
    if types.is_struct(kind):
        return sum(leaves(kind.field(position).type) for position in range(kind.num_fields))
    if types.is_map(kind):
        return leaves(kind.key_type) + leaves(kind.item_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return leaves(kind.value_type)
    return 1


def dictionaries(array: Any) -> Iterator[Any]:
    """The arrays in an array that have a dictionary."""
    from pyarrow import types

    kind = array.type
    if types.is_dictionary(kind):
        yield array
    elif types.is_struct(kind):
        for position in range(kind.num_fields):
            yield from dictionaries(array.field(position))
    elif types.is_map(kind):
        yield from dictionaries(array.keys)
        yield from dictionaries(array.items)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        yield from dictionaries(array.values)


def text(array: Any) -> int:
    """Bytes that the texts of an array with a dictionary take, in Arrow and in Python."""
    import pyarrow.compute as pc
    from pyarrow import types

    values = array.dictionary
    if not _is_bytes(values.type):
        return 0
    lengths = pc.binary_length(values)
    total = pc.sum(lengths.take(array.indices)).as_py() or 0
    wide = False
    if types.is_string(values.type) or types.is_large_string(values.type):
        wide = pc.sum(pc.utf8_length(values)).as_py() != pc.sum(lengths).as_py()
    return int(total) * (2 + (4 if wide else 1))
