"""pandas frames as Arrow IPC streams: the second wire's form.

A stream from a peer is checked before pandas sees it: only types whose size in memory follows from
their size on the wire, no compressed bodies, and offsets that stay within their buffers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Refused", "read", "write"]

_ROWS_PER_BYTE = 8
_EXTENSIONS = frozenset(("pandas.period", "pandas.interval"))
_ARROW_OBJECTS = frozenset(
    ("string", "bytes", "decimal", "date", "time", "datetime", "datetime64", "timedelta")
)
"""What pandas finds in an object column that Arrow returns unchanged."""


class Refused(Exception):
    """Arrow cannot hold the frame, or is not installed."""


def write(frame: pd.DataFrame) -> tuple[pa.Buffer, list[tuple[int, list[Any]]]]:
    """The Arrow stream of ``frame``, and the columns it leaves out: position and values.

    Columns are named by position, and the index has no names. It leaves out object columns whose
    values Arrow would turn into something else.

    Raises:
        Refused: the index, or a column of pandas' own types, has no Arrow form.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise Refused("pyarrow is not installed") from error

    frame = frame.copy(deep=False)
    frame.columns = [str(position) for position in range(frame.shape[1])]
    frame.index = frame.index.set_names([None] * frame.index.nlevels)
    kinds = enumerate(frame.dtypes)
    apart = [position for position, kind in kinds if _apart(frame, position, kind)]
    left_out = [(position, list(frame.iloc[:, position].array)) for position in apart]
    kept = frame.drop(columns=[str(position) for position in apart]) if apart else frame
    try:
        table = pa.Table.from_pandas(kept)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise Refused(str(error)) from error
    if not all(_held(field.type, top=True) for field in table.schema):
        raise Refused("a column has a type that is not sent as Arrow")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue(), left_out


def _apart(frame: pd.DataFrame, position: int, kind: Any) -> bool:
    from pandas.api.types import infer_dtype

    return kind == "object" and (
        infer_dtype(frame.iloc[:, position], skipna=True) not in _ARROW_OBJECTS
    )


def read(stream: Any) -> pd.DataFrame:
    """The frame in ``stream``, a buffer. It can be changed.

    Strings stay in the stream if pandas holds them as Arrow; everything else is copied out.

    Raises:
        ValueError: it is not a stream that :func:`write` makes.
    """
    # Importing pandas registers its extension types with pyarrow.
    import pandas as pd
    import pyarrow as pa

    buffer = pa.py_buffer(stream)
    try:
        _refuse_compression(pa, buffer)
        with pa.ipc.open_stream(buffer) as reader:
            if not all(_held(field.type, top=True) for field in reader.schema):
                raise ValueError("an Arrow stream has a column of an unsupported type")
            table = reader.read_all()
        table.validate(full=True)
        if table.num_columns and table.num_rows > _ROWS_PER_BYTE * buffer.size:
            raise ValueError("an Arrow stream claims more rows than it has bits")
        frame: pd.DataFrame = table.to_pandas()
        for position, kind in enumerate(frame.dtypes):
            if isinstance(kind, pd.CategoricalDtype):
                # Its codes are a view of the stream, which is read-only.
                frame.isetitem(position, frame.iloc[:, position].array.copy())
    except (pa.ArrowException, KeyError, TypeError, OSError) as error:
        raise ValueError(f"an Arrow stream cannot be read: {error}") from error
    return frame


def _held(kind: pa.DataType, *, top: bool) -> bool:
    """Whether arrays of ``kind`` take memory in proportion to their bytes on the wire."""
    from pyarrow import types

    if getattr(kind, "extension_name", None) in _EXTENSIONS:
        return _held(kind.storage_type, top=False)
    if types.is_dictionary(kind):
        return top and _held(kind.value_type, top=False)
    if types.is_struct(kind):
        fields = [kind.field(position) for position in range(kind.num_fields)]
        return bool(fields) and all(_held(field.type, top=False) for field in fields)
    if types.is_fixed_size_binary(kind):
        return bool(kind.byte_width > 0)
    return any(
        check(kind)
        for check in (
            types.is_boolean,
            types.is_integer,
            types.is_floating,
            types.is_decimal,
            types.is_string,
            types.is_large_string,
            types.is_binary,
            types.is_large_binary,
            types.is_date,
            types.is_time,
            types.is_timestamp,
            types.is_duration,
        )
    )


_BODY_COMPRESSION = 3
_DICTIONARY_DATA = 1
_MESSAGE_KIND = 1
_MESSAGE_HEADER = 2
_DICTIONARY_BATCH = 2
_RECORD_BATCH = 3


def _refuse_compression(pa: Any, buffer: pa.Buffer) -> None:
    """A compressed body states its own uncompressed size, and readers believe it."""
    messages = pa.MessageReader.open_stream(buffer)
    while True:
        try:
            message = messages.read_next_message()
        except StopIteration:
            return
        table = _Table.root(message.metadata.to_pybytes())
        kind = table.byte(_MESSAGE_KIND)
        if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
            continue
        batch = table.table(_MESSAGE_HEADER)
        if kind == _DICTIONARY_BATCH and batch is not None:
            batch = batch.table(_DICTIONARY_DATA)
        if batch is None or batch.table(_BODY_COMPRESSION) is not None:
            raise ValueError("an Arrow stream has compressed bodies, expected uncompressed ones")


class _Table:
    """A flatbuffer table, as far as we need it here."""

    def __init__(self, data: bytes, start: int) -> None:
        self.data = data
        self.start = start

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, _number(data, 0, 4))

    def _field(self, slot: int) -> int | None:
        vtable = self.start - _number(self.data, self.start, 4, signed=True)
        place = 4 + 2 * slot
        if place + 2 > _number(self.data, vtable, 2):
            return None
        offset = _number(self.data, vtable + place, 2)
        return self.start + offset if offset else None

    def byte(self, slot: int) -> int:
        field = self._field(slot)
        return 0 if field is None else _number(self.data, field, 1)

    def table(self, slot: int) -> _Table | None:
        field = self._field(slot)
        return None if field is None else _Table(self.data, field + _number(self.data, field, 4))


def _number(data: bytes, start: int, size: int, *, signed: bool = False) -> int:
    if not 0 <= start <= len(data) - size:
        raise ValueError("the metadata of an Arrow stream is truncated")
    return int.from_bytes(data[start : start + size], "little", signed=signed)
