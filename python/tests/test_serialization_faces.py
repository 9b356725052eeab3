"""The two APIs over one implementation: names, checks, options, keywords, errors."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import gmpy2
import numpy as np
import ormsgpack
import pandas as pd
import pytest

import convelo.compat.tno.serialization as four
import convelo.compat.tno5.packers.serialization as five
from convelo.compat.tno import serializer_plugins
from convelo.compat.tno.exceptions import AnnotationError, RepetitionError
from convelo.compat.tno.serializer_plugins import gmpy as gmpy_plugin
from convelo.compat.tno.serializer_plugins import numpy as numpy_plugin
from convelo.compat.tno.serializer_plugins import pandas as pandas_plugin
from convelo.compat.tno.serializer_plugins import tuple as tuple_plugin
from convelo.compat.tno5.exceptions import NumpySerializationWarning
from convelo.compat.tno5.packers import DefaultPacker, DeserializerOpts, Serializer, SerializerOpts
from convelo.compat.tno5.serializer_plugins import int as int_plugin5
from convelo.compat.tno5.serializer_plugins import pandas as pandas_plugin5
from convelo.compat.tno5.serializer_plugins import tuple as tuple_plugin5
from convelo.exceptions import BodyError
from convelo.wire import compatible, second
from convelo.wire.dangerous import DangerousPickleWarning, PickleIgnoredWarning
from convelo.wire.errors import TooDeep, Undecodable, UnknownType

Serialization = four.Serialization


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    Serialization.clear_serialization_logic()
    Serializer.clear_serialization_logic()


class Account:
    def __init__(self, owner: str, amounts: Any) -> None:
        self.owner = owner
        self.amounts = amounts

    def serialize(self, **_kwargs: Any) -> dict[str, Any]:
        return {"owner": self.owner, "amounts": self.amounts}

    @staticmethod
    def deserialize(obj: dict[str, Any], **_kwargs: Any) -> Account:
        return Account(obj["owner"], obj["amounts"])


class Account5:
    def __init__(self, owner: str) -> None:
        self.owner = owner

    def serialize(self, opts: SerializerOpts) -> dict[str, Any]:
        return {"owner": self.owner, "flag": Serializer.transform_into_native((1,), opts)}

    @staticmethod
    def deserialize(obj: dict[str, Any], opts: DeserializerOpts) -> Account5:
        assert Serializer.transform_into_nonnative(obj["flag"], opts) == (1,)
        return Account5(obj["owner"])


def test_a_class_is_registered_once() -> None:
    Serialization.register_class(Account)
    with pytest.raises(RepetitionError, match="Account"):
        Serialization.register_class(Account)
    Serialization.register_class(Account, overwrite=True)
    Serialization.clear_serialization_logic()
    assert "Account" not in four.SERIALIZER_FUNCS
    assert "tuple" in four.SERIALIZER_FUNCS
    Serialization.clear_serialization_logic(reload_defaults=False)
    assert not four.SERIALIZER_FUNCS
    assert not four.DESERIALIZER_FUNCS
    serializer_plugins.register_defaults()
    assert "tuple" in four.DESERIALIZER_FUNCS


def test_a_refused_registration_leaves_nothing() -> None:
    with pytest.raises(AnnotationError):
        Serialization.register(
            Account.serialize, lambda obj, **kwargs: obj, "Account", check_annotations=True
        )
    with pytest.raises(TypeError):
        Serialization.register(Account.serialize, None, "Account")  # type: ignore[arg-type]
    with pytest.raises(RepetitionError):
        Serialization.register(
            Account.serialize, Account.deserialize, "Account", "tuple", check_annotations=False
        )
    assert "Account" not in four.SERIALIZER_FUNCS
    assert "Account" not in four.DESERIALIZER_FUNCS


def test_the_older_documented_name() -> None:
    Serialization.set_serialization_logic(Account)
    body = Serialization.pack(Account("a", (1,)), 0, False)
    assert Serialization.unpack(body)[1].amounts == (1,)


def test_the_dicts_of_the_module_are_looked_up_for_each_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(four, "SERIALIZER_FUNCS", dict(four.SERIALIZER_FUNCS))
    monkeypatch.setattr(four, "DESERIALIZER_FUNCS", dict(four.DESERIALIZER_FUNCS))
    Serialization.register_class(Account)
    packed, buffers = second.encode(Account("a", 1))
    assert second.decode(packed, buffers).owner == "a"
    monkeypatch.undo()
    with pytest.raises(TypeError):
        second.encode(Account("a", 1))
    with pytest.raises(UnknownType, match="Account"):
        second.decode(packed, buffers)


def test_the_dicts_of_the_class_are_looked_up_for_each_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Serializer, "_serializer_funcs", {})
    monkeypatch.setattr(Serializer, "_deserializer_funcs", {})
    with pytest.raises(TypeError, match="tuple"):
        Serializer.serialize((1,))
    with pytest.raises(NotImplementedError, match="tuple"):
        Serializer.deserialize(ormsgpack.packb({"type": "tuple", "data": []}))


def test_keywords_reach_nested_classes() -> None:
    seen: list[Any] = []

    class Seen:
        def serialize(self, *, destination: Any, **kwargs: Any) -> dict[str, Any]:
            seen.append((destination, kwargs))
            return {}

        @staticmethod
        def deserialize(obj: dict[str, Any], *, origin: Any, **kwargs: Any) -> None:
            seen.append((origin, kwargs))

    Serialization.register_class(Seen, check_annotations=False)  # type: ignore[arg-type]
    Serialization.register_class(Account)
    value = [Account("a", np.array([(Seen(),), 0], dtype=object)[:1])]
    body = Serialization.pack(value, 0, False, destination="bob", extra=1)
    Serialization.unpack(body, origin="alice", extra=2)
    assert seen == [
        ("bob", {"use_pickle": False, "extra": 1}),
        ("alice", {"use_pickle": False, "extra": 2}),
    ]


def test_what_a_class_wraps_itself_arrives_restored() -> None:
    class Outer:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def serialize(self, **kwargs: Any) -> dict[str, Any]:
            return {"inner": Serialization.serialize(self.inner, **kwargs)}

        @staticmethod
        def deserialize(obj: dict[str, Any], **_: Any) -> Outer:
            return Outer(obj["inner"])

    Serialization.register_class(Outer, check_annotations=False)
    value = Outer((1, gmpy2.mpz(5)))
    for arrived in (
        compatible.decode_value(compatible.encode_value(value)),  # type: ignore[arg-type]
        second.decode(*second.encode(value)),
        Serialization.unpack(Serialization.pack(value, 0, False))[1],
    ):
        assert arrived.inner == value.inner


def test_restoring_leaves_its_argument_as_it_is() -> None:
    wrapped = {"a": [{"type": "tuple", "data": [1, {"type": "tuple", "data": []}]}]}
    copy = {"a": [{"type": "tuple", "data": [1, {"type": "tuple", "data": []}]}]}
    assert Serialization.deserialize(wrapped) == {"a": [(1, ())]}
    assert Serializer.transform_into_nonnative(wrapped, DeserializerOpts()) == {"a": [(1, ())]}
    assert Serialization.collection_deserialize(wrapped) == {"a": [(1, ())]}
    assert Serialization.collection_deserialize(wrapped["a"]) == [(1, ())]
    assert wrapped == copy
    inner = {"type": "X", "data": {"k": {"type": "tuple", "data": []}}}
    assert Serialization.collection_deserialize(inner) == {"type": "X", "data": {"k": ()}}
    with pytest.raises(ValueError, match="int"):
        Serialization.collection_deserialize(5)  # type: ignore[arg-type]


def test_functions_of_the_plugins() -> None:
    assert tuple_plugin.tuple_serialize((1, 2)) == [1, 2]
    nested = [1, {"type": "tuple", "data": [2]}]
    assert tuple_plugin.tuple_deserialize(nested, use_pickle=False) == (1, (2,))
    assert tuple_plugin5.tuple_deserialize(nested, DeserializerOpts()) == (1, (2,))
    assert int_plugin5.int_deserialize(
        int_plugin5.int_serialize(-(2**70), SerializerOpts()), DeserializerOpts()
    ) == -(2**70)
    assert gmpy_plugin.gmpy_deserialize(gmpy_plugin.gmpy_serialize(gmpy2.mpz(7))) == 7
    described = numpy_plugin.numpy_serialize(np.array([[1, 2]]))
    assert described == {"values": [[1, 2]], "shape": (1, 2)}
    wrapped = {"values": [[1, 2]], "shape": {"type": "tuple", "data": [1, 2]}}
    assert numpy_plugin.numpy_deserialize(wrapped, use_pickle=False).shape == (1, 2)
    frame = pd.DataFrame({"a": [2**80, 1]})
    packed = pandas_plugin.pandas_serialize_dataframe(frame, use_pickle=False)
    pd.testing.assert_frame_equal(
        pandas_plugin.pandas_deserialize_dataframe(packed, use_pickle=False), frame
    )
    series = pd.Series([1, 2])
    packed5 = pandas_plugin5.pandas_serialize_series(series, SerializerOpts())
    pd.testing.assert_series_equal(
        pandas_plugin5.pandas_deserialize_series(packed5, DeserializerOpts()), series
    )
    stamp = pd.Timestamp("2020-01-01 12:00")
    assert pandas_plugin.pandas_serialize_timestamp(stamp) == "2020-01-01T12:00:00"


def test_the_5_0_api_has_its_own_classes() -> None:
    Serializer.register_class(Account5)
    packer = DefaultPacker()
    one, other = packer.pack_multiple([Account5("x")], ("0", "1"))
    assert packer.unpack(one)[0] == "0"
    assert packer.unpack(other)[1][0].owner == "x"
    packed, buffers = second.encode(Account5("x"), five.STATE)
    assert second.decode(packed, buffers, five.STATE).owner == "x"
    with pytest.raises(TypeError):
        second.encode(Account5("x"), four.STATE)


@pytest.mark.parametrize("body", [[1], {"object": b""}, {"id": "1", "object": b"", "x": 1}, 5])
def test_a_5_0_body_has_two_keys(body: Any) -> None:
    with pytest.raises(ValueError, match="'id' and 'object'"):
        DefaultPacker().unpack(ormsgpack.packb(body))


def test_a_5_0_packer_warns_of_arrays() -> None:
    with pytest.warns(NumpySerializationWarning, match="nested lists"):
        packed = Serializer.serialize(np.arange(3))
    assert Serializer.deserialize(packed) == [0, 1, 2]


def test_options_of_the_5_0_api_reach_its_functions_without_pickle() -> None:
    seen: list[Any] = []
    Serializer.register(
        lambda value, opts: seen.append(opts), lambda obj, opts: seen.append(opts), "Account",
        check_annotations=False,
    )
    given = SerializerOpts(fallback_pickle=True, ormsgpack_option=0)
    encoded = compatible.encode_value(Account("a", 1), wire=5, state=five.STATE, opts=given)
    assert isinstance(encoded, bytes)
    compatible.decode_value(encoded, wire=5, state=five.STATE)
    assert seen == [SerializerOpts(ormsgpack_option=0), DeserializerOpts()]


class Trap:
    sprung = 0

    def __reduce__(self) -> Any:
        return (_spring, ())


def _spring() -> str:
    Trap.sprung += 1
    return "sprung"


def test_row_32_pickle_is_for_ones_own_bytes_only() -> None:
    with pytest.warns(DangerousPickleWarning):
        body = Serialization.pack(Decimal(4), 0, use_pickle=True)
    with pytest.warns(DangerousPickleWarning):
        assert Serialization.unpack(body, use_pickle=True) == (0, Decimal(4))
    with pytest.raises(NotImplementedError, match="Decimal"):
        Serialization.unpack(body)
    with pytest.warns(DangerousPickleWarning):
        packed = Serializer.serialize(Decimal(4), SerializerOpts(fallback_pickle=True))
    with pytest.warns(DangerousPickleWarning):
        assert Serializer.deserialize(packed, DeserializerOpts(fallback_pickle=True)) == 4
    with pytest.raises(NotImplementedError):
        Serialization.default_serialize(Decimal(4), use_pickle=False)
    with pytest.raises(NotImplementedError):
        Serialization.default_deserialize(b"")


@pytest.mark.parametrize("wire", [4, 5])
def test_row_32_nothing_from_a_peer_is_unpickled(wire: int) -> None:
    blob = pickle.dumps(Trap())
    document = ormsgpack.packb([{"type": "Trap", "data": blob}])
    with pytest.raises(UnknownType, match="pickle"), pytest.warns(PickleIgnoredWarning):
        compatible.decode_value(document, wire=wire, use_pickle=True)
    with pytest.raises(TypeError, match="Decimal"), pytest.warns(PickleIgnoredWarning):
        compatible.encode_value([Decimal(1)], wire=wire, use_pickle=True)
    extension = ormsgpack.Ext(second.TYPED, ormsgpack.packb(["Trap", blob]))
    with pytest.raises(BodyError):
        second.decode(ormsgpack.packb(extension), [], use_pickle=True)
    assert Trap.sprung == 0


def nested(levels: int, wrapper: bool) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = {"type": "tuple", "data": [value]} if wrapper else [value]
    return value


def test_depth_of_what_arrives() -> None:
    for levels, wrapper in ((497, False), (331, True)):
        document = _document(levels, wrapper)
        found = compatible.decode_value(document)
        for _ in range(levels):
            (found,) = found
        assert found == 0
        with pytest.raises(TooDeep, match="497 lists or dicts, or 331 tuples"):
            compatible.decode_value(_document(levels + 1, wrapper))
        with pytest.raises(RecursionError):
            compatible.decode_value(_document(levels + 1, wrapper))
    with pytest.raises(Undecodable):
        compatible.decode_value(b"\x91" * 1_000_000)
    with pytest.raises(TooDeep):
        compatible.decode_value(b"\x81\xa1a" * 498 + b"\x00")
    with pytest.raises(TooDeep):
        compatible.decode_value(b"\x82\xa4type\xa1X\xa4data\x81\xa1a" * 498 + b"\x00")


def _document(levels: int, wrapper: bool) -> bytes:
    return (b"\x82\xa4type\xa5tuple\xa4data\x91" if wrapper else b"\x91") * levels + b"\x00"


def test_a_stack_that_is_nearly_used_up_is_a_body_error() -> None:
    found: list[Any] = []

    def down(levels: int) -> None:
        if levels:
            down(levels - 1)
        else:
            with pytest.raises(TooDeep, match="already running"):
                compatible.decode_value(_document(400, False))
            found.append(True)

    thread = threading.Thread(target=down, args=(700,))
    thread.start()
    thread.join()
    assert found


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xc1",
        b"\x92\x01",
        b"\x91\xd4\x01\x00",
        b"\xdd\xff\xff\xff\xff",
        b"\x82\xa4type\xa3int\xa4data\x05",
        b"\x82\xa4type\xa5tuple\xa4data\x05",
        b"\x82\xa4type\x05\xa4data\x05",
        b"\x82\xa4type\x90\xa4data\x05",
        b"\x82\xa4type\xa9DataFrame\xa4data\xc4\x01\x00",
        b"\x82\xa4type\xa9DataFrame\xa4data\x81\xa1x\x00",
        b"\x82\xa4type\xa7ndarray\xa4data\x80",
        b"\x82\xa4type\xa9Timestamp\xa4data\xa1x",
    ],
)
def test_malformed_documents_are_body_errors(document: bytes) -> None:
    with pytest.raises(BodyError):
        compatible.decode_value(document)


def test_row_33_more_than_msgpack_holds() -> None:
    # Pages that nobody touches take no memory.
    with pytest.raises(TypeError, match="4294967295 bytes"):
        compatible.encode_value(bytes(1 << 32))


@pytest.mark.parametrize("size", [4096, 65535, 65536, 100_000])
def test_large_bytes_are_passed_on(size: int) -> None:
    content = bytes(size)
    head, payload = compatible.encode_value(content)
    assert payload is content
    assert bytes(head) + content == ormsgpack.packb(content)
    for view in (bytearray(content), memoryview(content), memoryview(bytes(2 * size))[::2]):
        head, payload = compatible.encode_value(view)
        assert bytes(head) + bytes(payload) == ormsgpack.packb(content)


def test_options() -> None:
    assert compatible.encode_value((1, 2), option=None) == b"\x92\x01\x02"
    keys = ormsgpack.OPT_NON_STR_KEYS
    packed = compatible.encode_value({1: [np.arange(2)]}, option=four.DEFAULT_PACK_OPTION | keys)
    assert compatible.decode_value(packed, option=keys) == {1: [[0, 1]]}  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Dict key"):
        compatible.encode_value({1: 1})
    with pytest.raises(ValueError, match="wires are 4 and 5"):
        compatible.encode_value([1], wire=2)
    with pytest.raises(ValueError, match="wires are 4 and 5"):
        compatible.decode_value(b"\x90", wire=2)
    document, buffers = second.encode({1: (2,)}, option=four.DEFAULT_PACK_OPTION | keys)
    assert second.decode(document, buffers, option=keys) == {1: (2,)}


def test_a_hint_is_with_the_error() -> None:
    with pytest.raises(TypeError) as caught:
        compatible.encode_value([{1, 2}])
    assert "register" in str(caught.value)
