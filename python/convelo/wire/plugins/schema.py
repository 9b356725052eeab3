"""The schema of Arrow tables from a peer: read here before pyarrow sees it.

pyarrow makes objects of extension types while it reads a schema, and before 14.0.1 it unpickled one
of them for that: code of the sender's choice ran. Here a schema is read as the bytes that it is, a
flatbuffer; its only extension types are the two of pandas.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

from convelo.exceptions import OptionalImportError
from convelo.wire.budget import current_budget

__all__ = ["EXTENSIONS", "OLDEST_PYARROW", "Table", "check", "pyarrow"]

EXTENSIONS = frozenset(("pandas.period", "pandas.interval"))
"""The extension types that are accepted."""

OLDEST_PYARROW = (14, 0, 1)
"""The first release that does not unpickle what it reads."""

_EXTENSION_NAME = b"ARROW:extension:name"
_EXTENSION_CONTENT = b"ARROW:extension:metadata"
_FREQUENCY = re.compile(r"[A-Za-z0-9-]{1,16}")
_SIDES = frozenset(("left", "right", "both", "neither"))
# What the ends of an interval may be.
_ENDS = re.compile(r"u?int(8|16|32|64)|float|double|(timestamp|duration)\[(s|ms|us|ns)\]")
_LONGEST_EXTENSION = 200
_LEVELS = 64
_FIELD_MEMORY = 3 << 10

# The places of fields in the tables of Arrow's format.
_SCHEMA_FIELDS, _SCHEMA_METADATA = 1, 2
_FIELD_NAME, _FIELD_CHILDREN, _FIELD_METADATA = 0, 5, 6
_KEY, _VALUE = 0, 1


@functools.cache
def pyarrow() -> Any:
    """The module pyarrow, if it may read what a peer wrote.

    Raises:
        ImportError: it is not installed.
        OptionalImportError: it is too old.
    """
    import pyarrow as pa

    found = tuple(int(part) for part in re.findall(r"\d+", pa.__version__)[:3])
    if found < OLDEST_PYARROW:
        raise OptionalImportError(
            f"pyarrow {pa.__version__} is installed, which lets the sender of a table run code "
            "here (CVE-2023-47248); pip install 'pyarrow>=14.0.1'"
        )
    return pa


def check(schema: Table) -> int:
    """Checks a schema and pays for what pyarrow makes of it; returns the number of its fields.

    Raises:
        ValueError: it is malformed, or has extension types that are not accepted.
        TooLarge: it stands for too much memory.
    """
    _check_metadata(schema, _SCHEMA_METADATA)
    return sum(_check_field(field, _LEVELS) for field in schema.tables(_SCHEMA_FIELDS))


def _check_field(field: Table, room: int) -> int:
    if room == 0:
        raise ValueError("the columns of an Arrow table are nested too deep")
    # Several fields may share the bytes of one.
    current_budget().pay(_FIELD_MEMORY + 2 * len(field.content(_FIELD_NAME)), "columns of a frame")
    _check_metadata(field, _FIELD_METADATA)
    return 1 + sum(_check_field(child, room - 1) for child in field.tables(_FIELD_CHILDREN))


def _check_metadata(table: Table, slot: int) -> None:
    contents = []
    for pair in table.tables(slot):
        key, value = pair.content(_KEY), pair.content(_VALUE)
        current_budget().pay(256 + 4 * (len(key) + len(value)), "the metadata of a frame")
        if key == _EXTENSION_NAME and value.decode(errors="replace") not in EXTENSIONS:
            raise ValueError(
                f"an Arrow table has a column of an unsupported type: expected no extension types "
                f"but {' and '.join(sorted(EXTENSIONS))}, found {value[:80]!r}"
            )
        if key == _EXTENSION_CONTENT:
            contents.append(value)
    # There may be several; one that is not checked could be the one that is read.
    for value in contents:
        if not _describes_extension(value):
            raise ValueError(
                "an Arrow table has a column of pandas' periods or intervals that pandas does not "
                f"make: {value[:80]!r}"
            )


def _describes_extension(content: bytes) -> bool:
    if len(content) > _LONGEST_EXTENSION:
        return False
    described = json.loads(content)
    if type(described) is not dict or not all(type(item) is str for item in described.values()):
        return False
    if described.keys() == {"freq"}:
        return _FREQUENCY.fullmatch(described["freq"]) is not None
    return (
        described.keys() == {"subtype", "closed"}
        and _ENDS.fullmatch(described["subtype"]) is not None
        and described["closed"] in _SIDES
    )


class Table:
    """A flatbuffer table, as far as we need it here."""

    __slots__ = ("_data", "_start")

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._start = start

    @classmethod
    def root(cls, data: bytes) -> Table:
        """The table that a buffer begins with."""
        return cls(data, _number(data, 0, 4))

    def _field(self, slot: int) -> int | None:
        vtable = self._start - _number(self._data, self._start, 4, signed=True)
        place = 4 + 2 * slot
        if place + 2 > _number(self._data, vtable, 2):
            return None
        offset = _number(self._data, vtable + place, 2)
        return self._start + offset if offset else None

    def _target(self, slot: int) -> int | None:
        field = self._field(slot)
        return None if field is None else field + _number(self._data, field, 4)

    def byte(self, slot: int) -> int:
        """The byte in a field, 0 if it is left out."""
        field = self._field(slot)
        return 0 if field is None else _number(self._data, field, 1)

    def table(self, slot: int) -> Table | None:
        """The table in a field."""
        target = self._target(slot)
        return None if target is None else Table(self._data, target)

    def tables(self, slot: int) -> Iterator[Table]:
        """The tables in a field that holds several."""
        target = self._target(slot)
        if target is None:
            return
        for position in range(_number(self._data, target, 4)):
            place = target + 4 + 4 * position
            yield Table(self._data, place + _number(self._data, place, 4))

    def content(self, slot: int) -> bytes:
        """The bytes of the text in a field."""
        target = self._target(slot)
        if target is None:
            return b""
        length = _number(self._data, target, 4)
        content = self._data[target + 4 : target + 4 + length]
        if len(content) != length:
            raise ValueError("the metadata of an Arrow table is truncated")
        return content


def _number(data: bytes, start: int, size: int, *, signed: bool = False) -> int:
    if not 0 <= start <= len(data) - size:
        raise ValueError("the metadata of an Arrow table is truncated")
    return int.from_bytes(data[start : start + size], "little", signed=signed)
