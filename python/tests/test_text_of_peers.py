"""Errors about what a peer sent show its words as plain characters, on one line."""

from __future__ import annotations

import io
import json
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import ormsgpack
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convelo import register_extras
from convelo._untrusted import LONGEST, shown
from convelo.exceptions import BodyError
from convelo.wire import compatible, second
from convelo.wire.state import default_state

EVIL = "\x1b[2K\x1b[32mverified\u202e\n2026 INFO \u05d0\u0301all\u200b is well"


@pytest.fixture(scope="module", autouse=True)
def extras() -> Iterator[None]:
    """The types that only some register, for as long as these tests run."""
    state = default_state()
    tables = (state.serializers(), state.deserializers())
    before = [dict(table) for table in tables]
    register_extras()
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


def typed(code: int, payload: Any) -> ormsgpack.Ext:
    return ormsgpack.Ext(code, ormsgpack.packb(payload))


def wrapped(kind: str, data: Any) -> Callable[[], Any]:
    return lambda: compatible.decode_value(ormsgpack.packb({"type": kind, "data": data}))


def of_second(code: int, payload: Any, *buffers: bytes) -> Callable[[], Any]:
    return lambda: second.decode(ormsgpack.packb(typed(code, payload)), list(buffers))


def stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def file(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def in_frame(labels: Any, names: Any = None) -> Callable[[], Any]:
    return of_second(4, ["DataFrame", 0, labels, names, []], stream(pa.table({"0": [1]})))


def noted(table: pa.Table, **notes: Any) -> Iterator[Callable[[], Any]]:
    whole = {"index_columns": [], "column_indexes": [], "columns": [], **notes}
    table = table.replace_schema_metadata({"pandas": json.dumps(whole)})
    yield of_second(4, ["DataFrame", 0, ["a"], None, []], stream(table))
    yield wrapped("DataFrame", file(table))


def column(pandas_type: str, numpy_type: str, name: str | None = "0", **more: Any) -> Any:
    described = {"name": name, "pandas_type": pandas_type, "numpy_type": numpy_type}
    return {"metadata": None, **described, **more}


numbers = pa.table({"0": [1]})
texts = pa.table({"0": [EVIL]})
evil_label = pa.table({EVIL: [1]})


def level(*kinds: str) -> list[Any]:
    return [column(kind, "object", None) for kind in kinds]


REFUSED: dict[str, Callable[[], Any] | Iterator[Callable[[], Any]]] = {
    "type": wrapped(EVIL, 1),
    "type, second wire": of_second(1, [EVIL, 1]),
    "timestamp": wrapped("Timestamp", EVIL),
    "timestamp, second wire": of_second(1, ["Timestamp.iso", EVIL]),
    "zone": of_second(1, ["Timestamp", [0, "ns", EVIL]]),
    "dtype": of_second(2, [EVIL, [1], "C", b"x"]),
    "field of a dtype": of_second(
        1,
        ["ndarray.structured", [
            {"names": [EVIL], "formats": ["<i4"], "offsets": [0], "itemsize": 4, "aligned": False},
            [2], bytes(4)]],
    ),
    "decimal": wrapped("Decimal", EVIL),
    "complex": wrapped("complex", [EVIL, EVIL]),
    "number": wrapped("mpz", EVIL),
    "integer": wrapped("int", EVIL),
    "rows of a frame": wrapped("DataFrame", {"index": [0], "columns": [EVIL] * 2, "data": [[1]]}),
    "kind of a frame": of_second(4, [EVIL, 0, ["a"], None, []], stream(numbers)),
    "number as label": in_frame({"values": [EVIL], "dtype": "int64", "names": [None]}),
    "dtype of labels": in_frame({"values": ["a"], "dtype": "int77", "names": [EVIL]}),
    "names of rows": in_frame(["a"], [EVIL, EVIL]),
    "attributes": wrapped(
        "DataFrame", file(numbers.replace_schema_metadata({"PANDAS_ATTRS": EVIL}))
    ),
    "labels of one name": wrapped("DataFrame", file(pa.table([[1], [2]], names=[EVIL, EVIL]))),
    "zone of a column": noted(pa.table({"0": pa.array([1], pa.timestamp("s", EVIL))})),
    "noted type": noted(numbers, columns=[column("int64", EVIL)]),
    "noted type of Arrow": noted(texts, columns=[column("int64", "int64[pyarrow]")]),
    "noted time of Arrow": noted(texts, columns=[column("int64", "timestamp[ns][pyarrow]")]),
    "noted number": noted(texts, columns=[column("int64", "Int64")]),
    "noted zone": noted(
        numbers, columns=[column("datetimetz", "object", metadata={"timezone": EVIL})]
    ),
    "noted name": noted(numbers, columns=[column("int64", "int64", EVIL)]),
    "noted index": noted(numbers, index_columns=[EVIL]),
    "noted kind of index": noted(numbers, index_columns=[{"kind": EVIL}]),
    "time as label": noted(evil_label, column_indexes=level("datetime")),
    "number as label of a table": noted(evil_label, column_indexes=level("decimal")),
    "type of labels": noted(evil_label, column_indexes=level(EVIL)),
    "label in levels": noted(evil_label, column_indexes=level("unicode", "unicode")),
}  # fmt: skip


def texts_of(error: BaseException | None) -> Iterator[str]:
    """What a traceback prints of an error and of what led to it."""
    while error is not None:
        yield from traceback.format_exception_only(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def is_shown_safely(text: str) -> bool:
    return shown(text) == text


def refuse(decode: Callable[[], Any]) -> None:
    with pytest.raises(BodyError) as caught:
        decode()
    assert is_shown_safely(str(caught.value)), ascii(str(caught.value))
    for text in texts_of(caught.value):
        assert is_shown_safely(text.replace("\n", "")[:LONGEST]), ascii(text)


@pytest.mark.parametrize("what", [name for name, one in REFUSED.items() if callable(one)])
def test_escape_sequences_in_what_is_refused(what: str) -> None:
    decode: Any = REFUSED[what]
    refuse(decode)


@pytest.mark.parametrize("what", [name for name, one in REFUSED.items() if not callable(one)])
def test_escape_sequences_in_a_table_that_is_refused(what: str) -> None:
    both: Any = REFUSED[what]
    found = 0
    for decode in both:
        try:
            decode()
        except BodyError:
            refuse(decode)
            found += 1
    assert found


def test_escape_sequences_in_the_error_of_a_registered_deserializer() -> None:
    import convelo.compat.tno.serialization as facade

    class Parcel:
        @staticmethod
        def serialize(**_: Any) -> Any: ...

        @staticmethod
        def deserialize(obj: Any, **_: Any) -> Any:
            raise ValueError(f"not a parcel: {obj}")

    facade.Serialization.register_class(Parcel, check_annotations=False)  # type: ignore[arg-type]
    try:
        refuse(wrapped("Parcel", EVIL))
        with pytest.raises(BodyError) as caught:
            wrapped("Parcel", "plain")()
        assert str(caught.value.__cause__) == "not a parcel: plain"
    finally:
        facade.Serialization.clear_serialization_logic()


def test_what_is_shown() -> None:
    assert shown("a\x1b[2K\n") == r"a\u{1b}[2K\u{a}"
    assert shown("\u202e\u05d0e\u0301\u200b\u3164\ud800") == (
        r"\u{202e}\u{5d0}e\u{301}\u{200b}\u{3164}\u{d800}"
    )
    for text in ("", "'bob' gave up", "Université de Liège", "Ελλάδα 日本 €"):
        assert shown(text) == text
    assert len(shown("x" * 100_000)) == LONGEST + 1


@given(st.text())
def test_only_plain_characters_are_shown(text: str) -> None:
    assert is_shown_safely(shown(text))
    assert shown(text).isprintable()


SAMPLES = [
    [1, "text", (2, 3), 2**70],
    np.arange(3),
    np.zeros(2, [("a", "<i4"), ("b", "<f8")]),
    pd.Timestamp("2020-01-01", tz="Europe/Amsterdam"),
    pd.DataFrame({"a": ["x", None], "b": pd.Categorical(["y", "z"])}),
    pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("b", "y")])),
]
EVIL_BYTES = EVIL.encode()


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SAMPLES),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 12)), min_size=1, max_size=3),
)
def test_escape_sequences_anywhere(
    value: Any, newer: bool, places: list[tuple[int, int]]
) -> None:
    """Written over parts of a message."""
    if newer:
        document, found = second.encode(value)
        parts = [bytearray(document), *(bytearray(part) for part in found)]
    else:
        encoded = compatible.encode_value(value)
        parts = [bytearray(encoded if isinstance(encoded, bytes) else b"".join(encoded))]
    for place, length in places:
        part = parts[place % len(parts)]
        start = (place // len(parts)) % max(1, len(part))
        part[start : start + length] = EVIL_BYTES[:length]
    try:
        if newer:
            second.decode(bytes(parts[0]), [bytes(part) for part in parts[1:]])
        else:
            compatible.decode_value(bytes(parts[0]))
    except BodyError as error:
        for text in texts_of(error):
            assert is_shown_safely(text.replace("\n", "")[:LONGEST]), ascii(text)
