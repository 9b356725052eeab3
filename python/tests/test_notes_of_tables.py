"""What pandas notes about a table that it wrote itself is read as pandas reads it."""

from __future__ import annotations

import datetime
import decimal
import io
import warnings
from typing import Any

import numpy as np
import ormsgpack
import pandas as pd
import pyarrow as pa
import pytest

from convelo.exceptions import BodyError
from convelo.wire import compatible, second
from convelo.wire.plugins import arrow

NUMBERS = [
    "bool", "int8", "uint32", "int64", "float16", "float32", "float64", "Int8", "UInt64", "Float32",
    "Float64", "boolean", "int8[pyarrow]", "uint64[pyarrow]", "float[pyarrow]", "double[pyarrow]",
    "bool[pyarrow]",
]  # fmt: skip
TEXTS = ["object", "string", "string[python]", "string[pyarrow]", "large_string[pyarrow]", "category"]
TIMES = [
    "datetime64[ns]", "datetime64[s]", "datetime64[ns, UTC]", "datetime64[us, Europe/Amsterdam]",
    "datetime64[ns, +02:00]", "timestamp[s][pyarrow]", "timestamp[ns, tz=UTC][pyarrow]",
    "timestamp[us, tz=Europe/Amsterdam][pyarrow]",
]  # fmt: skip
LENGTHS = ["timedelta64[ns]", "timedelta64[s]", "duration[s][pyarrow]", "duration[ns][pyarrow]"]
DATES = ["date32[day][pyarrow]", "date64[ms][pyarrow]"]

ARRAYS: dict[str, Any] = {
    **{kind: pd.array([1, 0], dtype=kind) for kind in NUMBERS},
    **{kind: pd.array(["a", "b"], dtype=kind) for kind in TEXTS},
    **{
        kind: pd.Series(pd.to_datetime(["2020", "2021"], utc="," in kind)).astype(kind).array
        for kind in TIMES
    },
    **{kind: pd.array(pd.to_timedelta([1, 2], "s"), dtype=kind) for kind in LENGTHS},
    **{kind: pd.array([datetime.date(2020, 1, 1)] * 2, dtype=kind) for kind in DATES},
    "time64": pd.array([datetime.time(1, 2, 3)] * 2, dtype="time64[ns][pyarrow]"),
    "binary": pd.array([b"a", None], dtype="binary[pyarrow]"),
    "null": pd.array([None, None], dtype="null[pyarrow]"),
    "days": pd.period_range("2020", periods=2, freq="D").array,
    "quarters": pd.period_range("2020", periods=2, freq="Q-DEC").array,
    "intervals": pd.interval_range(0, 2).array,
    "intervals of times": pd.interval_range(pd.Timestamp("2020"), periods=2, closed="both").array,
    "decimals": [decimal.Decimal("1.5"), None],
    "bytes": [b"a", None],
}
LABELS: list[Any] = [
    pd.Index([1, 2]), pd.Index([1.5, 2]), pd.Index([True, False]), pd.Index([b"a", b"b"]),
    pd.Index(["a", None]), pd.RangeIndex(2, name="n"), pd.Index(["a", "b"], dtype="string"),
    pd.Index([1, 2], dtype="Int64"), pd.Index([1, 2], dtype="int64[pyarrow]"),
    pd.date_range("2020", periods=2), pd.date_range("2020", periods=2, tz="Europe/Amsterdam"),
    pd.timedelta_range("1h", periods=2), pd.Index([decimal.Decimal("1.5"), decimal.Decimal(2)]),
    pd.MultiIndex.from_tuples([("a", 1), ("it's \"q\"\n\\", 2)]),
    pd.MultiIndex.from_tuples([("\xe9\u202e", None), ("\U0001f980", "c")], names=["x", None]),
    pd.MultiIndex.from_tuples([("a", pd.Timestamp("2020")), ("b", pd.Timestamp("2021"))]),
]  # fmt: skip
INDEXES: list[Any] = [
    pd.Index([5, 6], name="i"), pd.Index([5, 6], name="a"), pd.RangeIndex(5, 1, -2),
    pd.MultiIndex.from_product([["a"], [1, 2]], names=["x", "x"]),
    pd.MultiIndex.from_product([pd.date_range("2020", periods=2), ["a"]]),
    pd.date_range("2020", periods=2, tz="UTC", name="when"), pd.CategoricalIndex(["a", "b"]),
    pd.period_range("2020", periods=2, freq="M"), pd.interval_range(0, 2),
    pd.Index(["a", "b"], dtype="string"),
]  # fmt: skip
FRAMES: dict[str, pd.DataFrame] = {
    **{f"column of {name}": pd.DataFrame({"a": array}) for name, array in ARRAYS.items()},
    **{
        f"labels {number}": pd.DataFrame([[1, 2], [3, 4]], columns=labels)
        for number, labels in enumerate(LABELS)
    },
    **{
        f"index {number}": pd.DataFrame({"a": [1, 2]}, index=index)
        for number, index in enumerate(INDEXES)
    },
    "no columns": pd.DataFrame(index=pd.RangeIndex(3)),
    "no rows": pd.DataFrame({"a": np.array([], "i8")}),
}


def decoded(content: bytes) -> Any:
    return compatible.decode_value(ormsgpack.packb({"type": "DataFrame", "data": content}))


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.filterwarnings("ignore")
def test_a_file_of_a_genuine_peer_is_read_as_pandas_reads_it(name: str) -> None:
    sink = io.BytesIO()
    try:
        FRAMES[name].to_parquet(sink)
        expected = pd.read_parquet(io.BytesIO(sink.getvalue()))
    except Exception:
        pytest.skip("pandas does not write it, or does not read it")
    pd.testing.assert_frame_equal(decoded(sink.getvalue()), expected, check_freq=False)


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.filterwarnings("ignore")
def test_a_stream_is_read_as_pandas_reads_it(name: str) -> None:
    frame = FRAMES[name].copy(deep=False)
    frame.columns = [str(position) for position in range(frame.shape[1])]
    frame.index.names = [None] * frame.index.nlevels
    try:
        expected = pa.Table.from_pandas(frame).to_pandas()
        stream, left_out = arrow.write(frame)
    except Exception:
        pytest.skip("Arrow does not hold it")
    kept = expected.drop(columns=[str(position) for position, _ in left_out])
    pd.testing.assert_frame_equal(arrow.read(stream), kept, check_freq=False)


def test_attributes_arrive() -> None:
    frame = pd.DataFrame({"a": [1], "b": [{"c": 1}]})
    frame.attrs = {"source": ["x"]}
    sink = io.BytesIO()
    frame.to_parquet(sink)
    assert decoded(sink.getvalue()).attrs == frame.attrs
    if b'"attributes"' not in pa.Table.from_pandas(frame).schema.metadata[b"pandas"]:
        return  # as in older versions of pyarrow
    assert second.decode(*second.encode(frame)).attrs == frame.attrs
    assert second.decode(*second.encode(frame["a"])).attrs == frame.attrs


def test_labels_of_many_levels() -> None:
    def labelled(levels: int) -> pd.DataFrame:
        return pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a",) * levels]))

    arrived = second.decode(*second.encode(labelled(64)))
    assert arrived.columns.nlevels == 64
    with pytest.raises(BodyError, match="65 levels, expected at most 64"):
        second.decode(*second.encode(labelled(65)))


def test_many_columns_that_arrow_leaves_out() -> None:
    frame = pd.DataFrame({str(n): [[n], "x"] if n % 2 else [n, n + 1] for n in range(300)})
    arrived = second.decode(*second.encode(frame))
    pd.testing.assert_frame_equal(arrived, frame)


def test_many_columns_of_categories() -> None:
    frame = pd.DataFrame({str(n): pd.Categorical(["a", "b"] * 1000) for n in range(100)})
    arrived = second.decode(*second.encode(frame))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arrived.iloc[0, 1] = "b"
    assert arrived.iloc[:, 99].tolist() == ["a", "b"] * 1000
