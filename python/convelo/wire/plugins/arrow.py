"""pandas frames as Arrow IPC streams: the second wire's form.

A stream from a peer is checked before pandas sees it: only types whose size in memory follows from
the number of their values, no compressed bodies and no dictionaries in parts, offsets that stay
within their buffers, time zones that there are, and of pandas' notes those that are accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convelo._untrusted import showable, shown
from convelo.wire.budget import current_budget
from convelo.wire.plugins import columns, notes, schema
from convelo.wire.plugins.frames import with_changed
from convelo.wire.zones import check_types

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Refused", "read", "read_table", "write", "write_table"]

_ROWS_PER_BYTE = 8
# Bytes of memory for a column, and for its part in a batch.
_COLUMN = 2 << 10
_PART = 512
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
        pa = schema.pyarrow()
    except ImportError as error:
        raise Refused("pyarrow is not installed, or too old") from error

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
    return _stream(pa, table), left_out


def write_table(value: Any) -> pa.Buffer:
    """The Arrow stream of what ``value`` gives by the Arrow PyCapsule interface.

    Raises:
        Refused: it is no table, or has a column of a type that is not sent.
    """
    try:
        pa = schema.pyarrow()
    except ImportError as error:
        raise Refused(f"pyarrow is not installed, or too old: {error}") from error
    try:
        table = value if isinstance(value, pa.Table) else pa.table(value)
        table = _without_views(pa, table).replace_schema_metadata(None)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise Refused(
            f"it does not become an Arrow table ({str(error).strip()}); send a table, or a frame of "
            "this one column"
        ) from error
    for field in table.schema:
        if not _held(field.type, top=True):
            raise Refused(
                f"its column {field.name!r} has the Arrow type {field.type}, which is not sent; "
                "send it as lists or numpy arrays"
            )
    return _stream(pa, table)


def _without_views(pa: Any, table: pa.Table) -> pa.Table:
    """The same with texts and bytes as all versions of Arrow write them."""
    from pyarrow import types

    views = [
        (getattr(types, "is_string_view", None), pa.large_string()),
        (getattr(types, "is_binary_view", None), pa.large_binary()),
    ]

    def plain(kind: pa.DataType) -> pa.DataType:
        if types.is_dictionary(kind):
            return pa.dictionary(kind.index_type, plain(kind.value_type), kind.ordered)
        return next((other for is_view, other in views if is_view and is_view(kind)), kind)

    fields = [
        pa.field(field.name, plain(field.type), field.nullable) for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _stream(pa: Any, table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


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

    table = _checked(stream)
    pa = schema.pyarrow()
    try:
        # The labels of its columns follow in the message.
        noted = notes.read(table.schema, table.num_rows, labels=False)
        frame = notes.frame(table, noted)
        # The codes of a category are a view of the stream, which is read-only.
        copies = {
            position: frame.iloc[:, position].array.copy()
            for position, kind in enumerate(frame.dtypes)
            if isinstance(kind, pd.CategoricalDtype)
        }
        return with_changed(frame, copies)
    except MemoryError:
        # pyarrow's own is one of its exceptions too.
        raise
    except (pa.ArrowException, KeyError, TypeError, OSError) as error:
        text = shown(f"an Arrow stream cannot be read: {error}")
        raise ValueError(text) from showable(error)


def read_table(stream: Any) -> pa.Table:
    """The table in ``stream``, a buffer, whose bytes it shares, without the notes of its sender.

    Raises:
        ValueError: it is not a stream that :func:`write` or :func:`write_table` makes.
    """
    return _checked(stream).replace_schema_metadata(None)


def _checked(stream: Any) -> pa.Table:
    pa = schema.pyarrow()
    buffer = pa.py_buffer(stream)
    try:
        _check_messages(pa, buffer)
        with pa.ipc.open_stream(buffer) as reader:
            if not all(_held(field.type, top=True) for field in reader.schema):
                raise ValueError("an Arrow stream has a column of an unsupported type")
            check_types(field.type for field in reader.schema)
            table = reader.read_all()
        table.validate(full=True)
        if table.num_columns and table.num_rows > _ROWS_PER_BYTE * buffer.size:
            raise ValueError("an Arrow stream claims more rows than it has bits")
        for column in table.columns:
            _pay(column)
    except MemoryError:
        raise
    except (pa.ArrowException, KeyError, TypeError, OSError) as error:
        text = shown(f"an Arrow stream cannot be read: {error}")
        raise ValueError(text) from showable(error)
    return table


def _pay(column: Any) -> None:
    """Pays for what pandas makes of a column. Columns may share the bytes of one."""
    columns.pay_zones(column.type)
    amount = _COLUMN + len(column) * columns.weight(column.type)
    for chunk in column.chunks:
        for array in columns.dictionaries(chunk):
            values = array.dictionary
            amount += 3 * len(values) * columns.weight(values.type) + 5 * values.nbytes
        # Of a text, a byte may become a character of 4.
        amount += 5 * chunk.nbytes
    current_budget().pay(amount, "columns of a frame")


def _held(kind: pa.DataType, *, top: bool) -> bool:
    """Whether arrays of ``kind`` take memory in proportion to their bytes on the wire."""
    from pyarrow import types

    if getattr(kind, "extension_name", None) in schema.EXTENSIONS:
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


# The places of fields in the tables of Arrow's format, and the kinds of messages.
_BODY_COMPRESSION = 3
_DICTIONARY_DATA = 1
_DICTIONARY_IS_DELTA = 2
_MESSAGE_KIND = 1
_MESSAGE_HEADER = 2
_SCHEMA = 1
_DICTIONARY_BATCH = 2
_RECORD_BATCH = 3


def _check_messages(pa: Any, buffer: pa.Buffer) -> None:
    """Checks the schema, and the bodies. Compressed ones would state their own uncompressed size,
    and readers believe it; for each part of a dictionary, readers copy the parts before it."""
    messages = pa.MessageReader.open_stream(buffer)
    fields = 0
    while True:
        try:
            message = messages.read_next_message()
        except StopIteration:
            return
        table = schema.Table.root(message.metadata.to_pybytes())
        kind = table.byte(_MESSAGE_KIND)
        header = table.table(_MESSAGE_HEADER)
        if kind == _SCHEMA and header is not None:
            fields = schema.check(header)
        if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
            continue
        current_budget().pay((1 + fields) * _PART, "batches of a frame")
        if kind == _DICTIONARY_BATCH and header is not None:
            if header.byte(_DICTIONARY_IS_DELTA):
                raise ValueError("an Arrow stream has a dictionary in parts, expected whole ones")
            header = header.table(_DICTIONARY_DATA)
        if header is None or header.table(_BODY_COMPRESSION) is not None:
            raise ValueError("an Arrow stream has compressed bodies, expected uncompressed ones")
