"""The values of the second wire, which only our own peers speak.

A value is a msgpack document and a list of buffers next to it, which travel unchanged. Four
msgpack extension types represent what msgpack has no form for, so every plain dict stays a dict:

==== ================ ==========================================================================
code stands for       payload, itself a msgpack document
==== ================ ==========================================================================
1    a typed value    ``[type name, data]``
2    a numpy array    ``[dtype.str, shape, "C" or "F", buffer number or bytes]``
3    separate bytes   buffer number
4    a pandas object  ``["DataFrame" or "Series", buffer number, columns, names, left out]``
4    an Arrow table   ``["Table", buffer number, nil, nil, []]``
==== ================ ==========================================================================

Arrays keep dtype, shape and byte order. They arrive as read-only views of the received buffer,
unless ``writable`` asks for copies. numpy scalars become Python's own, enum members their values,
datetimes ISO strings, as on the compatible wire. There is no pickle on this wire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import ormsgpack

from convelo._untrusted import showable
from convelo.exceptions import BodyError
from convelo.wire.budget import Budget, current_budget, is_scalar
from convelo.wire.coding import PLAIN, Decoder, Encoder, Unsendable, is_arrow, is_foreign
from convelo.wire.compatible import (
    LARGE,
    CompatibleDecoder,
    CompatibleEncoder,
    flat,
)
from convelo.wire.errors import TooDeep, Undecodable, UnknownType
from convelo.wire.nesting import depth_of
from convelo.wire.plugins import arrow, serialize_int, serialize_tuple
from convelo.wire.plugins.frames import with_inserted
from convelo.wire.plugins.numpy import checked_shape, filled, is_array
from convelo.wire.plugins.pandas import checked_labels, deserialize_timestamp
from convelo.wire.state import DEFAULT_PACK_OPTION, State, default_state
from convelo.wire.zones import is_zone

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

__all__ = ["ARRAY", "BYTES", "FRAME", "TYPED", "Buffer", "decode", "encode"]

TYPED = 1
ARRAY = 2
BYTES = 3
FRAME = 4

Buffer = bytes | bytearray | memoryview
"""Bytes outside the document."""

MAX_TYPED = 127
"""How deep typed values may be nested."""

# The copies of typed values inside each other leave room in the receiver's budget for the values.
_COPIES = 20
_COPIES_SLACK = 1 << 20
_STACK = 4096
_LEVELS = 1022
_MAX_DTYPE_FIELDS = 1 << 12
_MAX_DTYPE_DEPTH = 16

# Bytes of memory for an object that an extension stands for, beside its content.
_TYPED_MEMORY = 128
_ARRAY_MEMORY = 384
_FIELD_MEMORY = 512
_COLUMN_MEMORY = 3 << 9
_CELL_MEMORY = 24

_BUFFERS = frozenset((bytes, bytearray, memoryview))
_INTEGER = b"\x92\xa3int"
_ONLY_BYTES = b"\xd4\x03\x00"
_STRUCTURED = "ndarray.structured"
_RANGE = "Index.range"
_LEVELED = "Index.multi"
_ISO = "Timestamp.iso"

_packb = ormsgpack.packb
_unpackb = ormsgpack.unpackb
_Ext = ormsgpack.Ext


def encode(
    value: Any,
    state: State | None = None,
    *,
    option: int | None = DEFAULT_PACK_OPTION,
    **keywords: Any,
) -> tuple[bytes, list[Buffer]]:
    """The document of ``value`` and the buffers that go with it.

    Buffers are views of the arrays and bytes in ``value``, which must not change before the message
    is acknowledged.

    Args:
        state: the registered serializers; without it those of the 4.x API.
        option: ormsgpack's options.
        keywords: what serializers of the 4.x API get, such as ``destination``.

    Raises:
        TypeError: something in ``value`` has no serializer, or is nested too deep.
    """
    kind = type(value)
    if kind in PLAIN:
        return _packb(value, None, option), []
    if kind is int:
        try:
            return _packb(value, None, option), []
        except TypeError:
            pass
    elif kind in _BUFFERS:
        size = value.nbytes if kind is memoryview else len(value)
        if size < LARGE:
            return _packb(value, None, option), []
        return _ONLY_BYTES, [flat(value)]
    if state is None:
        state = default_state()
    encoder = SecondEncoder(state, state.sending(keywords), option)
    packed = encoder.pack(value)
    if encoder.copied > _COPIES * len(packed) + _COPIES_SLACK:
        raise TypeError(
            f"{encoder.deepest} nested typed values (tuples, objects) hold too much: send "
            "the large part as an array, as bytes, or on its own"
        )
    return packed, encoder.buffers


class SecondEncoder(Encoder):
    """Packs a value for our own peers."""

    __slots__ = ("_integers", "_tuples", "buffers", "copied", "deepest", "depth")

    def __init__(self, state: State, options: Any, option: int | None) -> None:
        # Arrays are never sent as lists here, whatever the compatible wire does.
        super().__init__(state, options, (option or 0) | ormsgpack.OPT_SERIALIZE_NUMPY)
        tuples = getattr(self.serializers.get("tuple"), "core", None)
        self._tuples = tuples is serialize_tuple
        integers = getattr(self.serializers.get("int"), "core", None)
        self._integers = integers is serialize_int
        self.restart()

    strict = True

    def hook(self, value: Any) -> Any:
        kind = type(value)
        if kind is int and self._integers:
            packed = _INTEGER + _packb(serialize_int(value))
            self.copied += len(packed)
            return _Ext(TYPED, packed)
        if kind is tuple and self._tuples:
            try:
                return self.extension(TYPED, ["tuple", list(value)])
            except Exception as error:
                if self.error is None:
                    self.error = error
                raise
        return super().hook(value)

    def restart(self) -> None:
        super().restart()
        self.buffers: list[Buffer] = []
        self.copied = 0
        self.depth = 0
        self.deepest = 0

    def compatible(self) -> CompatibleEncoder:
        """An encoder of the compatible form, for values that have no other."""
        return CompatibleEncoder(self.state, self.options, self.option, strict=True)

    def wrap(self, value: Any, options: Any) -> Any:
        if is_arrow(value):
            return self.table(value)
        kind = type(value)
        name = kind.__name__
        core = getattr(self.serializers.get(name), "core", None)
        if core is not None:
            own = _OWN_FORMS.get(name)
            if own is not None and not is_foreign(value):
                form = own(self, value)
                if form is not None:
                    return form
        name, data, _ = self.serialize(value, options)
        if type(data) is bytes and len(data) >= LARGE:
            data = _Ext(BYTES, _packb(self.beside(data)))
        return self.typed(name, data)

    def typed(self, name: str, data: Any) -> Any:
        """The extension for ``data`` of the type ``name``."""
        return self.extension(TYPED, [name, data])

    def extension(self, code: int, payload: Any) -> Any:
        """The extension ``code`` with ``payload`` packed by this encoder."""
        self.depth += 1
        if self.depth > MAX_TYPED:
            raise RecursionError("Recursion limit reached")
        if self.depth > self.deepest:
            self.deepest = self.depth
        packed = self.nested(payload)
        self.depth -= 1
        self.copied += len(packed)
        return _Ext(code, packed)

    def beside(self, buffer: Buffer) -> int:
        """Adds ``buffer`` to those outside the document and returns its number."""
        self.buffers.append(buffer)
        return len(self.buffers) - 1

    def array(self, value: npt.NDArray[Any]) -> Any:
        function = self.serializers.get("ndarray")
        if function is not None and not hasattr(function, "core"):
            return None
        dtype = value.dtype
        if value.size and not dtype.itemsize:
            raise TypeError(
                f"an array of {value.size} elements of no bytes (dtype {dtype}) cannot be sent: "
                "send its shape"
            )
        if dtype.hasobject:
            if dtype.kind == "O":
                return self.typed("ndarray", [list(value.shape), list(value.flat)])
            return self.typed("ndarray", [list(value.shape), value.ravel().tolist()])
        if dtype.names is not None or dtype.kind == "V":
            described = [_describe(dtype), list(value.shape), self._content(value.ravel())]
            return self.typed(_STRUCTURED, described)
        order, content = "C", value
        if not value.flags.c_contiguous:
            if value.flags.f_contiguous:
                order, content = "F", value.T
            else:
                content = value.copy(order="C")
        return _Ext(
            ARRAY, _packb([dtype.str, list(value.shape), order, self._content(content)])
        )

    def _content(self, array: npt.NDArray[Any]) -> int | bytes:
        if array.nbytes < LARGE:
            return array.tobytes()
        flat: Any = array.reshape(-1).view("u1")
        return self.beside(memoryview(flat))

    def frame(self, value: pd.DataFrame) -> Any:
        """The extension for a frame, or ``None`` if Arrow cannot hold it."""
        columns = value.columns
        labels = None if _plain_names(columns) else _labels(columns)
        return self._frame("DataFrame", value, labels)

    def series(self, value: pd.Series[Any]) -> Any:
        """The extension for a series, or ``None`` if Arrow cannot hold it."""
        return self._frame("Series", value.to_frame(name="0"), [value.name])

    def _frame(self, kind: str, frame: pd.DataFrame, labels: Any) -> Any:
        if kind == "DataFrame" and labels is None:
            labels = list(frame.columns)
        try:
            stream, left_out = arrow.write(frame)
        except arrow.Refused:
            return None
        names = list(frame.index.names)
        number = self.beside(memoryview(stream).cast("B"))
        return self.extension(
            FRAME,
            [
                kind,
                number,
                labels,
                None if names == [None] * len(names) else names,
                [list(column) for column in left_out],
            ],
        )

    def table(self, value: Any) -> Any:
        """The extension for what gives its content as Arrow."""
        try:
            stream = arrow.write_table(value)
        except arrow.Refused as error:
            raise Unsendable(value, str(error)) from None
        number = self.beside(memoryview(stream).cast("B"))
        return self.extension(FRAME, ["Table", number, None, None, []])

    def timestamp(self, value: pd.Timestamp) -> Any:
        """The extension for a timestamp: a count since 1970 in UTC, its unit, and the time zone."""
        zone = value.tz
        if zone is None:
            name = None
        else:
            name = getattr(zone, "key", None) or getattr(zone, "zone", None)
            if not is_zone(name):
                if value.nanosecond:
                    return None
                return self.typed(_ISO, value.isoformat())
        return self.typed("Timestamp", [int(value.asm8.astype("i8")), value.unit, name])


_OWN_FORMS: dict[str, Callable[[SecondEncoder, Any], Any]] = {
    "ndarray": lambda encoder, value: encoder.array(value) if is_array(value) else None,
    "DataFrame": SecondEncoder.frame,
    "Series": SecondEncoder.series,
    "Timestamp": SecondEncoder.timestamp,
}


def _plain_names(columns: Any) -> bool:
    return (
        type(columns).__name__ == "Index"
        and columns.name is None
        and set(map(type, columns)) <= {str}
        and columns.is_unique
    )


def _labels(columns: Any) -> Any:
    """What rebuilds an index of columns."""
    kind = type(columns).__name__
    if kind == "RangeIndex":
        return {_RANGE: [columns.start, columns.stop, columns.step], "names": [columns.name]}
    if kind == "MultiIndex":
        return {_LEVELED: [list(label) for label in columns], "names": list(columns.names)}
    return {"values": columns.tolist(), "dtype": str(columns.dtype), "names": [columns.name]}


def decode(
    value: Buffer,
    buffers: Sequence[Buffer] | None,
    state: State | None = None,
    *,
    option: int | None = None,
    writable: bool = False,
    **keywords: Any,
) -> Any:
    """The value held by a document and the buffers that came with it.

    Arrays are views of ``buffers``: read-only where these are, which the transport's are.

    Args:
        value: the document.
        buffers: what travelled next to it.
        state: the registered deserializers; without it those of the 4.x API.
        option: ormsgpack's options.
        writable: copy arrays, so that they can be changed.
        keywords: what deserializers of the 4.x API get, such as ``origin``.

    Raises:
        BodyError: it cannot be decoded: malformed, of a type that is not registered here, nested
            too deep, standing for too much memory, or refused by its deserializer, whose exception
            is the cause.
    """
    try:
        if is_scalar(value):
            return _unpackb(value, option=option)
    except (IndexError, ValueError) as error:
        raise Undecodable(f"what arrived is not a msgpack document: {error}") from error
    if state is None:
        state = default_state()
    decoder = SecondDecoder(state, state.receiving(keywords), buffers or (), writable, option)
    size = len(value)
    for buffer in decoder.buffers:
        size += buffer.nbytes if type(buffer) is memoryview else len(buffer)
    try:
        with Budget(size) as budget:
            return decoder.document(value, budget)
    except (BodyError, MemoryError):
        raise
    except RecursionError as error:
        raise TooDeep("what arrived is nested too deep for the calls already running") from error
    except Exception as error:
        raise Undecodable(
            f"what arrived cannot be decoded: {type(error).__name__}: {error}"
        ) from showable(error)


class SecondDecoder(Decoder):
    """Reads one document, with the buffers next to it."""

    __slots__ = (
        "_allowance",
        "_budget",
        "_error",
        "_option",
        "_path",
        "_stack",
        "buffers",
        "writable",
    )

    def __init__(
        self,
        state: State,
        options: Any,
        buffers: Sequence[Buffer],
        writable: bool,
        option: int | None,
    ) -> None:
        super().__init__(state, options)
        self.buffers = buffers
        self.writable = writable
        self._option = option
        self._budget = current_budget()
        self._error: BaseException | None = None
        self._allowance = 0
        # Each document within another takes stack, depending on how deeply it is nested.
        self._path: list[tuple[bytes, int, bool]] = []
        self._stack = 0

    def document(self, value: Buffer, budget: Budget) -> Any:
        """The value of the whole document, which may take what ``budget`` has."""
        self._budget = budget
        budget.pay_document(value, self._option)
        self._allowance = _COPIES * len(value) + _COPIES_SLACK
        self._stack = min(len(value), _LEVELS)
        try:
            return _unpackb(value, ext_hook=self._extension, option=self._option)
        except ValueError as error:
            if self._error is not None:
                raise self._error from None
            raise Undecodable(f"what arrived is not a msgpack document: {error}") from error

    def restore(self, value: Any, room: int = 0) -> Any:
        """``value``: nothing is wrapped on this wire."""
        return value

    def wrapped(self, item: dict[str, Any]) -> Any:
        """The object that a wrapper of the compatible form stands for."""
        return CompatibleDecoder(self.state, self.options).restore(item)

    def _extension(self, code: int, payload: bytes) -> Any:
        try:
            self._enter(payload)
            self._budget.pay_document(payload, self._option)
            self._budget.pay(_TYPED_MEMORY, "typed values")
            inner = _unpackb(payload, ext_hook=self._extension, option=self._option)
            reader = _READERS.get(code)
            if reader is None:
                raise Undecodable(f"there is no extension with the code {code}")
            found = reader(self, inner)
            _, depth, _ = self._path.pop()
            self._stack -= depth
            return found
        except BaseException as error:
            # ormsgpack only says that the hook failed.
            if self._error is None:
                self._error = error
            raise

    def _enter(self, payload: bytes) -> None:
        self._allowance -= len(payload)
        if self._allowance < 0:
            raise TooDeep("what arrived nests large typed values")
        if len(self._path) >= MAX_TYPED:
            raise TooDeep(f"what arrived nests more than {MAX_TYPED} typed values")
        depth = min(len(payload), _LEVELS)
        self._path.append((payload, depth, False))
        self._stack += depth
        if self._stack > _STACK:
            self._path = [
                (part, known if exact else depth_of(part), True)
                for part, known, exact in self._path
            ]
            self._stack = _LEVELS + sum(known for _, known, _ in self._path)
            if self._stack > _STACK:
                raise TooDeep("what arrived is nested too deep")

    def _typed(self, pair: Any) -> Any:
        if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str:
            raise Undecodable("a malformed typed value: expected a name and data")
        name, data = pair
        own = _OWN_TYPES.get(name)
        if own is not None:
            return own(self, data)
        function = self.deserializers.get(name)
        if function is None:
            raise UnknownType(name, data)
        core = getattr(function, "core", None)
        if core is None:
            return self.state.call(function, data, self.options)
        build = getattr(core, "build", None)
        if build is not None and type(data) is list:
            return build(data)
        if type(data) is list and name == "ndarray":
            return _object_array(data)
        if type(data) is list and name == "Timestamp":
            return _timestamp(data)
        return core(data, self)

    def _buffer(self, number: Any) -> Buffer:
        if type(number) is not int or not 0 <= number < len(self.buffers):
            raise Undecodable(
                f"there is no buffer {number!r}: {len(self.buffers)} came with the value"
            )
        return self.buffers[number]

    def _bytes(self, number: Any) -> bytes:
        buffer = self._buffer(number)
        if isinstance(buffer, bytes):
            return buffer
        if isinstance(buffer, memoryview):
            owner = buffer.obj
            if isinstance(owner, bytes) and len(owner) == buffer.nbytes and buffer.c_contiguous:
                return owner
        self._budget.pay(memoryview(buffer).nbytes, "bytes")
        return bytes(buffer)

    def _content(self, content: Any) -> Buffer:
        return content if type(content) is bytes else self._buffer(content)

    def _array(self, described: Any) -> npt.NDArray[Any]:
        if type(described) is not list or len(described) != 4:
            raise Undecodable("a malformed array: expected a dtype, a shape, an order and a buffer")
        name, shape, order, content = described
        if type(name) is not str or order not in ("C", "F"):
            raise Undecodable("a malformed array: expected a dtype and the order C or F")
        return self._view(_plain_dtype(name), shape, order, self._content(content))

    def _structured(self, described: Any) -> npt.NDArray[Any]:
        if type(described) is not list or len(described) != 3:
            raise Undecodable("a malformed structured array: expected fields, a shape and a buffer")
        dtype = _described(described[0], _MAX_DTYPE_DEPTH)
        return self._view(dtype, described[1], "C", self._content(described[2]))

    def _view(
        self, dtype: np.dtype[Any], shape: Any, order: Any, buffer: Buffer
    ) -> npt.NDArray[Any]:
        import numpy as np

        sizes = checked_shape(shape)
        length = memoryview(buffer).nbytes
        # Elements of no bytes would get some from numpy, which nobody wrote.
        without = not length and 0 not in sizes
        if dtype.hasobject or without or prod(sizes) * dtype.itemsize != length:
            raise Undecodable(
                f"{length} bytes do not make an array of shape {sizes} and dtype {dtype}"
            )
        self._budget.pay(_ARRAY_MEMORY, "arrays")
        # Always over bytes that arrived: what numpy allocates holds what was there before.
        content = buffer
        if self.writable or not length:
            self._budget.pay(length, "writable arrays")
            content = bytearray(buffer)
        array: npt.NDArray[Any] = np.ndarray(sizes, dtype, content, order=order)
        if array.nbytes != length:
            raise Undecodable(f"{length} bytes became an array of {array.nbytes}")
        if content is buffer:
            array.flags.writeable = False
        return array

    def _frame(self, described: Any) -> Any:
        if type(described) is not list or len(described) != 5:
            raise Undecodable(
                "a malformed frame: expected a kind, a buffer, columns, names and omitted columns"
            )
        kind, number, labels, names, left_out = described
        if kind == "Table":
            return arrow.read_table(self._buffer(number))
        frame = arrow.read(self._buffer(number))
        # pandas would copy them with each part of the frame.
        attributes, frame.attrs = frame.attrs, {}
        frame = _with_columns(frame, left_out)
        if names is not None:
            checked_labels(names)
            frame.index = frame.index.set_names(names)
        if kind == "Series" and type(labels) is list and frame.shape[1] == len(labels) == 1:
            series = frame.iloc[:, 0]
            (series.name,) = checked_labels(labels)
            series.attrs = attributes
            return series
        if kind != "DataFrame":
            raise Undecodable("a malformed frame: expected a DataFrame, or a Series of one column")
        index = _index(labels)
        if len(index) != frame.shape[1]:
            raise Undecodable(f"{len(index)} names for {frame.shape[1]} columns")
        frame.columns = index
        frame.attrs = attributes
        return frame


_READERS: dict[int, Callable[[SecondDecoder, Any], Any]] = {
    TYPED: SecondDecoder._typed,
    ARRAY: SecondDecoder._array,
    BYTES: SecondDecoder._bytes,
    FRAME: SecondDecoder._frame,
}

_OWN_TYPES: dict[str, Callable[[SecondDecoder, Any], Any]] = {
    _STRUCTURED: SecondDecoder._structured,
    _ISO: lambda decoder, data: deserialize_timestamp(data),
}


def _with_columns(frame: pd.DataFrame, left_out: Any) -> pd.DataFrame:
    """``frame`` with the columns that Arrow left out put back in place."""
    import pandas as pd

    if type(left_out) is not list:
        raise Undecodable("malformed omitted columns: expected a list")
    current_budget().pay(
        len(left_out) * (_COLUMN_MEMORY + _CELL_MEMORY * len(frame)), "columns of a frame"
    )
    inserted: dict[int, Any] = {}
    last = -1
    for column in left_out:
        if type(column) is not list or len(column) != 2 or type(column[1]) is not list:
            raise Undecodable("a malformed omitted column: expected a position and values")
        position, values = column
        if type(position) is not int or not last < position <= frame.shape[1] + len(inserted):
            raise Undecodable("an omitted column is out of place")
        last = position
        if len(values) != len(frame):
            raise Undecodable(f"{len(values)} values in a column of {len(frame)}")
        items = filled(values, (len(values),))
        inserted[position] = pd.Series(items, index=frame.index, dtype=object)
    return with_inserted(frame, inserted)


def _index(labels: Any) -> pd.Index[Any]:
    import pandas as pd

    if type(labels) is list:
        return pd.Index(checked_labels(labels)) if labels else pd.Index([], dtype=object)
    if type(labels) is not dict or type(labels.get("names")) is not list:
        raise Undecodable(
            "malformed columns: expected a list of names, or a dict that describes them"
        )
    names = checked_labels(labels["names"])
    if _RANGE in labels:
        start, stop, step = labels[_RANGE]
        return pd.RangeIndex(start, stop, step, name=names[0])
    if _LEVELED in labels:
        if not all(type(label) is list for label in labels[_LEVELED]):
            raise Undecodable("malformed columns: expected a list for each label")
        tuples = [tuple(label) for label in labels[_LEVELED]]
        return pd.MultiIndex.from_tuples(checked_labels(tuples), names=names)
    dtype = labels.get("dtype")
    if type(dtype) is not str:
        raise Undecodable("malformed columns: expected a dtype")
    numeric = dtype.rstrip("0123456789") in ("int", "uint", "float", "bool", "object")
    values = checked_labels(labels["values"])
    return pd.Index(values, dtype=dtype if numeric else None, name=names[0])


def _object_array(data: list[Any]) -> npt.NDArray[np.object_]:
    if len(data) != 2 or type(data[1]) is not list:
        raise Undecodable("a malformed array of objects: expected a shape and values")
    current_budget().pay(_ARRAY_MEMORY + 8 * len(data[1]), "arrays of objects")
    return filled(data[1], checked_shape(data[0]))


def _timestamp(data: list[Any]) -> pd.Timestamp:
    import pandas as pd

    if len(data) != 3 or type(data[0]) is not int or data[1] not in ("s", "ms", "us", "ns"):
        raise Undecodable("a malformed timestamp: expected a count, a unit and a time zone")
    count, unit, zone = data
    import numpy as np

    stamp = pd.Timestamp(np.datetime64(count, unit))
    if zone is None:
        return stamp
    if not is_zone(zone):
        raise Undecodable("a time zone is not known here: expected a name of the IANA's database")
    current_budget().pay_zone(zone)
    return stamp.tz_localize("UTC").tz_convert(zone)


def _describe(dtype: np.dtype[Any]) -> Any:
    """What rebuilds a structured dtype: text for a plain one, else its parts."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_describe(base), list(shape)]
    if dtype.names is None:
        return dtype.str
    assert dtype.fields is not None
    fields = [dtype.fields[name] for name in dtype.names]
    return {
        "names": list(dtype.names),
        "formats": [_describe(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
        "aligned": dtype.isalignedstruct,
    }


def _described(form: Any, room: int) -> np.dtype[Any]:
    import numpy as np

    if room == 0:
        raise Undecodable("a dtype is nested too deep")
    current_budget().pay(_FIELD_MEMORY, "fields of a dtype")
    if type(form) is str:
        return _plain_dtype(form)
    if type(form) is list and len(form) == 2:
        base = _described(form[0], room - 1)
        shape = checked_shape(form[1])
        if prod(shape) * base.itemsize >= 1 << 31:
            raise Undecodable("a dtype is too large")
        return np.dtype((base, shape))
    if type(form) is not dict:
        raise Undecodable("a malformed dtype: expected text, a pair or a dict")
    names, formats, offsets = form["names"], form["formats"], form["offsets"]
    if not (type(names) is type(formats) is type(offsets) is list):
        raise Undecodable("a malformed structured dtype: expected names, formats and offsets")
    if not len(names) == len(formats) == len(offsets) <= _MAX_DTYPE_FIELDS:
        raise Undecodable(
            "a malformed structured dtype: expected a format and an offset for each name"
        )
    return np.dtype(
        {
            "names": names,
            "formats": [_described(inner, room - 1) for inner in formats],
            "offsets": offsets,
            "itemsize": form["itemsize"],
        },
        align=form["aligned"] is True,
    )


def _plain_dtype(name: str) -> np.dtype[Any]:
    """The dtype that ``dtype.str`` wrote as ``name``; never one that holds Python objects.

    numpy reads more from such a text than that, lists of fields and Python expressions among them.
    """
    import numpy as np

    kind, rest = name[1:2], name[2:]
    size, _, unit = rest.partition("[")
    if (
        name[:1] not in ("<", ">", "|")
        or kind not in ("b", "i", "u", "f", "c", "m", "M", "S", "U", "V")
        or not (size.isascii() and size.isdigit() and len(size) < 10)
        or (unit and not (kind in ("m", "M") and unit.endswith("]") and unit[:-1].isalnum()))
    ):
        raise Undecodable(f"an array of dtype {name[:40]!r} is not accepted")
    dtype: np.dtype[Any] = np.dtype(name)
    if dtype.hasobject:
        raise Undecodable("an array of Python objects cannot travel as a buffer")
    if dtype.itemsize != int(size) * (4 if kind == "U" else 1):
        # Sizes beyond 31 bits overflow before numpy 2.
        raise Undecodable(f"an array of dtype {name[:40]!r} has elements that are too large")
    return dtype
