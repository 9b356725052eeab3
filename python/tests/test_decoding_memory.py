"""No message decodes to more than 64 times its size and 1 MiB, on any wire and of any type.

Messages are decoded in a process that may not take more: what goes beyond ends in a MemoryError.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any

import decoder_process
import gmpy2
import numpy as np
import ormsgpack
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from decoder_process import REFUSED, VALUE, Decoding
from hypothesis import given, settings
from hypothesis import strategies as st

from convelo.exceptions import BodyError
from convelo.wire import compatible, second
from convelo.wire.budget import Budget
from convelo.wire.errors import TooLarge
from convelo.wire.plugins import gmpy

Message = tuple[int, bytes, list[bytes]]

KB = 1000
LARGEST = 300 * KB
"""Bytes of the messages that are made here, at most."""


@pytest.fixture(scope="module")
def decoding() -> Iterator[Decoding]:
    process = Decoding()
    yield process
    process.close()


def wrapper(kind: str, data: Any) -> dict[str, Any]:
    return {"type": kind, "data": data}


def typed(code: int, payload: Any) -> ormsgpack.Ext:
    return ormsgpack.Ext(code, ormsgpack.packb(payload))


def four(tree: Any) -> Message:
    return 4, ormsgpack.packb(tree), []


def two(tree: Any, *buffers: bytes) -> Message:
    return 2, ormsgpack.packb(tree), list(buffers)


def parquet(table: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def stream(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def frame_of(content: bytes, names: list[str]) -> Any:
    return typed(second.FRAME, ["DataFrame", 0, names, None, []])


def split(index: Any, columns: Any, data: Any) -> dict[str, Any]:
    return wrapper("DataFrame", {"index": index, "columns": columns, "data": data})


def zeros(rows: int) -> bytes:
    return parquet(pa.table({"a": pa.array(np.zeros(rows, "i8"))}))


def one_text_many_times() -> bytes:
    values = pa.array(["x" * 100_000])
    indices = pa.array(np.zeros(100_000, "i4"))
    return parquet(pa.table({"a": pa.DictionaryArray.from_arrays(indices, values)}))


def shared_bytes(columns: int, length: int) -> bytes:
    """A stream of many columns that all point at the bytes of one."""
    column = pa.Array.from_buffers(pa.int64(), length // 8, [None, pa.py_buffer(bytes(length))])
    table = pa.table({str(position): column for position in range(columns)})
    messages = pa.MessageReader.open_stream(pa.py_buffer(stream(table)))
    schema, batch = messages.read_next_message(), messages.read_next_message()
    metadata = batch.metadata.to_pybytes()
    # Each column has two buffers, an absent one and its values; each is a place and a length.
    first = metadata.index(struct.pack("<qq", 0, length))
    for position in range(1, columns):
        place = first + 32 * position
        assert metadata[place : place + 16] == struct.pack("<qq", position * length, length)
        metadata = metadata[:place] + bytes(8) + metadata[place + 8 :]
    body = struct.pack("<q", columns * length)
    assert metadata.count(body) == 1
    metadata = metadata.replace(body, struct.pack("<q", length))
    head = b"\xff\xff\xff\xff" + struct.pack("<i", len(metadata))
    end = b"\xff\xff\xff\xff" + bytes(4)
    content: bytes = schema.serialize().to_pybytes() + head + metadata
    return content + batch.body.to_pybytes()[:length] + end


def with_pandas_metadata(label: str, *levels: str) -> bytes:
    """A file with one column, whose labels have levels of these types of pandas."""
    described = {
        "index_columns": [],
        "columns": [],
        "column_indexes": [
            {"name": None, "field_name": None, "pandas_type": kind, "numpy_type": "object",
             "metadata": None}
            for kind in levels
        ],
    }  # fmt: skip
    table = pa.table({label: [1]})
    return parquet(table.replace_schema_metadata({"pandas": json.dumps(described)}))


def noted(table: Any, **notes: Any) -> Any:
    """A table of which pandas is said to have noted this."""
    whole = {"index_columns": [], "column_indexes": [], "columns": [], **notes}
    return table.replace_schema_metadata({"pandas": json.dumps(whole)})


def column(name: str | None, pandas_type: str, numpy_type: str) -> dict[str, Any]:
    return {
        "name": name,
        "field_name": name,
        "pandas_type": pandas_type,
        "numpy_type": numpy_type,
        "metadata": None,
    }


def of_arrow(table: Any) -> Message:
    names = [str(position) for position in range(table.num_columns)]
    return two(frame_of(b"", names), stream(table))


def of_parquet(table: Any, **options: Any) -> Message:
    return four(wrapper("DataFrame", parquet(table, **options)))


def one_long_text() -> Any:
    values = pa.array(["x" * 300 * KB])
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, "i1")), values)


def unfolded(held: str) -> Any:
    """A text of a dictionary, said to be a column of texts."""
    return noted(pa.table({"0": one_long_text()}), columns=[column("0", "unicode", held)])


def wide_level(held: str, described: str = "unicode") -> Any:
    return noted(pa.table({"0": [1]}), column_indexes=[column(None, described, held)])


def label_in_levels(label: str, levels: int) -> Any:
    level = column(None, "unicode", "object")
    return noted(pa.table({label: [1]}), column_indexes=[level] * levels)


def growing_dictionary() -> bytes:
    """A stream whose dictionary comes in a thousand parts, each of one text more."""
    schema = pa.schema([pa.field("0", pa.dictionary(pa.int32(), pa.string()))])
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    values = ["x" * KB + str(number) for number in range(100)]
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        for number in range(400):
            array = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array(values))
            writer.write_batch(pa.record_batch([array], schema=schema))
            values.append(str(number))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def many_ranges(rows: int, count: int) -> Any:
    bounds = {"kind": "range", "name": None, "start": 0, "stop": rows, "step": 1}
    table = pa.table({"0": np.random.default_rng(1).integers(0, 1 << 60, rows)})
    return noted(table, index_columns=[bounds] * count)


def cast(values: Any, held: str) -> Any:
    return noted(pa.table({"0": values}), columns=[column("0", "int8", held)])


def in_period(frequency: str) -> Any:
    metadata = {
        b"ARROW:extension:name": b"pandas.period",
        b"ARROW:extension:metadata": json.dumps({"freq": frequency}).encode(),
    }
    field = pa.field("0", pa.int64(), metadata=metadata)
    return pa.table([pa.array([1, 2])], schema=pa.schema([field]))


ATTACKS: dict[str, Callable[[], Message]] = {
    "a wide type of labels in Arrow": lambda: of_arrow(wide_level("object", "S800000000")),
    "labels held in a wide type": lambda: of_arrow(wide_level("S800000000")),
    "labels held in a wide type, Parquet": lambda: of_parquet(wide_level("V800000000")),
    "a dictionary unfolded into texts": lambda: of_arrow(unfolded("large_string[pyarrow]")),
    "a dictionary unfolded into texts of pandas": lambda: of_arrow(unfolded("string")),
    "a dictionary unfolded into bytes": lambda: of_arrow(unfolded("large_binary[pyarrow]")),
    "a dictionary unfolded into texts, Parquet": lambda: of_parquet(
        unfolded("large_string[pyarrow]")
    ),
    "a label in Arrow that is a long literal": lambda: of_arrow(
        label_in_levels("(" + "0," * 100 * KB + "0)", 2)
    ),
    "a label in Arrow that is a literal of lists": lambda: of_arrow(
        label_in_levels("(" + "[]," * 70 * KB + "0)", 2)
    ),
    "a label of thousands of levels": lambda: of_parquet(
        label_in_levels("(" + "'', " * 2 * KB + "'')", 2 * KB + 1)
    ),
    "a dictionary that grows in parts": lambda: two(frame_of(b"", ["a"]), growing_dictionary()),
    "an index of thousands of ranges": lambda: of_arrow(many_ranges(100 * KB, 3 * KB)),
    "an index of thousands of ranges, Parquet": lambda: of_parquet(
        many_ranges(100 * KB, 3 * KB), compression=None, use_dictionary=False
    ),
    "an index of one column many times": lambda: of_arrow(
        noted(
            pa.table({"0": np.arange(100 * KB)}),
            index_columns=["0"] * 60,
            columns=[column("0", "int64", "int64")],
        )
    ),
    "a label that is a long tuple": lambda: two(
        typed(4, ["DataFrame", 0, [typed(1, ["tuple", [0] * 60 * KB])], None, []]),
        stream(pa.table({"0": [1]})),
    ),
    "a label of tens of thousands of levels": lambda: two(
        typed(4, ["DataFrame", 0, {"Index.multi": [[0] * 60 * KB], "names": []}, None, []]),
        stream(pa.table({"0": [1]})),
    ),
    "names of rows that are long tuples": lambda: two(
        typed(4, ["DataFrame", 0, ["a"], [typed(1, ["tuple", [0] * 60 * KB])], []]),
        stream(pa.table({"0": [1]})),
    ),
    "a label that is a long tuple, compatible wire": lambda: four(
        split([0], [wrapper("tuple", [0] * 60 * KB)], [[1]])
    ),
    "truth values as texts": lambda: of_arrow(
        cast(np.zeros(500 * KB, "?"), "large_string[pyarrow]")
    ),
    "truth values as wide numbers": lambda: of_arrow(
        cast(np.zeros(500 * KB, "?"), "decimal256[pyarrow]")
    ),
    "small numbers as intervals of three parts": lambda: of_arrow(
        cast(np.zeros(300 * KB, "i1"), "month_day_nano_interval[pyarrow]")
    ),
    "a period of a long frequency": lambda: of_arrow(in_period("1D" * 30 * KB)),
    "notes that are empty lists": lambda: of_arrow(noted(pa.table({"0": [1]}), x=[[]] * 200 * KB)),
    "thousands of notes about one column": lambda: of_arrow(
        noted(pa.table({"0": [1]}), columns=[column("0", "int64", "int64")] * 6 * KB)
    ),
    "attributes that are empty dicts": lambda: of_arrow(
        noted(pa.table({"0": [1]}), attributes={"a": [{}] * 200 * KB})
    ),
    "attributes of many columns of dicts": lambda: of_parquet(
        noted(
            pa.table({str(n): [{"type": "int", "data": b"\x01"}] for n in range(300)}),
            attributes={"a": [{}] * 20 * KB},
        )
    ),
    "mixed texts in an array without dimensions": lambda: four(
        wrapper("ndarray", {"values": ["x" * 35 * KB] + list(range(20 * KB)), "shape": []})
    ),
    "mixed texts in an array without dimensions, second wire": lambda: two(
        typed(1, ["ndarray", {"values": ["x" * 35 * KB] + list(range(20 * KB)), "shape": []}])
    ),
    "rows times columns of one value": lambda: four(
        split([0] * 40 * KB, [0] * 40 * KB, 0)
    ),
    "rows times columns of short rows": lambda: four(
        split([0] * 20 * KB, [0] * 20 * KB, [[0] * 20 * KB] + [[]] * 20 * KB)
    ),
    "rows that are dicts with a key each": lambda: four(
        split([0] * 5 * KB, [0] * 5 * KB, [{str(number): 0} for number in range(5 * KB)])
    ),
    "columns that are repeated for each row": lambda: four(
        split([0] * 100 * KB, ["a"] * 500, {str(number): 1 for number in range(500)})
    ),
    "labels of one long tuple and many empty ones": lambda: four(
        split(
            [wrapper("tuple", [0] * 10 * KB)] + [wrapper("tuple", [])] * 10 * KB,
            ["a"],
            [[0]] * (10 * KB + 1),
        )
    ),
    "zeros in Parquet": lambda: four(wrapper("DataFrame", zeros(50_000_000))),
    "zeros in Parquet inside the second wire": lambda: two(typed(1, ["Series", zeros(50_000_000)])),
    "nulls in Parquet": lambda: four(
        wrapper("DataFrame", parquet(pa.table({"a": pa.nulls(50_000_000, pa.string())})))
    ),
    "structs of nulls in Parquet": lambda: four(
        wrapper(
            "DataFrame",
            parquet(pa.table({"a": pa.array([{"b": None}] * 500_000)})),
        )
    ),
    "one long text in Parquet, referred to many times": lambda: four(
        wrapper("DataFrame", one_text_many_times())
    ),
    "zeros in Parquet, compressed pages": lambda: four(
        wrapper(
            "DataFrame",
            parquet(
                pa.table({"a": np.zeros(20_000_000, "i8")}),
                use_dictionary=False,
                compression="zstd",
            ),
        )
    ),
    "texts in Parquet, each with most of the one before": lambda: four(
        wrapper(
            "DataFrame",
            parquet(
                pa.table({"a": ["x" * 10_000] * 20_000}),
                use_dictionary=False,
                column_encoding={"a": "DELTA_BYTE_ARRAY"},
            ),
        )
    ),
    "labels that are long literals": lambda: four(wrapper(
            "DataFrame",
            with_pandas_metadata("(" + "1," * 20 * KB + ")", "unicode", "unicode"),
        )),
    "a wide type of labels": lambda: four(wrapper("DataFrame", with_pandas_metadata("1", "S500000000"))),
    "empty maps": lambda: four([{}] * 8_000_000),
    "empty maps, second wire": lambda: two([{}] * 8_000_000),
    "empty lists": lambda: four([[]] * 8_000_000),
    "lists in lists": lambda: (4, b"\xdc\xff\xff" + (b"\x91" * 400 + b"\x90") * 65535, []),
    "maps in maps": lambda: (2, b"\xdc\xff\xff" + (b"\x81\xa0" * 400 + b"\x80") * 65535, []),
    "a list that claims four billion items": lambda: (4, b"\xdd\xff\xff\xff\xff\x01", []),
    "arrays of no elements and a huge dtype": lambda: two(
        [typed(2, ["|V999999999", [0], "C", b""])] * 10
    ),
    "a structured dtype of no elements and a huge size": lambda: two(
        typed(1, ["ndarray.structured", [
            {"names": ["a"], "formats": ["|i1"], "offsets": [0], "itemsize": 1 << 30,
             "aligned": False}, [0], b""]])
    ),  # fmt: skip
    "one buffer as many bytes objects": lambda: (
        2,
        ormsgpack.packb([ormsgpack.Ext(3, b"\x00")] * 20_000),
        [bytes(100 * KB)],
    ),
    "numbers of a high precision": lambda: two(
        [typed(1, ["mpfr", bytes.fromhex("0408000000000100")])] * 20_000
    ),
    "numbers of a high precision, compatible wire": lambda: four(
        [wrapper("mpc", bytes.fromhex("05080000000001000508000000000100"))] * 20_000
    ),
    "time zones": lambda: two(
        [typed(1, ["Timestamp", [0, "ns", zone]]) for zone in sorted(zoneinfo.available_timezones())]
    ),
    "columns that share their bytes": lambda: two(
        frame_of(b"", [str(position) for position in range(400)]), shared_bytes(400, 400 * KB)
    ),
    "columns that Arrow left out": lambda: two(
        typed(4, ["DataFrame", 0, [""] * 60 * KB, None, [[0, []]] * 60 * KB]),
        stream(pa.table({})),
    ),
    "a frame of null values as objects": lambda: four(split([0] * 50 * KB, ["a"], [[None]] * 50 * KB)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_small_messages_that_stand_for_gigabytes(decoding: Decoding, attack: str) -> None:
    result = decoding.result(*ATTACKS[attack]())
    assert result == VALUE or result.startswith(REFUSED), result


numbers = st.sampled_from([0, -1, -32, 300, 2**40, 2**64 - 1, 1.5])
texts = st.sampled_from(["", "a", "ab", "\xe9", "a" * 40 + "\U0001f980"])
plain = numbers | texts | st.none() | st.binary(max_size=3)
nested = st.recursive(
    plain | st.sampled_from([[], {}]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=7),
    max_leaves=6,
)
SPECIAL = [bytes.fromhex("0408000000000100"), bytes.fromhex("05080000000001000508000000000100")]
GMPY = [gmpy.serialize(number) for number in (gmpy2.mpz(5), gmpy2.mpq(1, 3), gmpy2.mpfr("1.5"))]
sizes = st.sampled_from([0, 1, 2, 300, 30_000])

# The data of every type that is registered, as both wires carry it.
registered = st.one_of(
    st.tuples(st.just("tuple"), st.lists(nested, max_size=3)),
    st.tuples(st.just("int"), st.binary(max_size=20)),
    st.tuples(st.sampled_from(["mpfr", "mpc"]), st.sampled_from(SPECIAL)),
    st.tuples(st.sampled_from(["mpz", "mpq", "xmpz", "mpfr"]), st.sampled_from(GMPY)),
    st.tuples(st.just("bitarray"), st.binary(max_size=4)),
    st.tuples(st.just("Timestamp"), st.sampled_from(["2020-01-01", "2020-01-01T00:00:00+02:00"])),
    st.tuples(st.sampled_from(["set", "frozenset"]), st.lists(plain, max_size=7)),
    st.tuples(st.just("Decimal"), st.sampled_from(["1", "1E+999999", "NaN"])),
    st.tuples(st.just("complex"), st.lists(numbers, min_size=2, max_size=2)),
    st.tuples(
        st.just("ndarray"),
        st.builds(
            lambda values, shape: {"values": values, "shape": shape},
            st.lists(nested, max_size=4) | nested,
            st.lists(sizes, max_size=2),
        ),
    ),
)
columns = st.sampled_from(
    [
        lambda rows: np.zeros(rows, "i8"),
        lambda rows: np.zeros(rows, "i1"),
        lambda rows: np.zeros(rows, "?"),
        lambda rows: np.arange(rows) % 3,
        lambda rows: np.random.default_rng(1).random(rows),
        lambda rows: np.array(["2020-01-01"] * rows, "M8[us]"),
        lambda rows: pa.nulls(rows, pa.bool_()),
        lambda rows: pa.nulls(rows, pa.string()),
        lambda rows: pa.array([b"x" * 1000] * rows),
        lambda rows: pa.array(["x" * 10, "\U0001f980"] * (rows // 2) + ["y"] * (rows % 2)),
        lambda rows: pa.array([[]] * rows, pa.list_(pa.int8())),
        lambda rows: pa.array([{"type": "int", "data": b"\x01"}] * rows),
        lambda rows: pa.array([0] * rows, pa.date32()),
        lambda rows: pa.array([0] * rows, pa.decimal128(5)),
        lambda rows: pa.array(["x"] * rows).dictionary_encode(),
    ]
)
tables = st.builds(
    lambda makers, rows: pa.table({str(n): make(rows) for n, make in enumerate(makers)}),
    st.lists(columns, min_size=1, max_size=3),
    st.sampled_from([0, 1, 10, 1000, 30_000]),
)
files = st.builds(
    lambda table, compression, dictionary: parquet(
        table, compression=compression, use_dictionary=dictionary
    ),
    tables,
    st.sampled_from(["none", "snappy", "zstd", "gzip"]),
    st.booleans(),
)
frames = files | st.builds(
    lambda index, columns, data: {"index": index, "columns": columns, "data": data},
    st.lists(plain, max_size=3),
    st.lists(plain, max_size=3),
    st.lists(st.lists(nested, max_size=3), max_size=3),
)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """The same thing again and again, up to the largest message."""
    wire = draw(st.sampled_from([2, 4, 5]))
    buffers: list[bytes] = []
    kind = draw(st.sampled_from(["nested", "registered", "frame", "array", "stream"]))
    item: Any
    if kind == "nested":
        item = draw(nested)
    elif kind == "registered":
        pair = draw(registered)
        item = typed(second.TYPED, list(pair)) if wire == 2 else wrapper(*pair)
    elif kind == "frame":
        pair = (draw(st.sampled_from(["DataFrame", "Series"])), draw(frames))
        item = typed(second.TYPED, list(pair)) if wire == 2 else wrapper(*pair)
    elif kind == "array":
        wire = 2
        dtype = draw(st.sampled_from(["|u1", "<f8", ">c16", "|S9", "<U3", "|V7", "<M8[ns]"]))
        shape = draw(st.lists(sizes, max_size=3))
        length = int(np.prod(shape, dtype=float)) * np.dtype(dtype).itemsize
        buffers = [bytes(min(length, LARGEST))]
        item = typed(second.ARRAY, [dtype, shape, "C", 0])
    else:
        wire = 2
        table = draw(tables)
        buffers = [stream(table)]
        names = [str(position) for position in range(table.num_columns)]
        item = typed(second.FRAME, ["DataFrame", 0, names, None, []])
    length = len(ormsgpack.packb(item))
    count = draw(st.sampled_from([1, 2, 50, LARGEST // length + 1]))
    if length * count > 2 * LARGEST:
        count = 1
    return wire, ormsgpack.packb([item] * count), buffers


# What pandas notes about itself, for each type that it writes.
NOTED = {
    "numbers": pd.DataFrame({"a": np.arange(500, dtype="i1"), "b": np.arange(500) / 3}),
    "truth": pd.DataFrame({"a": np.zeros(5000, "?"), "b": pd.array([True, None] * 2500)}),
    "texts": pd.DataFrame({"a": ["x" * 50, None] * 50, "b": pd.array(["y", None] * 50, "string")}),
    "categories": pd.DataFrame({"a": pd.Categorical(["x" * 9, "y"] * 500)}),
    "masked numbers": pd.DataFrame({"a": pd.array([1, None] * 500, "Int8")}),
    "times": pd.DataFrame({"a": pd.date_range("2020", periods=500, tz="Europe/Amsterdam")}),
    "spans": pd.DataFrame({"a": pd.timedelta_range("1h", periods=500)}),
    "periods": pd.DataFrame({"a": pd.period_range("2020", periods=500, freq="D")}),
    "intervals": pd.DataFrame({"a": pd.interval_range(0, 500)}),
    "Arrow's numbers": pd.DataFrame({"a": pd.array([1, None] * 500, "int8[pyarrow]")}),
    "Arrow's times": pd.DataFrame({"a": pd.array([0] * 500, "timestamp[us, tz=UTC][pyarrow]")}),
    "levels": pd.DataFrame(
        np.zeros((500, 2), "i1"),
        columns=pd.MultiIndex.from_tuples([("a", "x"), ("b", "y")]),
        index=pd.MultiIndex.from_product([range(50), range(10)]),
    ),
    "days as labels": pd.DataFrame([[1, 2]] * 50, columns=pd.date_range("2020", periods=2)),
    "numbers as labels": pd.DataFrame([[1, 2]] * 50, index=np.arange(50, dtype="i1")),
}
HOSTILE: list[Any] = [
    "S500000000", "U100000000", "V500000000", "|V500000000", "object", "datetimetz", "float16",
    "string", "string[python]", "string[pyarrow]", "large_string[pyarrow]", "binary[pyarrow]",
    "large_binary[pyarrow]", "Int64", "Float64", "boolean", "int64[pyarrow]", "double[pyarrow]",
    "decimal256(70, 2)[pyarrow]", "month_day_nano_interval[pyarrow]", "category", "mixed",
    "timestamp[ns, tz=Europe/Paris][pyarrow]", "datetime64[ns, Europe/Paris]", "period[ns]",
    "interval[int64, right]", "Sparse[int64]", "datetime64[D]", "decimal", "bytes", "empty", "",
    "(" + "0," * 9000 + ")", "(" + "'', " * 63 + "'')", "a" * 20_000,
    None, True, 0, -1, 1 << 62, 1 << 70, 1.5, [], {}, ["a"] * 1000, [[]] * 9000, [{}] * 9000,
    {"timezone": "Europe/Paris"}, {"kind": "range", "start": 0, "stop": 500, "step": 1, "name": "a"},
]  # fmt: skip


def places(noted: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something is in the notes."""
    if path:
        yield path
    items: Any = ()
    if type(noted) is dict:
        items = noted.items()
    elif type(noted) is list:
        items = enumerate(noted[:5])
    for key, item in items:
        yield from places(item, (*path, key))


def container(noted: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        noted = noted[key]
    return noted


@st.composite
def tables_with_hostile_notes(draw: st.DrawFn) -> Message:
    """A table as pandas writes it, in whose notes something else stands, or the same many times."""
    arrow = draw(st.booleans())
    table = pa.Table.from_pandas(NOTED[draw(st.sampled_from(sorted(NOTED)))].copy(deep=False))
    notes = json.loads(table.schema.metadata[b"pandas"])
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(notes))))
        inside, key = container(notes, path), path[-1]
        if draw(st.booleans()):
            inside[key] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
        elif type(inside) is list:
            inside *= draw(st.sampled_from([2, 60]))
        elif type(inside[key]) is list:
            inside[key] = inside[key] * draw(st.sampled_from([0, 2, 60, 1000]))
        else:
            del inside[key]
    if draw(st.booleans()):
        label = draw(st.sampled_from([text for text in HOSTILE if type(text) is str]))
        names = [label, *table.column_names[1:]]
        if len(set(names)) == len(names):
            table = table.rename_columns(names)
    table = table.replace_schema_metadata({"pandas": json.dumps(notes)})
    if not arrow:
        return of_parquet(table, compression=draw(st.sampled_from(["none", "snappy"])))
    return of_arrow(table)


@pytest.mark.timeout(600)
@settings(max_examples=150, deadline=None)
@given(message=tables_with_hostile_notes())
def test_no_notes_about_a_table_take_more(decoding: Decoding, message: Message) -> None:
    result = decoding.result(*message)
    assert result == VALUE or result.startswith(REFUSED), result


@pytest.mark.timeout(600)
@settings(max_examples=150, deadline=None)
@given(message=messages())
def test_no_message_takes_more_than_64_times_its_size_and_1_mib(
    decoding: Decoding, message: Message
) -> None:
    result = decoding.result(*message)
    assert result == VALUE or result.startswith(REFUSED), result


HONEST: dict[str, Any] = {
    "many small dicts": [{"a": number, "b": "x"} for number in range(100_000)],
    "many pairs": [(number, 2) for number in range(50_000)],
    "many large integers": [2**70 + number for number in range(20_000)],
    "many texts": [str(number) for number in range(100_000)],
    "many numbers of gmpy2": [gmpy2.mpz(2) ** 80 + number for number in range(20_000)],
    "many small arrays": [np.arange(3) for _ in range(10_000)],
    "many sets of fields": [np.zeros(2, [("a", "<i4"), ("b", "<f8")]) for _ in range(1000)],
    "a frame of numbers": pd.DataFrame(np.random.default_rng(1).random((50_000, 4))),
    "a frame of few values": pd.DataFrame({str(n): np.arange(100_000) % 2 for n in range(8)}),
    "a frame of zeros": pd.DataFrame(np.zeros((200_000, 5))).rename(columns=str),
    "a frame of words": pd.DataFrame({"a": ["yes", "no", "maybe"] * 50_000, "b": range(150_000)}),
    "a frame of the same long text": pd.DataFrame({"a": ["x" * 1000] * 10_000}),
    "a wide frame": pd.DataFrame(np.zeros((2, 2000))).rename(columns=str),
    "a frame of texts": pd.DataFrame({"a": [f"line {n} " * 10 for n in range(20_000)]}),
    "a frame of categories": pd.DataFrame({"a": pd.Categorical(["a", "b"] * 50_000)}),
    "a frame of numbers of gmpy2": pd.DataFrame({"a": [gmpy2.mpz(n) for n in range(5000)]}),
    "a frame of times": pd.DataFrame(
        {"a": pd.date_range("2020", periods=50_000, freq="s", tz="Europe/Amsterdam")}
    ),
    "labels in levels": pd.DataFrame(
        [[1, 2]] * 1000,
        columns=pd.MultiIndex.from_tuples([("a", "x"), ("b", "y")]),
        index=pd.MultiIndex.from_product([range(100), range(10)]),
    ),
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("wire", [2, 4])
def test_what_our_own_senders_send_fits(decoding: Decoding, name: str, wire: int) -> None:
    """Parquet files that would grow too much are written in another form."""
    if wire == 2:
        document, buffers = second.encode(HONEST[name])
        found = decoding.result(2, document, [bytes(buffer) for buffer in buffers])
    else:
        encoded = compatible.encode_value(HONEST[name])
        document = encoded if isinstance(encoded, bytes) else b"".join(encoded)
        found = decoding.result(4, document)
    assert found == VALUE


def test_the_error_says_what_takes_the_memory() -> None:
    with pytest.raises(TooLarge, match="1000005 bytes arrived .* lists, dicts, .* at most 64 times"):
        compatible.decode_value(ormsgpack.packb([{}] * 1_000_000))


def test_deserializers_of_ones_own_pay_from_the_same_budget() -> None:
    import convelo.compat.tno.serialization as facade

    class Parcel:
        @staticmethod
        def serialize(**_: Any) -> Any: ...

        @staticmethod
        def deserialize(obj: Any, **kwargs: Any) -> Any:
            return facade.Serialization.deserialize(obj[0], **kwargs)

    facade.Serialization.register_class(Parcel, check_annotations=False)  # type: ignore[arg-type]
    try:
        inner = [wrapper("DataFrame", zeros(10_000_000))]
        with pytest.raises(BodyError) as caught:
            compatible.decode_value(ormsgpack.packb(wrapper("Parcel", inner)))
        assert isinstance(caught.value, TooLarge)
    finally:
        facade.Serialization.clear_serialization_logic()


def test_memory_that_is_free_again_can_be_used_again() -> None:
    budget = Budget(0)
    left = budget.left
    budget.pay(left, "everything")
    with pytest.raises(TooLarge):
        budget.pay(1, "more")
    budget.give_back(left)
    assert budget.left == left
