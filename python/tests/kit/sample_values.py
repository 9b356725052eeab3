"""Values of every type that is sent, and a description that two processes can compare.

Imported by our tests and, in their own interpreters, by the genuine packages: nothing is imported
here but the standard library, and what the value itself needs.
"""

from __future__ import annotations

import enum
import hashlib
import math
import types
from collections.abc import Callable
from typing import Any

LONG = 200
"""Texts and bytes above this length are described by their hash."""


class Colour(enum.Enum):
    """Arrives as its value."""

    RED = "red"
    NUMBER = 7


class Point:
    """A class with serialization logic that both API lines accept."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y

    def serialize(self, *_options: Any, **_keywords: Any) -> dict[str, Any]:
        return {"x": self.x, "y": self.y}

    @staticmethod
    def deserialize(obj: dict[str, Any], *_options: Any, **_keywords: Any) -> Point:
        return Point(obj["x"], obj["y"])


class Track:
    """Holds objects of another class."""

    def __init__(self, first: Point, last: Point) -> None:
        self.first, self.last = first, last

    def serialize(self, *_options: Any, **_keywords: Any) -> dict[str, Any]:
        return {"first": self.first, "last": self.last}

    @staticmethod
    def deserialize(obj: dict[str, Any], *_options: Any, **_keywords: Any) -> Track:
        return Track(obj["first"], obj["last"])


CLASSES = (Point, Track)

Factory = Callable[[], Any]


def _numpy() -> types.ModuleType:
    import numpy

    return numpy


def _frame() -> Any:
    import pandas

    return pandas.DataFrame(
        {"i": [1, 2, 3], "f": [0.5, -1.5, 2.5], "s": ["a", "b", ""], "b": [True, False, True]}
    )


def _mixed_frame() -> Any:
    import gmpy2
    import pandas

    return pandas.DataFrame({"z": [gmpy2.mpz(2) ** 80, gmpy2.mpz(5)], "t": ["x", "y"]})


def _numbered_columns() -> Any:
    import pandas

    return pandas.DataFrame([[1, 2.5], [3, 4.5]])


def _series(name: str | None) -> Any:
    import pandas

    return pandas.Series([1, 2, 3], name=name)


def _timestamp(text: str) -> Any:
    import pandas

    return pandas.Timestamp(text)


def _gmpy(kind: str, *arguments: Any) -> Any:
    import gmpy2

    return getattr(gmpy2, kind)(*arguments)


def _bits(bits: str, endian: str) -> Any:
    import bitarray

    return bitarray.bitarray(bits, endian=endian)


def _nested(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = [value]
    return value


PLAIN: dict[str, Factory] = {
    "str": lambda: "hello",
    "str_empty": lambda: "",
    "str_unicode": lambda: "\u00fc \u2603 \U0001f980 \x00",
    "str_long": lambda: "text " * 50_000,
    "bytes": lambda: b"\x00\x01\xff",
    "bytes_empty": lambda: b"",
    "bytes_5mb": lambda: bytes(range(256)) * 20_000,
    "int": lambda: 5,
    "int_negative": lambda: -33,
    "int_i64_min_and_u64_max": lambda: [-(2**63) + 1, 2**63, 2**64 - 1],
    "int_big": lambda: 2**64,
    "int_big_negative": lambda: -(2**127),
    "int_huge": lambda: 3**5000,
    "float": lambda: 1.5,
    "float_special": lambda: [math.inf, -math.inf, -0.0, 5e-324],
    "float_nan": lambda: math.nan,
    "bool": lambda: [True, False],
    "none": lambda: None,
    "none_inside": lambda: [None, {"a": None}],
    "enum": lambda: [Colour.RED, Colour.NUMBER],
    "list": lambda: [1, "two", [3.0, b"4"]],
    "list_empty": lambda: [],
    "list_long": lambda: list(range(10_000)),
    "list_deep": lambda: _nested(100),
    "tuple": lambda: (1, "two", (3.0,)),
    "tuple_empty": lambda: (),
    "dict": lambda: {"b": 1, "a": [2], "\u00fc": {"c": (3, 4)}},
    "dict_empty": lambda: {},
    "mixed": lambda: {"t": (2**70, [None, b"x"]), "l": [{"k": (-(2**65),)}]},
}

CUSTOM: dict[str, Factory] = {
    "class": lambda: Point(1, 2.5),
    "class_with_tuple": lambda: Point((1, 2), 2**80),
    "class_in_class": lambda: Track(Point(0, 0), Point(3, 4)),
    "class_in_list": lambda: [Point(1, 2), Point(3, 4)],
}

NUMPY: dict[str, Factory] = {
    "numpy_int64": lambda: _numpy().arange(5),
    "numpy_uint8": lambda: _numpy().arange(5, dtype="u1"),
    "numpy_float64": lambda: _numpy().linspace(0, 1, 5),
    "numpy_float32": lambda: _numpy().linspace(0, 1, 5, dtype="f4"),
    "numpy_bool": lambda: _numpy().array([True, False]),
    "numpy_matrix": lambda: _numpy().arange(6.0).reshape(2, 3),
    "numpy_strided": lambda: _numpy().arange(10)[::2],
    "numpy_fortran": lambda: _numpy().asfortranarray(_numpy().arange(6).reshape(2, 3)),
    "numpy_scalar_array": lambda: _numpy().array(7),
    "numpy_text": lambda: _numpy().array(["a", "bc"]),
    "numpy_object": lambda: _numpy().array([1, 2**70, "x"], dtype=object),
    "numpy_empty": lambda: _numpy().zeros((0, 3)),
    "numpy_large": lambda: _numpy().arange(50_000, dtype="f8"),
    "numpy_scalars": lambda: [_numpy().int64(5), _numpy().float64(0.5), _numpy().bool_(True)],
    "numpy_in_dict": lambda: {"a": _numpy().arange(3), "t": (_numpy().arange(2),)},
}

PANDAS: dict[str, Factory] = {
    "frame": _frame,
    "frame_of_big_numbers": _mixed_frame,
    "frame_numbered_columns": _numbered_columns,
    "series": lambda: _series("column"),
    "series_unnamed": lambda: _series(None),
    "frame_in_list": lambda: [_frame(), 1],
}

GMPY: dict[str, Factory] = {
    "mpz": lambda: _gmpy("mpz", 2**200 + 1),
    "mpz_zero": lambda: _gmpy("mpz", 0),
    "mpz_negative": lambda: _gmpy("mpz", -(3**90)),
    "xmpz": lambda: _gmpy("xmpz", 12345),
    "mpq": lambda: _gmpy("mpq", 22, 7),
    "mpfr": lambda: _gmpy("mpfr", "1.25"),
    "mpc": lambda: _gmpy("mpc", "1.5+2.5j"),
    "mpz_in_list": lambda: [_gmpy("mpz", i) for i in range(50)],
}

BITARRAY: dict[str, Factory] = {
    "bitarray_big": lambda: _bits("1011001", "big"),
    "bitarray_little": lambda: _bits("10110011101", "little"),
    "bitarray_empty": lambda: _bits("", "big"),
}

NEW: dict[str, Factory] = {
    "timestamp": lambda: _timestamp("2024-02-29T12:34:56.789"),
    "timestamp_zone": lambda: _timestamp("2024-02-29T12:34:56+02:00"),
}
"""From 4.12 on."""

VALUES: dict[str, Factory] = PLAIN | CUSTOM | NUMPY | PANDAS | GMPY | BITARRAY | NEW


def names(version: str) -> list[str]:
    """The values that a version of the genuine package can send."""
    return [name for name in VALUES if not (name in NEW and version == "4.8.1")]


def describe(value: Any) -> Any:
    """What a value is, in JSON; the same in both processes iff it is the same value."""
    kind = type(value).__name__
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return ["enum", kind, value.name]
    module = type(value).__module__.partition(".")[0]
    if module in _DESCRIBERS:
        return _DESCRIBERS[module](kind, value)
    if isinstance(value, int):
        return [kind, hex(value)]
    if isinstance(value, float):
        return [kind, value.hex()]
    if isinstance(value, str):
        return [kind, _shortened(value.encode("utf-8", "surrogatepass"), value)]
    if isinstance(value, (bytes, bytearray)):
        return [kind, _shortened(bytes(value), value.hex())]
    if isinstance(value, (list, tuple)):
        return _described_list(kind, value)
    if isinstance(value, dict):
        return [kind, [[describe(key), describe(inner)] for key, inner in value.items()]]
    if isinstance(value, Point):
        return [kind, describe(value.x), describe(value.y)]
    if isinstance(value, Track):
        return [kind, describe(value.first), describe(value.last)]
    return ["unexpected", kind, repr(value)[:LONG]]


def _described_list(kind: str, value: Any) -> Any:
    # Depth is reached without recursion, so that the describer is not what limits it.
    depth = 0
    while type(value) is list and len(value) == 1 and type(value[0]) is list:
        value = value[0]
        depth += 1
    items = [describe(item) for item in value]
    text = repr(items)
    if len(text) > 20_000:
        items = [hashlib.sha256(text.encode()).hexdigest()]
    return [kind, len(value), items] + ([{"depth": depth}] if depth else [])


def _shortened(data: bytes, shown: str) -> Any:
    if len(data) <= LONG:
        return shown
    return [len(data), hashlib.sha256(data).hexdigest()]


def _describe_numpy(kind: str, value: Any) -> Any:
    if kind == "ndarray":
        return [kind, value.dtype.str, list(value.shape), describe(value.tolist())]
    return ["numpy scalar", value.dtype.str, describe(value.item())]


def _describe_pandas(kind: str, value: Any) -> Any:
    if kind == "DataFrame":
        columns = [_describe_column(value.iloc[:, i]) for i in range(value.shape[1])]
        return [kind, [describe(name) for name in value.columns.tolist()], columns]
    if kind == "Series":
        return [kind, describe(value.name), _describe_column(value)]
    # The unit (ns or us) differs between versions of pandas.
    return [kind, value.isoformat(), str(value.tz)]


def _describe_column(column: Any) -> Any:
    # Texts are of dtype object, string or str, as the version of pandas likes it.
    kind = column.dtype.kind if hasattr(column.dtype, "kind") else "O"
    return ["O" if kind not in "iufb" else kind, [describe(item) for item in column.tolist()]]


def _describe_gmpy(kind: str, value: Any) -> Any:
    return [kind, repr(value)]


def _describe_bits(kind: str, value: Any) -> Any:
    endian = value.endian
    return [kind, endian() if callable(endian) else endian, value.to01()]


_DESCRIBERS: dict[str, Callable[[str, Any], Any]] = {
    "numpy": _describe_numpy,
    "pandas": _describe_pandas,
    "gmpy2": _describe_gmpy,
    "bitarray": _describe_bits,
}
