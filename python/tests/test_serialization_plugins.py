"""Values of other libraries: what is read from a peer is checked before the library sees it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import types
from typing import Any

import bitarray
import gmpy2
import numpy as np
import ormsgpack
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import numpy as safetensors_numpy

import convelo.compat.tno.serialization as four
from convelo import register_extras
from convelo.compat.tno import functions
from convelo.compat.tno.exceptions import OptionalImportError
from convelo.compat.tno5.packers import Serializer
from convelo.exceptions import AmbiguousDict, BodyError
from convelo.wire import compatible, second
from convelo.wire.plugins import gmpy
from convelo.wire.plugins import numpy as numpy_plugin

PRECISIONS = [1, 2, 53, 63, 64, 65, 128, 200, 1000]


def numbers() -> list[Any]:
    found: list[Any] = [gmpy2.mpz(0), gmpy2.mpz(-(2**70)), gmpy2.xmpz(9), gmpy2.mpq(0)]
    found += [gmpy2.mpq(-1, 3), gmpy2.mpq(2**40, 3), gmpy2.mpq(2**3000 + 1, 7)]
    for precision in PRECISIONS:
        for text in ("10", "-0.001", "1e400", "-3e-400", "0", "-0", "nan", "inf", "-inf"):
            found.append(gmpy2.mpfr(text, precision))
    parts = ("1.5", "-0", "inf", "1e-300")
    found += [gmpy2.mpc(gmpy2.mpfr(one), gmpy2.mpfr(other)) for one in parts for other in parts]
    found.append(gmpy2.mpc(gmpy2.mpfr("0.1", 100), gmpy2.mpfr("-7", 300), (100, 300)))
    return found


def test_numbers_come_back_with_their_precision() -> None:
    for number in numbers():
        arrived = gmpy.deserialize(gmpy.serialize(number))
        assert type(arrived) is type(number)
        assert repr(arrived) == repr(number)


def test_row_31_no_byte_is_left_to_chance() -> None:
    for number in numbers():
        if isinstance(number, gmpy2.mpfr | gmpy2.mpc):
            blob = gmpy.serialize(number)
            assert blob[3] == 0
            assert {gmpy.serialize(number) for _ in range(20)} == {blob}


VALID = [gmpy.serialize(number) for number in numbers()]


@pytest.mark.parametrize(
    "blob",
    [
        "",
        "04",
        "0441000035000000",
        "0441000035000000040000",  # aborts the process in gmpy2 2.3
        "04410000ffffffff0400000000000000000000a0",  # segmentation fault
        "0441000035000000040000000000000000000001",  # aborts: not normalised
        "0441000035000000040000000100000000000080",  # bits beyond the precision
        "0441000000000000040000000000000000000080",  # no precision
        "04410000350000000400000000000000000000a0ff",
        "0411000035000000",  # segmentation fault
        "0408000000000000",
        "05410000350000000400000000000000000000a0",
        "0508000035000000",
        "05080000350000000408000035000000",
        "03",
        "0301",
        "030101000000",
        "03010100000005",
        "0301010000000500",
        "03f1010000000503",
        "0301ffffffff0503",
        "01",
        "0700",
        "ffff",
    ],
)
def test_numbers_that_gmpy2_does_not_write_are_refused(blob: str) -> None:
    with pytest.raises(ValueError):
        gmpy.deserialize(bytes.fromhex(blob))
    name = "mpfr" if blob.startswith("04") else "mpq"
    with pytest.raises(BodyError):
        compatible.decode_value(b"\x82\xa4type\xa4" + name.ljust(4).encode() + b"\xa4data\xc4\x00")


def test_a_precision_takes_no_memory_by_itself() -> None:
    arrived = gmpy.deserialize(bytes.fromhex("04080000ffffffff"))
    assert gmpy2.is_nan(arrived)
    assert arrived.precision == 1 << 16


@settings(max_examples=2000)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 255)), max_size=3),
    st.integers(0, 3),
)
def test_damaged_numbers_are_numbers_or_errors(
    blob: bytes, damage: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(blob)
    for place, byte in damage:
        damaged[place % len(damaged)] = byte
    try:
        arrived = gmpy.deserialize(bytes(damaged[: len(damaged) - cut]))
    except ValueError:
        return
    assert repr(arrived)
    assert isinstance(arrived + 1, type(arrived) | gmpy2.mpz | gmpy2.xmpz)


@given(st.binary(max_size=30))
def test_damaged_bitarrays_are_bitarrays_or_errors(blob: bytes) -> None:
    document = b"\x82\xa4type\xa8bitarray\xa4data\xc4" + bytes([len(blob)]) + blob
    with contextlib.suppress(BodyError):
        assert isinstance(compatible.decode_value(document), bitarray.bitarray)


def test_arrays_of_sequences_come_back() -> None:
    """numpy would take the items for dimensions."""
    array = np.empty(2, dtype=object)
    array[:] = [[1, 2], [3, 4]]
    arrived = numpy_plugin.deserialize({"values": array.tolist(), "shape": (2,)})
    assert arrived.shape == (2,)
    assert arrived.tolist() == array.tolist()


@pytest.mark.parametrize("shape", [[2**40], [-1], [1.0], [1] * 65, "1", [2**63, 0], [2, 2]])
def test_a_shape_that_the_values_do_not_fill_takes_no_memory(shape: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        numpy_plugin.deserialize({"values": [0], "shape": shape})


def test_row_27_big_endian_arrays_are_swapped_wherever_they_are() -> None:
    array = np.array([[1, 2], [3, 4]], dtype=">i4")
    wanted = [[1, 2], [3, 4]]
    for value in (array, [array], {"a": (array,)}, [array, [np.float64(1)] * 200]):
        encoded = compatible.encode_value(value)
        assert isinstance(encoded, bytes)
        arrived = compatible.decode_value(encoded)
        assert str(wanted) in str(arrived)

    class Holder:
        def serialize(self, **_: Any) -> Any:
            return {"a": [array]}

        @staticmethod
        def deserialize(obj: Any, **_: Any) -> Any:
            return obj["a"][0]

    four.Serialization.register_class(Holder, check_annotations=False)
    try:
        # The many scalars make ormsgpack pack what is around the array alone.
        encoded = compatible.encode_value([[np.float64(1)] * 200, Holder()])
        assert isinstance(encoded, bytes)
        assert compatible.decode_value(encoded)[1] == wanted
    finally:
        four.Serialization.clear_serialization_logic()
    assert compatible.decode_value(bytes(compatible.encode_value(array.T))).tolist() == [  # type: ignore[arg-type]
        [1, 3],
        [2, 4],
    ]


def test_row_26_in_a_frame() -> None:
    frame = pd.DataFrame({"v": [{"type": "int", "data": b"\x05"}]})
    with pytest.raises(AmbiguousDict, match="column 'v'"):
        compatible.encode_value([frame])


def test_row_26_where_a_class_holds_the_dict() -> None:
    class Config:
        def __init__(self, content: Any) -> None:
            self.content = content

        def serialize(self, **_: Any) -> Any:
            return self.content

        @staticmethod
        def deserialize(obj: Any, **_: Any) -> Any:
            return obj

    lookalike = {"type": "int", "data": b"\x05"}
    four.Serialization.register_class(Config, check_annotations=False)
    try:
        # The receiver decodes the values of a dict, and nothing of a list.
        for safe in (lookalike, [lookalike], [{"a": [lookalike]}]):
            encoded = compatible.encode_value((Config(safe), 1))
            assert isinstance(encoded, bytes)
            assert compatible.decode_value(encoded) == (safe, 1)
        with pytest.raises(AmbiguousDict, match="made by a serializer"):
            compatible.encode_value((Config({"a": lookalike}), 1))
    finally:
        four.Serialization.clear_serialization_logic()


def test_the_keys_as_content_are_no_dict() -> None:
    value = [b"\xa4data\xa4type", "data", "type", {"type": 1}, {"data": 1}, (1,)]
    encoded = compatible.encode_value(value)
    assert isinstance(encoded, bytes)
    assert compatible.decode_value(encoded) == value


class _Tensor:
    """What the serializer uses of a torch tensor, over numpy."""

    __module__ = "torch"

    def __init__(self, array: Any) -> None:
        self.array = array

    def numel(self) -> int:
        return int(self.array.size)

    def size(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    def reshape(self, sizes: tuple[int, ...]) -> _Tensor:
        return _Tensor(self.array.reshape(sizes))


_Tensor.__name__ = "Tensor"


@pytest.fixture
def _torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    torch = types.ModuleType("torch")
    torch.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    torch.tensor = lambda items: _Tensor(np.array(items, dtype="f4"))  # type: ignore[attr-defined]
    storage = types.ModuleType("safetensors.torch")
    storage.save = lambda named: safetensors_numpy.save(  # type: ignore[attr-defined]
        {name: tensor.array for name, tensor in named.items()}
    )
    storage.load = lambda blob: {  # type: ignore[attr-defined]
        name: _Tensor(array) for name, array in safetensors_numpy.load(blob).items()
    }
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "safetensors.torch", storage)
    from convelo.compat.tno.serializer_plugins import torch as plugin

    plugin.register()
    yield
    four.Serialization.clear_serialization_logic()


@pytest.mark.usefixtures("_torch")
def test_tensors() -> None:
    small = _Tensor(np.arange(6, dtype="f4").reshape(2, 3))
    encoded = compatible.encode_value(small)
    assert isinstance(encoded, bytes)
    assert encoded.startswith(b"\x82\xa4type\xa6Tensor\xa4data\xc4")
    assert b'{"my_tensor":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}' in encoded
    assert compatible.decode_value(encoded).array.tolist() == small.array.tolist()
    large = _Tensor(np.arange(5000, dtype="f4"))
    packed, buffers = second.encode([large])
    assert len(packed) < 50
    assert second.decode(packed, buffers)[0].array.tolist() == large.array.tolist()


@pytest.mark.usefixtures("_torch")
def test_tensors_without_elements_travel_as_their_sizes() -> None:
    empty = _Tensor(np.zeros((2, 0), dtype="f4"))
    encoded = compatible.encode_value([empty])
    assert encoded == (
        b"\x91\x82\xa4type\xa6Tensor\xa4data\x82\xa4type\xa5tuple\xa4data\x92\x02\x00"
    )
    assert compatible.decode_value(encoded)[0].size() == (2, 0)
    assert second.decode(*second.encode([empty]))[0].size() == (2, 0)


def _in_new_process(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_libraries_are_imported_when_their_values_are_met() -> None:
    _in_new_process(
        """
        import sys
        import convelo, convelo.compat.tno5
        from convelo.wire import compatible, second
        libraries = {"numpy", "pandas", "pyarrow", "gmpy2", "bitarray", "torch", "safetensors"}
        value = [1, "a", b"b", (2**70, {"k": (None,)}), 1.5]
        assert compatible.decode_value(compatible.encode_value(value)) == value
        assert second.decode(*second.encode(value)) == value
        assert not libraries & set(sys.modules), libraries & set(sys.modules)
        wrapper = b"\\x82\\xa4type\\xa3mpz\\xa4data\\xc4\\x03\\x01\\x01\\x05"
        number = compatible.decode_value(wrapper)
        assert number == 5 and libraries & set(sys.modules) == {"gmpy2"}
        """
    )


def test_a_library_that_is_not_installed() -> None:
    _in_new_process(
        """
        import sys
        for library in ("gmpy2", "pandas", "numpy", "pyarrow"):
            sys.modules[library] = None
        import convelo
        from convelo.compat.tno.serialization import SERIALIZER_FUNCS
        assert not {"mpz", "DataFrame", "ndarray"} & set(SERIALIZER_FUNCS)
        assert {"int", "tuple", "bitarray"} <= set(SERIALIZER_FUNCS)
        try:
            import convelo.compat.tno.serializer_plugins.gmpy
        except convelo.OptionalImportError as error:
            assert "gmpy2" in str(error)
        else:
            raise SystemExit("imported")

        class Series:
            def serialize(self, **kwargs): return 5
            @staticmethod
            def deserialize(obj, **kwargs): return obj
        convelo.Serialization.register_class(Series, check_annotations=False)
        """
    )


def test_errors_of_optional_libraries_are_redirected() -> None:
    with (
        pytest.raises(OptionalImportError),
        functions.redirect_importerror_to_optionalimporterror(),
    ):
        raise ImportError("nothing")
    with (
        pytest.warns(UserWarning, match="broken"),
        pytest.raises(OptionalImportError),
        functions.redirect_importerror_oserror_to_optionalimporterror(),
    ):
        raise OSError("broken")
    with pytest.raises(OptionalImportError, match="nowhere"):
        functions.require("nowhere")


@pytest.mark.parametrize("face", [four.Serialization, Serializer])
def test_row_29_extras_are_sent_where_both_sides_ask_for_them(face: Any) -> None:
    import collections
    import dataclasses
    import decimal

    Pair = collections.namedtuple("Pair", "left right")

    @dataclasses.dataclass(frozen=True)
    class Order:
        type: str
        data: Any
        total: int = dataclasses.field(init=False, default=0)

    state = sys.modules[face.__module__].STATE
    order = Order("a", {1, (2, 2**70)})
    object.__setattr__(order, "total", 7)
    values = [
        {1, "a", (2,)},
        frozenset({2**80}),
        1 - 2.5j,
        decimal.Decimal("1.50"),
        decimal.Decimal("-Infinity"),
        Pair(1, frozenset({gmpy2.mpz(2)})),
        order,
        {"k": [Pair({1}, ())]},
    ]
    for value in values:
        with pytest.raises(TypeError, match="not msgpack serializable"):
            second.encode(value, state)
    register_extras(Pair, Order, registration=face)
    try:
        for value in values:
            for arrived in (
                second.decode(*second.encode(value, state), state),
                compatible.decode_value(
                    compatible.encode_value(value, state=state),  # type: ignore[arg-type]
                    state=state,
                ),
            ):
                assert arrived == value
                assert type(arrived) is type(value)
        with pytest.raises(TypeError, match="neither"):
            register_extras(dict, registration=face)
    finally:
        face.clear_serialization_logic()


def test_extras_refuse_data_of_another_form() -> None:
    register_extras()
    try:
        for name, data in (("complex", [1]), ("Decimal", "x"), ("set", 5), ("set", [[]])):
            document = ormsgpack.packb({"type": name, "data": data})
            with pytest.raises(BodyError):
                compatible.decode_value(document)
    finally:
        four.Serialization.clear_serialization_logic()
