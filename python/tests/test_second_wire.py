"""What goes in on the second wire comes out as it was, and garbage comes out as an error."""

from __future__ import annotations

import contextlib
import datetime
import decimal
from collections.abc import Iterator
from typing import Any

import bitarray
import gmpy2
import numpy as np
import ormsgpack
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import convelo.compat.tno.serialization as four
import convelo.compat.tno5.packers.serialization as five
from convelo._convelo import count_wrappers
from convelo.exceptions import BodyError
from convelo.wire import second
from convelo.wire.errors import TooDeep, Undecodable, UnknownType
from convelo.wire.nesting import depth_of
from convelo.wire.plugins import arrow

Serialization = four.Serialization


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    Serialization.clear_serialization_logic()
    five.Serializer.clear_serialization_logic()
    Serialization.register_class(Parcel, check_annotations=False)
    yield
    Serialization.clear_serialization_logic()
    five.Serializer.clear_serialization_logic()


class Parcel:
    """Wraps a part of its data itself, as serializers for the genuine package do."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parcel) and other.content == self.content

    __hash__ = None  # type: ignore[assignment]

    def serialize(self, **kwargs: Any) -> dict[str, Any]:
        return {"content": self.content, "seal": Serialization.serialize((1, 2), **kwargs)}

    @staticmethod
    def deserialize(obj: dict[str, Any], **kwargs: Any) -> Parcel:
        assert Serialization.deserialize(obj["seal"], **kwargs) == (1, 2)
        return Parcel(obj["content"])


def through(value: Any, **options: Any) -> Any:
    """What arrives of ``value``: buffers come as the transport hands them over."""
    packed, buffers = second.encode(value)
    arrived = [memoryview(bytes(buffer)) for buffer in buffers]
    return second.decode(memoryview(packed), arrived, **options)


def same_array(one: Any, other: Any) -> bool:
    assert type(one) is type(other) is np.ndarray
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    return one.tobytes() == other.tobytes() if not one.dtype.hasobject else list(one.flat) == list(
        other.flat
    )


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.integers().map(gmpy2.mpz)
    | st.tuples(st.integers(), st.integers(1)).map(lambda pair: gmpy2.mpq(*pair))
    | st.lists(st.booleans()).map(bitarray.bitarray),
    lambda inner: st.lists(inner)
    | st.lists(inner).map(tuple)
    | st.dictionaries(st.sampled_from(["type", "data"]) | st.text(), inner)
    | st.builds(Parcel, inner),
    max_leaves=20,
)


@given(plain)
def test_every_value_comes_back(value: Any) -> None:
    assert through(value) == value


def wrappers_in(document: bytes) -> int:
    """What the compiled function counts: maps with both keys, ``type`` and ``data``."""
    found = 0
    pending = [ormsgpack.unpackb(document, option=ormsgpack.OPT_NON_STR_KEYS)]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            found += "type" in item and "data" in item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return found


@given(plain)
def test_every_value_comes_back_from_the_compatible_wire_or_is_refused(value: Any) -> None:
    from convelo.exceptions import AmbiguousDict
    from convelo.wire import compatible

    try:
        packed = compatible.encode_value(value)
    except AmbiguousDict:
        assert "'type'" in repr(value) or isinstance(value, Parcel) or "Parcel" in repr(value)
        return
    document = packed if isinstance(packed, bytes) else b"".join(packed)
    assert compatible.decode_value(document) == value
    assert wrappers_in(document) == count_wrappers(document)


DTYPES = [
    *(f"{order}{kind}" for order in "<>" for kind in ("i2", "i4", "i8", "u2", "f2", "f4", "f8")),
    *("i1", "u1", "?", "<c8", ">c16", "<M8[ns]", ">M8[s]", "<m8[25s]", "<U7", ">U3", "|S5", "|V6"),
]


@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 5), max_size=4),
    st.sampled_from("CFs"),
    st.integers(0, 2**32),
)
def test_arrays_keep_dtype_shape_and_byte_order(
    dtype: str, shape: list[int], layout: str, seed: int
) -> None:
    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=int))
    content = np.random.default_rng(seed).integers(0, 2, count * kind.itemsize, "u1").tobytes()
    array = np.frombuffer(content, kind, count).reshape(shape)
    if layout == "F":
        array = np.asfortranarray(array)
    elif layout == "s" and array.ndim:
        array = array[::-1]
    arrived = through({"nested": [array]})["nested"][0]
    assert same_array(arrived, array)
    assert not arrived.flags.writeable or not arrived.nbytes


STRUCTURED = [
    np.dtype([("a", "<i4"), ("b", ">f8")]),
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype([("inner", [("x", "<u2"), ("y", "S3")]), ("grid", "<f4", (2, 3))]),
    np.dtype({"names": ["p", "q"], "formats": ["i4", "i4"], "offsets": [4, 0], "itemsize": 16}),
    np.dtype([("when", "<M8[D]"), ("who", "<U4")]),
]


@pytest.mark.parametrize("dtype", STRUCTURED, ids=str)
@pytest.mark.parametrize("count", [0, 3, 2000])
def test_structured_arrays(dtype: np.dtype[Any], count: int) -> None:
    array = np.zeros(count, dtype)
    for name in dtype.names or ():
        if array[name].dtype.kind in "iuf":
            array[name] = 7
    assert same_array(through(array), array)
    assert same_array(through(array.reshape(1, -1)), array.reshape(1, -1))


def test_arrays_of_objects_keep_what_they_hold() -> None:
    array = np.empty((2, 2), dtype=object)
    array[0] = [gmpy2.mpz(2) ** 100, [1, 2]]
    array[1] = [None, (1, {"type": 1, "data": 2})]
    assert same_array(through(array), array)
    zero = np.array(2**90, dtype=object)
    assert same_array(through(zero), zero)
    nested = through(np.array([np.arange(3), Parcel(1)], dtype=object))
    assert same_array(nested[0], np.arange(3))
    assert nested[1] == Parcel(1)


def test_a_large_array_is_neither_copied_out_nor_in() -> None:
    array = np.arange(10_000.0).reshape(100, 100)
    packed, buffers = second.encode([array])
    assert len(packed) < 100
    assert np.shares_memory(np.frombuffer(buffers[0]), array)
    received = bytes(buffers[0])
    (arrived,) = second.decode(packed, [memoryview(received)])
    assert arrived.__array_interface__["data"][0] == np.frombuffer(received).__array_interface__[
        "data"
    ][0]
    with pytest.raises(ValueError, match="read-only"):
        arrived[0, 0] = 1


def test_writable_copies() -> None:
    array = np.asfortranarray(np.arange(5000).reshape(50, 100))
    arrived = through(array, writable=True)
    arrived[0, 0] = -1
    assert array[0, 0] == 0
    assert arrived.flags.f_contiguous


@pytest.mark.parametrize("size", [0, 4095, 4096, 100_000])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_arrive_as_bytes(size: int, kind: Any) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    assert through(kind(content[:size])) == content[:size]
    assert type(through(kind(content[:size]))) is bytes
    assert through([kind(content[:size])]) == [content[:size]]


def test_large_bytes_are_neither_copied_out_nor_in() -> None:
    content = bytes(100_000)
    packed, (buffer,) = second.encode(content)
    assert buffer is content
    assert second.decode(packed, [memoryview(content)]) is content
    # A view of a part has to be copied: its owner holds more.
    part = second.decode(packed, [memoryview(content)[1:]])
    assert part == content[1:]


def test_a_strided_memoryview_arrives_whole() -> None:
    view = memoryview(bytes(range(256)) * 64)[::2]
    assert through(view) == view.tobytes()


def test_numpy_scalars_become_pythons_own() -> None:
    few = [np.float64(1.5), np.int8(-3), np.bool_(True), np.float32(0.5), np.uint64(2**64 - 1)]
    for value in (few, few * 100, [few * 100, np.arange(3)]):
        arrived = through(value)
        flat = arrived if value is not None and not isinstance(arrived[0], list) else arrived[0]
        assert flat[:5] == [1.5, -3, True, 0.5, 2**64 - 1]
        assert [type(item) for item in flat[:5]] == [float, int, bool, float, int]
    assert same_array(through([few * 100, np.arange(3)])[1], np.arange(3))


FRAMES = {
    "plain": pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [0.5, None]}, index=["r", "s"]),
    "empty": pd.DataFrame(),
    "rows only": pd.DataFrame(index=range(3)),
    "int columns": pd.DataFrame({0: [1, 2], 1: [3, 4]}),
    "mixed columns": pd.DataFrame([[1, 2, 3]], columns=[1, "1", (2, 3)]),
    "two of one name": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "columns in levels": pd.DataFrame(
        [[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["q", None])
    ),
    "columns with a name": pd.DataFrame([[1, 2]], columns=pd.Index(["x", "y"], name="axis")),
    "dates as columns": pd.DataFrame([[1, 2]], columns=pd.date_range("2020", periods=2, freq=None)),
    "rows in levels": pd.DataFrame(
        {"v": range(6)}, index=pd.MultiIndex.from_product([[1, 2], list("abc")], names=["x", 5])
    ),
    "dates as rows": pd.DataFrame(
        {"v": [1, 2]}, index=pd.DatetimeIndex(["2020-01-01", "2021-01-01"], name="when", tz="UTC")
    ),
    "a range as rows": pd.DataFrame({"v": [1, 2]}, index=pd.RangeIndex(4, 0, -2, name="n")),
    "integers with gaps": pd.DataFrame({"v": pd.array([1, None], dtype="Int64")}),
    "categories": pd.DataFrame(
        {"v": pd.Categorical(["b", "a"], categories=["b", "a", "z"], ordered=True)}
    ),
    "times": pd.DataFrame(
        {
            "zone": pd.to_datetime(pd.Series(["2020-06-01", None])).dt.tz_localize(
                "Europe/Amsterdam"
            ),
            "nano": pd.to_datetime(["2020-06-01 00:00:00.123456789"] * 2),
            "span": pd.to_timedelta([1, 2], unit="s"),
            "month": pd.period_range("2020", periods=2, freq="M"),
            "between": pd.interval_range(0, 2),
        }
    ),
    "large integers": pd.DataFrame({"v": [2**128, -(2**90)], "w": [1, 2]}),
    "gmpy2 numbers": pd.DataFrame({"w": [1, 2], "v": [gmpy2.mpz(1), gmpy2.mpq(1, 3)]}),
    "dicts": pd.DataFrame({"v": [{"type": 1, "data": 2}, None]}),
    "lists": pd.DataFrame({"v": [[1, 2], (3,)]}),
    "integers as objects": pd.DataFrame({"v": pd.Series([1, 2], dtype=object)}),
    "nothing": pd.DataFrame({"v": [None, None]}, dtype=object),
    "decimals": pd.DataFrame({"v": [decimal.Decimal("1.50"), None]}),
    "days": pd.DataFrame({"v": [datetime.date(2020, 1, 2), datetime.date(1, 1, 1)]}),
    "bytes": pd.DataFrame({"v": [b"a", b"\xff"]}),
    "small kinds": pd.DataFrame({"v": np.array([1, 2], "u1"), "w": np.array([1, 2], "f4")}),
    "booleans": pd.DataFrame({"v": [True, False]}),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name: str) -> None:
    frame = FRAMES[name]
    arrived = through([frame])[0]
    pd.testing.assert_frame_equal(arrived, frame, check_freq=False)
    for position in range(frame.shape[1]):
        one, other = frame.iloc[:, position], arrived.iloc[:, position]
        assert [type(item) for item in one] == [type(item) for item in other]
    if frame.size and name not in ("decimals", "times"):
        arrived.iloc[0, 0] = frame.iloc[-1, 0]


SERIES: dict[str, pd.Series[Any]] = {
    "plain": pd.Series([1, 2, 3], index=["a", "b", "c"]),
    "named": pd.Series([1.5], name="s"),
    "named by a tuple": pd.Series([1.5], name=("s", 1)),
    "empty": pd.Series([], dtype=object),
    "objects": pd.Series([Parcel(1), 2**70]),
    "categories": pd.Series(["a", "b"], dtype="category"),
}


@pytest.mark.parametrize("name", SERIES)
def test_series(name: str) -> None:
    pd.testing.assert_series_equal(through(SERIES[name]), SERIES[name])


def test_what_arrow_refuses_goes_in_the_compatible_form(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = FRAMES["plain"]

    def refuse(_frame: Any) -> Any:
        raise arrow.Refused("no")

    monkeypatch.setattr(arrow, "write", refuse)
    pd.testing.assert_frame_equal(through(frame), frame)
    pd.testing.assert_frame_equal(through(FRAMES["gmpy2 numbers"]), FRAMES["gmpy2 numbers"])


@pytest.mark.parametrize(
    "stamp",
    [
        pd.Timestamp("2020-01-01 12:00:00"),
        pd.Timestamp("2020-01-01 12:00:00.123456789", tz="Europe/Amsterdam"),
        pd.Timestamp("2020-01-01T00:00:00+05:30"),
        pd.Timestamp(2**40, unit="s"),
        pd.Timestamp("1700-01-01").as_unit("ns"),
    ],
)
def test_timestamps(stamp: pd.Timestamp) -> None:
    arrived = through([stamp])[0]
    assert arrived == stamp
    assert str(arrived) == str(stamp)


def test_one_registration_serves_both_wires_and_gets_its_keywords() -> None:
    seen: list[Any] = []

    class Seen:
        def serialize(self, **kwargs: Any) -> tuple[int, ...]:
            seen.append(kwargs)
            return (1, 2)

        @staticmethod
        def deserialize(obj: Any, **kwargs: Any) -> str:
            seen.append((obj, kwargs))
            return "seen"

    Serialization.register_class(Seen, check_annotations=False)  # type: ignore[arg-type]
    packed, buffers = second.encode([Seen()], destination="bob")
    assert second.decode(packed, buffers, origin="alice") == ["seen"]
    assert seen == [
        {"destination": "bob", "use_pickle": False},
        ((1, 2), {"origin": "alice", "use_pickle": False}),
    ]


def test_large_data_of_a_class_is_not_copied() -> None:
    class Large:
        def serialize(self, **_: Any) -> bytes:
            return bytes(50_000)

        @staticmethod
        def deserialize(obj: bytes, **_: Any) -> int:
            assert type(obj) is bytes
            return len(obj)

    Serialization.register_class(Large, check_annotations=False)  # type: ignore[arg-type]
    packed, buffers = second.encode((Large(), Large()))
    assert len(buffers) == 2
    assert len(packed) < 100
    assert second.decode(packed, buffers) == (50_000, 50_000)


def test_an_array_serializer_of_ones_own_is_used() -> None:
    functions = four.SERIALIZER_FUNCS["ndarray"], four.DESERIALIZER_FUNCS["ndarray"]
    Serialization.register(
        lambda value, **_: value.sum().item(),
        lambda obj, **_: ("sum", obj),
        "ndarray",
        check_annotations=False,
        overwrite=True,
    )
    try:
        assert through(np.arange(4)) == ("sum", 6)
    finally:
        Serialization.register(*functions, "ndarray", check_annotations=False, overwrite=True)


def test_the_other_api_has_the_same_wire() -> None:
    value = [(1, 2**70), np.arange(3), {"type": 1, "data": 2}]
    packed, buffers = second.encode(value)
    assert second.encode(value, five.STATE) == (packed, buffers)
    arrived = second.decode(packed, buffers, five.STATE)
    assert arrived[0] == value[0]
    assert arrived[2] == value[2]


@pytest.mark.parametrize("value", [{1, 2}, 1j, decimal.Decimal(1), object()])
def test_what_has_no_serializer_is_named_wherever_it_is(value: Any) -> None:
    for place in (value, [value], ((value,),), Parcel((value,)), np.array([value], dtype=object)):
        with pytest.raises(TypeError, match=f"not msgpack serializable: .*{type(value).__name__}"):
            second.encode(place)


class Frames:
    """Another library's frame, which gives its content as Arrow."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


DataFrame = type("DataFrame", (Frames,), {"__module__": "polars.dataframe.frame"})


def tables() -> pa.Table:
    columns = {
        "number": pa.array([1, None, 3], pa.int64()),
        "text": pa.array(["a", None, "\u00e9"]),
        "when": pa.array([0, 1, None], pa.timestamp("us", "Europe/Berlin")),
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
    }
    return pa.table(columns, metadata={"note": "stays here"})


def test_an_arrow_table_arrives_as_it_was() -> None:
    sent = tables()
    for value in (sent, sent.slice(1), sent.slice(0, 0), sent.to_batches()[0]):
        arrived = through({"rows": [value]})["rows"][0]
        assert isinstance(arrived, pa.Table)
        expected = value if isinstance(value, pa.Table) else pa.Table.from_batches([value])
        assert arrived.equals(expected)


def test_a_frame_of_another_library_arrives_as_an_arrow_table() -> None:
    assert through(DataFrame(tables())).equals(tables())
    if not hasattr(pa, "string_view"):
        return
    views = pa.table({"text": pa.array(["a", "b"]).cast(pa.string_view())})
    assert through(DataFrame(views)).to_pydict() == {"text": ["a", "b"]}


def test_arrow_that_cannot_travel_is_named_with_its_column_and_place() -> None:
    lists = DataFrame(pa.table({"ok": [1], "tags": [["a"]]}))
    with pytest.raises(TypeError) as caught:
        second.encode({"batch": [0, (lists,)]})
    text = str(caught.value)
    assert "DataFrame (polars.dataframe.frame.DataFrame) at message['batch'][1][0]: its column 'tags'" in text
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    # Before version 16, pyarrow's arrays in parts have no such interface.
    reason = "does not become an Arrow table|register"
    with pytest.raises(TypeError, match=f"ChunkedArray.*({reason})"):
        second.encode(pa.chunked_array([[1]]))


def test_the_compatible_wire_has_no_form_for_arrow() -> None:
    from convelo.wire import compatible

    for value in (tables(), DataFrame(tables())):
        advice = r"at message\['a'\].*no form for Arrow.*to_pandas"
        with pytest.raises(TypeError, match=advice) as caught:
            compatible.encode_value({"a": value})
        assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_class_that_only_has_the_name_of_a_known_one_is_none() -> None:
    for name in ("DataFrame", "Series", "ndarray", "Tensor", "mpz"):
        value = type(name, (), {"__module__": "elsewhere.inner"})()
        with pytest.raises(TypeError, match=rf"{name} \(elsewhere.inner.{name}\) at message"):
            second.encode([value])


def test_the_reason_of_a_failing_serializer_is_the_cause() -> None:
    class Failing:
        def serialize(self, **_: Any) -> Any:
            raise LookupError("no key")

        @staticmethod
        def deserialize(obj: Any, **_: Any) -> Any: ...

    Serialization.register_class(Failing, check_annotations=False)
    with pytest.raises(TypeError, match="Failing") as caught:
        second.encode([(Failing(),)])
    assert isinstance(caught.value.__cause__, LookupError)


def nested_tuples(levels: int, leaf: Any = 0) -> Any:
    for _ in range(levels):
        leaf = (leaf,)
    return leaf


def test_as_many_tuples_in_each_other_as_the_compatible_wire_takes() -> None:
    assert through(nested_tuples(127)) == nested_tuples(127)
    with pytest.raises(TypeError, match="Recursion limit"):
        second.encode(nested_tuples(128))
    loop: list[Any] = []
    loop.append((loop,))
    with pytest.raises(TypeError, match="Recursion limit"):
        second.encode(loop)


def test_much_data_deep_inside_is_refused_before_it_is_copied_too_often() -> None:
    assert through(nested_tuples(20, list(range(100_000)))) == nested_tuples(
        20, list(range(100_000))
    )
    with pytest.raises(TypeError, match="nested typed values .* hold too much"):
        second.encode(nested_tuples(60, list(range(100_000))))


def typed(code: int, payload: Any) -> Any:
    return ormsgpack.Ext(code, ormsgpack.packb(payload))


def received(tree: Any, *buffers: bytes) -> Any:
    return second.decode(ormsgpack.packb(tree), list(buffers))


ARRAY, TYPED, BYTES, FRAME = second.ARRAY, second.TYPED, second.BYTES, second.FRAME


@pytest.mark.parametrize(
    "tree",
    [
        typed(ARRAY, ["|O", [1], "C", bytes(8)]),
        typed(ARRAY, ["O", [1], "C", bytes(8)]),
        typed(ARRAY, ["|T16", [1], "C", bytes(16)]),
        typed(ARRAY, ["<i4,<i4", [1], "C", bytes(8)]),
        typed(ARRAY, ["<f8", [1], "C", bytes(7)]),
        typed(ARRAY, ["<f8", [1], "C", bytes(9)]),
        typed(ARRAY, ["<f8", [2**61, 2**61], "C", bytes(8)]),
        typed(ARRAY, ["<f8", [2**62], "C", b""]),
        typed(ARRAY, ["<f8", [-1], "C", b""]),
        typed(ARRAY, ["<f8", [-1, -1], "C", bytes(8)]),
        typed(ARRAY, ["<f8", [True], "C", bytes(8)]),
        typed(ARRAY, ["<f8", [1.0], "C", bytes(8)]),
        typed(ARRAY, ["<f8", "1", "C", bytes(8)]),
        typed(ARRAY, ["<f8", [1] * 65, "C", bytes(8)]),
        typed(ARRAY, ["<f8", [1], "K", bytes(8)]),
        typed(ARRAY, ["<f8", [1], "C", 0]),
        typed(ARRAY, ["<f8", [1], "C", -1]),
        typed(ARRAY, ["<f8", [1], "C", True]),
        typed(ARRAY, ["<f8", [1], "C", None]),
        typed(ARRAY, ["<f8", [1], "C"]),
        typed(ARRAY, {"dtype": "<f8"}),
        typed(ARRAY, ["<f99", [1], "C", bytes(99)]),
        typed(ARRAY, ["<M8[x]", [1], "C", bytes(8)]),
        typed(ARRAY, ["<U999999999", [0], "C", b""]),
        typed(BYTES, 0),
        typed(BYTES, "0"),
        typed(BYTES, -1),
        typed(TYPED, ["tuple"]),
        typed(TYPED, [1, []]),
        typed(TYPED, "tuple"),
        typed(TYPED, ["tuple", 5]),
        typed(TYPED, ["int", "x"]),
        typed(TYPED, ["mpz", b""]),
        typed(TYPED, ["mpz", 5]),
        typed(TYPED, ["bitarray", b"\xff"]),
        typed(TYPED, ["ndarray", [[2**40], []]]),
        typed(TYPED, ["ndarray", [[1], [1, 2]]]),
        typed(TYPED, ["ndarray", {"values": [], "shape": [2**40]}]),
        typed(TYPED, ["ndarray.structured", ["<f8", [1], bytes(8), 1]]),
        typed(TYPED, ["ndarray.structured", [["<f8", [2**40]], [1], bytes(8)]]),
        typed(TYPED, ["ndarray.structured", [{"names": ["a"]}, [1], bytes(8)]]),
        typed(TYPED, ["Timestamp", [2**70 % 2**63, "ns", "Nowhere/None"]]),
        typed(TYPED, ["Timestamp", [0, "h", None]]),
        typed(TYPED, ["Timestamp", ["0", "ns", None]]),
        typed(TYPED, ["nobody's", 1]),
        typed(FRAME, ["DataFrame", 0, [], None, []]),
        typed(FRAME, []),
        typed(77, 1),
        ormsgpack.Ext(TYPED, b""),
        ormsgpack.Ext(ARRAY, b"\xc1"),
    ],
)
def test_malformed_extensions_are_body_errors(tree: Any) -> None:
    with pytest.raises(BodyError):
        received(tree)
    with pytest.raises(BodyError):
        received([{"in": tree}])


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(UnknownType, match="nobody"):
        received(typed(TYPED, ["nobody's", 1]))


@pytest.mark.parametrize(
    "document", [b"", b"\xc1", b"\x91", b"\xd4\x03", b"\xa5abc", b"\xc7\x05", b"\xd4\xff\x00"]
)
def test_documents_that_are_malformed(document: bytes) -> None:
    with pytest.raises(Undecodable):
        second.decode(document, [])


def deep_document(levels: int, lists: int) -> bytes:
    packed = b"\x00"
    for _ in range(levels):
        pair = b"\x92\xa5tuple" + b"\x91" * lists + packed
        packed = b"\xc9" + len(pair).to_bytes(4, "big") + b"\x01" + pair
    return packed


def test_nesting_that_would_use_up_the_stack_is_refused() -> None:
    with pytest.raises(TooDeep):
        second.decode(deep_document(128, 1), [])
    with pytest.raises(TooDeep):
        second.decode(deep_document(20, 900), [])
    assert second.decode(deep_document(100, 1), []) == nested_tuples(100)


def test_nesting_that_would_copy_much_again_and_again_is_refused() -> None:
    packed = b"\xc6" + (1 << 20).to_bytes(4, "big") + bytes(1 << 20)
    for _ in range(60):
        pair = b"\x92\xa5tuple\x91" + packed
        packed = b"\xc9" + len(pair).to_bytes(4, "big") + b"\x01" + pair
    with pytest.raises(TooDeep, match="large typed values"):
        second.decode(packed, [])


def test_depth_of_documents() -> None:
    assert depth_of(ormsgpack.packb(1)) == 0
    assert depth_of(ormsgpack.packb([])) == 0
    assert depth_of(ormsgpack.packb([[1], {"a": [2, {"b": 3}]}, "x" * 300])) == 4
    assert depth_of(ormsgpack.packb(list(range(70_000)))) == 1
    assert depth_of(b"\x91" * 500) == 500
    assert depth_of(b"\xdd") == 0
    assert depth_of(ormsgpack.packb([typed(1, [[[[1]]]]), 1.5, b"x", -40, 2**40])) == 1


@settings(max_examples=500)
@given(st.binary(max_size=200), st.lists(st.binary(max_size=40), max_size=2))
def test_random_bytes_are_a_value_or_a_body_error(document: bytes, buffers: list[bytes]) -> None:
    with contextlib.suppress(BodyError):
        second.decode(document, buffers)


trees = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=20)
    | st.sampled_from(["<f8", "|O", "C", "F", "tuple", "int", "ndarray", "mpfr", "mpc", "mpq"])
    | st.sampled_from(["DataFrame", "Timestamp", "ns", "ndarray.structured", "Parcel", "bitarray"]),
    lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    | st.builds(typed, st.integers(0, 5), inner | st.lists(inner, min_size=2, max_size=5)),
    max_leaves=15,
)


@settings(max_examples=500)
@given(trees, st.lists(st.binary(max_size=40), max_size=2))
def test_random_extensions_are_a_value_or_a_body_error(tree: Any, buffers: list[bytes]) -> None:
    with contextlib.suppress(BodyError):
        received(tree, *buffers)


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(set(FRAMES) - {"times"})),
    st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_frame_is_a_frame_or_a_body_error(
    name: str, damage: list[tuple[int, int]]
) -> None:
    packed, buffers = second.encode(FRAMES[name])
    content = [bytearray(buffer) for buffer in buffers]
    for place, byte in damage:
        for buffer in content:
            buffer[place % len(buffer)] = byte
    try:
        arrived = second.decode(packed, [bytes(buffer) for buffer in content])
    except BodyError:
        return
    # Touches every value; pandas itself refuses to print some, such as dates before the year 1.
    with contextlib.suppress(Exception):
        repr(arrived)


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def frame_of(content: bytes, columns: int = 1) -> Any:
    names = [str(position) for position in range(columns)]
    return received(typed(FRAME, ["DataFrame", 0, names, None, []]), content)


def test_streams_that_would_grow_are_refused() -> None:
    small = pa.table({"0": pa.array([0] * 1_000_000, pa.int8())})
    assert len(frame_of(stream(small))) == 1_000_000
    with pytest.raises(BodyError, match="compressed"):
        frame_of(stream(small, compression="lz4"))
    for column in (
        pa.nulls(10_000_000),
        pa.array([["a"]] * 3),
        pa.array([{"a": ["b"]}]),
        pa.RunEndEncodedArray.from_arrays([1_000_000], ["x"]),
        # Not before pyarrow 16.
        *(pa.array(["x"], getattr(pa, name)()) for name in ("string_view",) if hasattr(pa, name)),
        pa.array([None], pa.list_(pa.null(), 5)),
    ):
        with pytest.raises(BodyError, match="unsupported type"):
            frame_of(stream(pa.table({"0": column})))


def test_frames_whose_parts_do_not_fit_are_refused() -> None:
    content = stream(pa.table({"0": [1, 2]}))
    for described in (
        ["DataFrame", 0, ["a", "b"], None, []],
        ["DataFrame", 0, "a", None, []],
        ["DataFrame", 0, {"names": [None]}, None, []],
        ["Series", 0, ["a", "b"], None, []],
        ["Panel", 0, ["a"], None, []],
        ["DataFrame", 0, ["a"], ["x", "y"], []],
        ["DataFrame", 0, ["a", "b"], None, [[1, [1]]]],
        ["DataFrame", 0, ["a", "b"], None, [[5, [1, 2]]]],
        ["DataFrame", 0, ["a", "b"], None, [[1]]],
        ["DataFrame", 0, ["a"], None, 7],
        ["DataFrame", 1, ["a"], None, []],
    ):
        with pytest.raises(BodyError):
            received(typed(FRAME, described), content)
