"""pandas frames as Parquet files: the compatible wires' form.

A file from a peer is read here first: what its metadata and the heads of its pages claim, which is
what pyarrow reserves memory by; the types of its schema; and what it says about pandas' types.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Any

from convelo._convelo import parquet_claims
from convelo._untrusted import showable, shown
from convelo.wire.budget import Budget, current_budget
from convelo.wire.errors import TooLarge
from convelo.wire.plugins import columns, notes, schema
from convelo.wire.zones import check_types

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read", "write"]

_SCHEMA_KEY = b"ARROW:schema"

# Bytes of memory for a value: its levels; an index into a dictionary, its length and what it is
# added up in; a text in a table of texts.
_LEVELS = 4
_INDEX = 32
_ENTRY = 48
_COLUMN = 2 << 10


def read(data: bytes) -> pd.DataFrame:
    """The frame in a Parquet file.

    Raises:
        ImportError: pyarrow is not installed, or too old.
        ValueError: it is not a file that a peer may send.
        TooLarge: it stands for too much memory.
    """
    pa = schema.pyarrow()
    # Importing pandas registers its extension types with pyarrow.
    import pandas as pd  # noqa: F401
    import pyarrow.parquet as pq

    try:
        noted = _pay(pa, data)
        return notes.frame(pq.ParquetFile(pa.py_buffer(data)).read(), noted)
    except MemoryError:
        # pyarrow's own is one of its exceptions too.
        raise
    except (pa.ArrowException, OSError) as error:
        text = shown(f"a Parquet file cannot be read: {error}")
        raise ValueError(text) from showable(error)


def _pay(pa: Any, data: bytes) -> notes.Notes:
    """Pays for the frame in a file, and checks what it says about its types; returns what pandas is
    told of that."""
    import pyarrow.parquet as pq

    budget = current_budget()
    rows, metadata, chunks, entries = parquet_claims(data)
    budget.pay(metadata, "the metadata of a frame")
    _check_entries(pa, entries)
    fields = pq.ParquetFile(pa.py_buffer(data)).schema_arrow
    kinds = [field.type for field in fields]
    check_types(kinds)
    noted = notes.read(fields, rows, labels=True)
    first = 0
    for kind in kinds:
        end = first + columns.leaves(kind)
        parts = chunks[first:end]
        values = max([rows, *(part[2] for part in parts)])
        widths = sum(2 * (part[0] + _LEVELS) for part in parts)
        pages = sum(part[4] + part[5] for part in parts)
        each = widths + columns.weight(kind)
        budget.pay(_COLUMN + pages + values * each, "columns of a frame")
        columns.pay_zones(kind)
        for position in range(first, end):
            _pay_text(pa, data, position, chunks[position])
        first = end
    if first != len(chunks):
        raise ValueError("a Parquet file has other columns than its schema says")
    return noted


def _pay_text(
    pa: Any, data: bytes, position: int, claim: tuple[int, bool, int, int, int, int]
) -> None:
    """Pays for the texts of a column. How long they are, only reading it tells; read with its
    dictionary, it takes no more than it has on the wire and a number for each value."""
    _, is_bytes, values, referring, dictionary, pages = claim
    if not is_bytes:
        return
    budget = current_budget()
    most = 6 * (pages + referring * dictionary)
    if most <= budget.left // 8:
        budget.pay(most, "texts of a frame")
        return
    import pyarrow.parquet as pq

    passing = values * _INDEX + (values - min(referring, values)) * _ENTRY + 4 * pages
    budget.pay(passing, "texts of a frame")
    reader = pq.ParquetFile(pa.py_buffer(data), read_dictionary=[position]).reader
    column = reader.read_all(column_indices=[position], use_threads=False).column(0)
    size = sum(
        columns.text(array) for chunk in column.chunks for array in columns.dictionaries(chunk)
    )
    del column
    budget.give_back(passing)
    budget.pay(size, "texts of a frame")


def _check_entries(pa: Any, entries: list[tuple[bytes, bytes]]) -> None:
    """Checks what a file says about its types in Arrow."""
    for key, value in entries:
        if key != _SCHEMA_KEY:
            continue
        current_budget().pay(4 * len(value), "the metadata of a frame")
        try:
            message = pa.ipc.read_message(binascii.a2b_base64(value, strict_mode=True))
        except (binascii.Error, pa.ArrowException, OSError) as error:
            text = shown(f"a Parquet file has a malformed schema: {error}")
            raise ValueError(text) from showable(error)
        found = schema.Table.root(message.metadata.to_pybytes()).table(2)
        if found is None:
            raise ValueError("a Parquet file has a malformed schema")
        schema.check(found)


def write(frame: pd.DataFrame) -> bytes:
    """The Parquet file of ``frame``, in a form that its receiver may read: a frame of few values
    takes so few bytes that they do not pay for it.

    Raises:
        ImportError: pyarrow is not installed.
    """
    data = _written(frame)
    try:
        pa = schema.pyarrow()
        with Budget(len(data), slack=0):
            _pay(pa, data)
    except TooLarge:
        return _written(frame, compression=None, use_dictionary=False)
    except (ImportError, ValueError):
        pass
    return data


def _written(frame: pd.DataFrame, **options: Any) -> bytes:
    data: bytes = frame.to_parquet(engine="pyarrow", **options)
    return data
