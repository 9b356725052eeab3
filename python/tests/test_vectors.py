"""Every body that the genuine package wrote is what we write, and reads as it reads there."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import bitarray
import gmpy2
import numpy as np
import ormsgpack
import pandas as pd
import pytest

import convelo.compat.tno.serialization as four
import convelo.compat.tno5.packers.serialization as five
from convelo.compat.tno5.packers import DefaultPacker, DeserializerOpts, SerializerOpts
from convelo.exceptions import AmbiguousDict, BodyError
from convelo.wire import compatible
from convelo.wire.state import State

VECTORS = Path(__file__).parents[2] / "vectors" / "pool" / "tno_wire.json"

FOREIGN_ORDER = b"\x92\x01\x02"
"""np.array([1, 2], '>i4'), which the genuine package writes as 16777216 and 33554432."""


class Plain(enum.Enum):
    A = 1
    B = "two"
    C = (1, 2)


class IE(enum.IntEnum):
    X = 5


class FL(enum.Flag):
    R = 1
    W = 2


class SE(enum.StrEnum):
    K = "kay"


@dataclasses.dataclass
class DC:
    a: int
    b: str


class NT(NamedTuple):
    p: int
    q: int


class Unreg:
    pass


class IntSub(int):
    pass


class StrSub(str):
    pass


class ListSub(list):  # type: ignore[type-arg]
    pass


class DictSub(dict):  # type: ignore[type-arg]
    pass


class _Custom:
    """A class registered with both APIs, whose functions are called differently."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.parts == other.parts

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.parts))})"


class Point(_Custom):
    def serialize(self, *_: Any, **__: Any) -> dict[str, Any]:
        return dict(zip("xy", self.parts, strict=True))

    @staticmethod
    def deserialize(obj: dict[str, Any], *_: Any, **__: Any) -> Point:
        return Point(obj["x"], obj["y"])


class Seg(_Custom):
    def serialize(self, *_: Any, **__: Any) -> dict[str, Any]:
        return dict(zip("ab", self.parts, strict=True))

    @staticmethod
    def deserialize(obj: dict[str, Any], *_: Any, **__: Any) -> Seg:
        return Seg(obj["a"], obj["b"])


class Blob(_Custom):
    def serialize(self, *_: Any, **__: Any) -> bytes:
        data: bytes = self.parts[0]
        return data

    @staticmethod
    def deserialize(obj: bytes, *_: Any, **__: Any) -> Blob:
        return Blob(obj)


class LSt(_Custom):
    def serialize(self, *_: Any, **__: Any) -> list[Any]:
        return list(self.parts[0])

    @staticmethod
    def deserialize(obj: list[Any], *_: Any, **__: Any) -> LSt:
        return LSt(obj)


CUSTOM = (Point, Seg, Blob, LSt)


def deep(levels: int, around: Callable[[Any], Any]) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = around(value)
    return value


def _read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


GIVEN: dict[str, Any] = {
    "str_255": "b" * 255,
    "str_256": "b" * 256,
    "str_70000": "c" * 70000,
    "bytes_255": bytes(range(255)),
    "bytes_256": bytes(256),
    "bytes_70000": b"z" * 70000,
    "memoryview": memoryview(b"abc"),
    "int_2p2048": 2**2048,
    "int_2p2048m1": 2**2048 - 1,
    "int_m2p2048": -(2**2048),
    "int_m2p2048p1": -(2**2048) + 1,
    "list_65536": [0] * 65536,
    "deep_list_100": deep(100, lambda inner: [inner]),
    "deep_list_1000": deep(1000, lambda inner: [inner]),
    "deep_list_1100": deep(1100, lambda inner: [inner]),
    "deep_tuple_100": deep(100, lambda inner: (inner,)),
    "deep_tuple_300": deep(300, lambda inner: (inner,)),
    "dict_strsub_key": {StrSub("k"): 1},
    "enum_int": Plain.A,
    "enum_str": Plain.B,
    "enum_tuple": Plain.C,
    "intenum": IE.X,
    "flag": FL.R,
    "flag_combo": FL.R | FL.W,
    "strenum": SE.K,
    "list_enum": [Plain.A, IE.X],
    "np_1d_longdouble": np.array([1.5], dtype=np.longdouble),
    "np_empty_0x3": np.empty((0, 3)),
    "np_empty_3x0": np.empty((3, 0)),
    "np_empty_obj_0x3": np.empty((0, 3), dtype=object),
    "np_noncontig": np.arange(6)[::2],
    "np_fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "np_transposed": np.arange(6).reshape(2, 3).T,
    "np_masked": np.ma.MaskedArray([1, 2], mask=[False, True]),
    "np_readonly": _read_only(np.array([1, 2], dtype=np.int16)),
    "pd_df": pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=["r", "s"]),
    "pd_df_empty": pd.DataFrame(),
    "pd_df_bigint": pd.DataFrame({"a": [2**128]}),
    "pd_df_mpz": pd.DataFrame({"a": [gmpy2.mpz(1)]}),
    "pd_df_intcols": pd.DataFrame({0: [1, 3], 1: [2, 4]}),
    "pd_series": pd.Series([1, 2, 3], index=["a", "b", "c"]),
    "pd_series_named": pd.Series([1.5], name="s"),
    "pd_timestamp": pd.Timestamp("2020-01-01 12:00:00"),
    "pd_timedelta": pd.Timedelta("1 days"),
    "pd_index": pd.Index([1, 2]),
    "pd_NA": pd.NA,
    "pd_categorical": pd.Series(["a", "b"], dtype="category"),
    "mpz_2p2048": gmpy2.mpz(2**2048),
    "mpfr_42_1231": gmpy2.mpfr(42.1231),
    "bitarray_little": bitarray.bitarray("10101110", endian="little"),
    "unregistered": Unreg(),
    "intsub": IntSub(3),
    "intsub_big": IntSub(2**70),
    "strsub": StrSub("s"),
    "listsub": ListSub([1]),
    "dictsub": DictSub(a=1),
    "defaultdict": collections.defaultdict(int, a=1),
    "type_obj": int,
    "generator": (item for item in [1]),
    "ormsgpack_ext": ormsgpack.Ext(5, b"ab"),
}

NAMES = {
    **{name: getattr(np, name) for name in ("array", "matrix", "float16", "float32", "float64")},
    **{name: getattr(np, name) for name in ("int8", "int16", "int32", "int64")},
    **{name: getattr(np, name) for name in ("uint8", "uint16", "uint32", "uint64")},
    **{name: getattr(gmpy2, name) for name in ("mpz", "xmpz", "mpq", "mpfr", "mpc")},
    **{made.__name__: made for made in (*CUSTOM, DC, NT)},
    "np": np,
    "nan": math.nan,
    "inf": math.inf,
    "bitarray": bitarray.bitarray,
    "frozenbitarray": bitarray.frozenbitarray,
    "datetime": datetime,
    "Decimal": decimal.Decimal,
    "UUID": uuid.UUID,
    "OrderedDict": collections.OrderedDict,
    "deque": collections.deque,
}


def entries() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(VECTORS.read_text(encoding="utf-8"))["entries"]
    return loaded


ENTRIES = entries()


def value_of(entry: dict[str, Any]) -> Any:
    """The object that was packed."""
    if entry["name"] in GIVEN:
        return GIVEN[entry["name"]]
    return eval(entry["python_repr"], dict(NAMES))


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    for face in (four.Serialization, five.Serializer):
        for made in CUSTOM:
            face.register_class(made, check_annotations=False)
    yield
    four.Serialization.clear_serialization_logic()
    five.Serializer.clear_serialization_logic()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def pack(entry: dict[str, Any], value: Any) -> bytes:
    option = entry.get("pack_option", four.DEFAULT_PACK_OPTION)
    pickle = bool(entry.get("pickle"))
    if entry["version"] == "4.8.1":
        return four.Serialization.pack(value, entry["msg_id"], pickle, option=option)
    return DefaultPacker(SerializerOpts(pickle, option)).pack(value, entry["msg_id"])


def unpack(entry: dict[str, Any], body: bytes) -> tuple[Any, Any]:
    option = entry.get("unpack_option")
    pickle = bool(entry.get("pickle"))
    if entry["version"] == "4.8.1":
        return four.Serialization.unpack(body, pickle, option=option)
    return DefaultPacker(deserializer_opts=DeserializerOpts(pickle, option)).unpack(body)


def _named(entry: dict[str, Any]) -> str:
    return f"{entry['version']}-{entry['name']}"


def newer_plugin(entry: dict[str, Any]) -> bool:
    """4.12.0 sends timestamps, which 4.8.1 could not; the 4.x face does as 4.12.0 does."""
    return _named(entry) == "4.8.1-pd_timestamp"


@pytest.mark.parametrize("entry", ENTRIES, ids=_named)
def test_packed_as_the_genuine_package_packs(entry: dict[str, Any]) -> None:
    value = value_of(entry)
    if entry["compare"] == "error" and not newer_plugin(entry):
        with pytest.raises(TypeError) as caught:
            pack(entry, value)
        assert type(caught.value).__name__ == entry["pack_error"]["type"]
        start = " ".join(entry["pack_error"]["message"].split()[:3])
        assert str(caught.value).startswith(start)
        return
    body = pack(entry, value)
    if entry["name"] == "np_bigendian":
        assert FOREIGN_ORDER in body
    elif newer_plugin(entry):
        assert b"\xa9Timestamp\xa4data\xb32020-01-01T12:00:00" in body
    elif entry["compare"] == "bytes":
        assert body.hex() == entry["packed_hex"]
    else:
        assert _comparable(unpack(entry, body)) == _comparable(
            unpack(entry, bytes.fromhex(entry["packed_hex"]))
        )


def _comparable(unpacked: tuple[Any, Any]) -> tuple[Any, str, str]:
    msg_id, value = unpacked
    details = ""
    if isinstance(value, pd.DataFrame):
        details = f"{list(value.index)} {[type(item) for item in value.to_numpy().flat]}"
    return msg_id, type(value).__name__, f"{value!r} {details}"


BODIES = [
    pytest.param(entry, entry[field], id=f"{_named(entry)}-{field}")
    for entry in ENTRIES
    for field in ("packed_hex", "packed_hex_old_stack")
    if entry.get(field)
]


@pytest.mark.parametrize(("entry", "packed"), BODIES)
def test_unpacked_as_the_genuine_package_unpacks(entry: dict[str, Any], packed: str) -> None:
    body = bytes.fromhex(packed)
    if "unpack_error" in entry:
        with pytest.raises((NotImplementedError, ValueError)) as caught:
            unpack(entry, body)
        expected = {"NotImplementedError": NotImplementedError, "ValueError": ValueError}
        assert isinstance(caught.value, expected[entry["unpack_error"]["type"]])
        return
    msg_id, value = unpack(entry, body)
    assert msg_id == entry["msg_id"]
    assert type(msg_id).__name__ == entry["unpacked_id_type"]
    assert type(value).__name__ == entry["unpacked_type"].rpartition(".")[2] or (
        packed == entry.get("packed_hex_old_stack")
    )
    wanted = entry["unpacked_repr"]
    if packed == entry.get("packed_hex_old_stack"):
        wanted = entry.get("unpacked_repr_old_stack", wanted)
    found = repr(value)
    if len(found) > 400:
        assert found[:200] == wanted[:200]
    elif entry["name"] == "pd_categorical":
        # pandas 2 and 3 have different types for the categories.
        assert list(value) == ["a", "b"]
    else:
        assert found == wanted


LOOKALIKES = [entry for entry in ENTRIES if entry["name"].startswith("dict_lookalike")]
STATES: dict[str, tuple[int, State]] = {"4.8.1": (4, four.STATE), "5.0.4": (5, five.STATE)}


# Other tests say what we write where the genuine package's bytes would do harm.
SAME_TO_PEERS = [
    entry
    for entry in ENTRIES
    if entry["compare"] == "bytes"
    and entry not in LOOKALIKES
    and entry["name"] != "np_bigendian"
]


@pytest.mark.parametrize("entry", SAME_TO_PEERS, ids=_named)
def test_values_for_the_transport_are_those_in_the_bodies(entry: dict[str, Any]) -> None:
    wire, state = STATES[entry["version"]]
    option = entry.get("pack_option", four.DEFAULT_PACK_OPTION)
    encoded = compatible.encode_value(value_of(entry), wire=wire, state=state, option=option)
    value = encoded if isinstance(encoded, bytes) else b"".join(encoded)
    body = bytes.fromhex(entry["packed_hex"])
    inner = ormsgpack.unpackb(body, option=2)["object"] if wire == 5 else None
    if wire == 5:
        assert value == inner
    else:
        assert body[8 : 8 + len(value)] == value
    if "unpack_error" in entry:
        with pytest.raises(BodyError):
            compatible.decode_value(value, wire=wire, state=state)
        return
    decoded = compatible.decode_value(
        memoryview(value), wire=wire, state=state, option=entry.get("unpack_option")
    )
    assert repr(decoded)[:200] == entry["unpacked_repr"][:200]


@pytest.mark.parametrize("entry", LOOKALIKES, ids=_named)
def test_row_26_a_dict_that_looks_like_a_wrapper_is_refused_at_send(entry: dict[str, Any]) -> None:
    wire, state = STATES[entry["version"]]
    with pytest.raises(AmbiguousDict, match=r"message\[1\]\['inner'\]"):
        compatible.encode_value([(1,), {"inner": value_of(entry)}], wire=wire, state=state)
