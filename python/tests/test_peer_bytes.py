"""What a peer writes into arrays and tables: nothing of ours comes out, and none of its code runs."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ormsgpack
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convelo._convelo import parquet_claims
from convelo.exceptions import BodyError, OptionalImportError
from convelo.wire import compatible, second
from convelo.wire.plugins import parquet, schema


def test_memory_of_our_own_process_in_a_peers_array() -> None:
    script = Path(__file__).parent / "kit" / "perturbed_arrays.py"
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "MALLOC_PERTURB_": "165"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_arrays_of_elements_without_bytes_are_not_sent() -> None:
    for dtype in ("V0", []):
        with pytest.raises(TypeError) as caught:
            second.encode(np.zeros(3, np.dtype(dtype)))
        assert "3 elements of no bytes" in str(caught.value.__cause__)
        assert second.decode(*second.encode(np.zeros(0, np.dtype(dtype)))).shape == (0,)


class Trap(pa.ExtensionType):  # type: ignore[misc]
    """An extension type of the sender's, registered here: reading it runs this code."""

    sprung = 0

    def __init__(self) -> None:
        super().__init__(pa.int64(), "convelo.tests.trap")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, _storage: Any, _serialized: bytes) -> Trap:
        cls.sprung += 1
        return cls()


@pytest.fixture
def trapped() -> Any:
    """Tables with the extension type on its own, in a struct, and as the type of a dictionary."""
    pa.register_extension_type(Trap())
    plain = pa.ExtensionArray.from_storage(Trap(), pa.array([1, 2]))
    struct = pa.StructArray.from_arrays([plain], names=["inner"])
    yield [pa.table({"0": plain}), pa.table({"0": struct})]
    pa.unregister_extension_type("convelo.tests.trap")


def stream(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def file(table: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def test_code_of_the_sender_in_an_extension_type(trapped: Any) -> None:
    for table in trapped:
        content = stream(table)
        frame = ormsgpack.packb(["DataFrame", 0, ["0"], None, []])
        Trap.sprung = 0
        with pytest.raises(BodyError, match="extension types"):
            second.decode(ormsgpack.packb(ormsgpack.Ext(second.FRAME, frame)), [content])
        content = file(table)
        for kind in ("DataFrame", "Series"):
            with pytest.raises(BodyError, match="extension types"):
                compatible.decode_value(ormsgpack.packb({"type": kind, "data": content}))
            pair = ormsgpack.packb([kind, content])
            with pytest.raises(BodyError, match="extension types"):
                second.decode(ormsgpack.packb(ormsgpack.Ext(second.TYPED, pair)), [])
        assert Trap.sprung == 0


@pytest.mark.parametrize("version", ["13.0.0", "0.17.1", "14.0.0"])
def test_a_pyarrow_that_runs_code_of_the_sender_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    frame = pd.DataFrame({"a": [1]})
    arrow, plain = second.encode(frame), compatible.encode_value(frame)
    monkeypatch.setattr(pa, "__version__", version)
    schema.pyarrow.cache_clear()
    try:
        with pytest.raises(OptionalImportError, match=f"{version}.*CVE-2023-47248.*>=14.0.1"):
            schema.pyarrow()
        with pytest.raises(BodyError, match="CVE-2023-47248"):
            second.decode(*arrow)
        with pytest.raises(BodyError, match="CVE-2023-47248"):
            compatible.decode_value(plain)  # type: ignore[arg-type]
    finally:
        schema.pyarrow.cache_clear()


@pytest.mark.parametrize("version", ["14.0.1", "14.0.1.dev3", "26.0.1", "100.0"])
def test_a_newer_pyarrow_is_accepted(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(pa, "__version__", version)
    schema.pyarrow.cache_clear()
    try:
        assert schema.pyarrow() is pa
    finally:
        schema.pyarrow.cache_clear()


def test_the_package_says_whose_it_is_and_under_which_licence() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["authors"] and project["license"] == "Apache-2.0" and project["description"]


def test_the_extras_demand_a_pyarrow_that_runs_no_code() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    bound = ".".join(map(str, schema.OLDEST_PYARROW))
    assert f"pyarrow>={bound}" in project["optional-dependencies"]["pandas"]
    lock = (Path(__file__).parents[1] / "requirements" / "lowest.txt").read_text()
    lowest = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    for requirement in lowest:
        name, _, version = requirement.partition(";")[0].partition(">=")
        name = name.partition("[")[0].strip().replace("_", "-")
        version = version.partition("#")[0].strip()
        pinned = [line for line in lock.lower().splitlines() if line.startswith(f"{name.lower()}==")]
        assert pinned and version in pinned[0], f"{requirement}: {pinned}"


def test_a_files_own_schema_in_another_form_is_refused() -> None:
    table = pa.table({"a": [1]})
    content = file(table)
    key = content.index(b"ARROW:schema")
    for place in range(key + 14, key + 60):
        damaged = bytearray(content)
        damaged[place] = ord("!")
        with pytest.raises(ValueError):
            parquet.read(bytes(damaged))


def test_a_file_claims_what_it_holds() -> None:
    """Compared with what pyarrow reads of the same file."""
    tables = {
        "plain": pa.table({"a": [1, None, 3], "b": ["x", "y", None]}),
        "nested": pa.table({"a": [[1, 2], [], None], "b": [{"c": 1, "d": "e"}, None, {}]}),
        "many pages": pa.table({"a": np.arange(100_000), "b": ["abc"] * 100_000}),
        "empty": pa.table({"a": pa.array([], pa.int8())}),
        "none": pa.table({}),
        "fixed": pa.table({"a": pa.array([b"abc"] * 5, pa.binary(3)), "b": [True] * 5}),
    }
    for name, table in tables.items():
        for options in (
            {},
            {"data_page_version": "2.0"},
            {"use_dictionary": False, "compression": "none"},
            {"row_group_size": 7},
        ):
            sink = io.BytesIO()
            pq.write_table(table, sink, **options)
            rows, memory, leaves, entries = parquet_claims(sink.getvalue())
            metadata = pq.ParquetFile(sink).metadata
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            assert rows == metadata.num_rows == table.num_rows, name
            assert memory > 0
            assert dict(entries) == metadata.metadata
            assert len(leaves) == metadata.num_columns
            for position, (_, _, values, referring, dictionary, pages) in enumerate(leaves):
                chunks = [group.column(position) for group in groups]
                assert values == sum(chunk.num_values for chunk in chunks)
                # The heads of the pages are counted there too.
                assert pages <= sum(chunk.total_uncompressed_size for chunk in chunks)
                assert referring <= values
                # Before any value, none is read.
                assert bool(dictionary) == (
                    values > 0 and any(chunk.has_dictionary_page for chunk in chunks)
                )


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 20),
)
def test_a_damaged_file_is_a_frame_or_an_error(damage: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(parquet.write(pd.DataFrame({"a": [1, 2, None], "b": ["x", "y", "y"]})))
    for place, byte in damage:
        data[-1 - place % len(data)] = byte
    del data[len(data) - cut :]
    try:
        compatible.decode_value(ormsgpack.packb({"type": "DataFrame", "data": bytes(data)}))
    except BodyError:
        pass
