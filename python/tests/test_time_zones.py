"""A peer's names of time zones open no files."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ormsgpack
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import convelo.compat.tno.serialization as four
from convelo.wire import second
from convelo.wire.zones import is_zone

_watched: list[tuple[Path, list[str]]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        for file, opened in _watched:
            if str(arguments[0]) == str(file):
                opened.append(str(file))


sys.addaudithook(_watch)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[str]:
    """A path that nobody may open."""
    file = tmp_path / "trap"
    file.write_bytes(b"TZif")
    opened: list[str] = []
    _watched.append((file, opened))
    yield str(file)
    _watched.clear()
    assert not opened


def second_timestamp(zone: object) -> Any:
    form = ormsgpack.packb(["Timestamp", [0, "s", zone]])
    return second.decode(ormsgpack.packb(ormsgpack.Ext(second.TYPED, form)), None)


def second_text(zone: str) -> Any:
    form = ormsgpack.packb(["Timestamp.iso", f"2020-01-01T00:00:00 {zone}"])
    return second.decode(ormsgpack.packb(ormsgpack.Ext(second.TYPED, form)), None)


def second_frame(table: pa.Table) -> Any:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    names = [str(position) for position in range(table.num_columns)]
    form = ormsgpack.packb(["DataFrame", 0, names, None, []])
    document = ormsgpack.packb(ormsgpack.Ext(second.FRAME, form))
    return second.decode(document, [sink.getvalue()])


def compatible_frame(table: pa.Table) -> Any:
    file = io.BytesIO()
    pq.write_table(table, file)
    return compatible("DataFrame", file.getvalue())


def compatible(kind: str, data: Any) -> Any:
    body = ormsgpack.packb({"object": {"type": kind, "data": data}, "id": 0})
    return four.Serialization.unpack(body)[1]


def in_type(zone: str) -> pa.Table:
    return pa.table({"0": pa.array([1], pa.timestamp("us", tz=zone))})


def noted(place: str, text: str) -> pa.Table:
    """A table of numbers, of which pandas is said to have noted this dtype."""
    table = pa.Table.from_pandas(pd.DataFrame({"0": [1, 2]}, index=pd.Index([5, 6])))
    notes = json.loads(table.schema.metadata[b"pandas"])
    for column in notes[place]:
        column["numpy_type"] = text
    return table.replace_schema_metadata({b"pandas": json.dumps(notes).encode()})


FRAMES = [second_frame, compatible_frame]
DTYPES = [
    "datetime64[ns, {}]",
    "M8[ns, {}]",
    "interval[datetime64[ns, {}], right]",
    "Sparse[datetime64[ns, {}]]",
    "timestamp[us, tz={}][pyarrow]",
]


@pytest.mark.parametrize("read", [second_timestamp, second_text])
@pytest.mark.parametrize("form", ["dateutil/{}", "{}", "../../../..{}", "dateutil/../../../..{}"])
def test_time_zone_of_a_timestamp_that_is_a_path(
    read: Callable[[str], Any], form: str, trap: str
) -> None:
    with pytest.raises(ValueError):
        read(form.format(trap))


@pytest.mark.parametrize("text", ["2020-01-01T00:00:00 dateutil/{}", "dateutil/{}"])
def test_timestamp_on_the_compatible_wire_that_is_a_path(text: str, trap: str) -> None:
    with pytest.raises(ValueError):
        compatible("Timestamp", text.format(trap))


@pytest.mark.parametrize("read", FRAMES)
def test_time_zone_of_a_column_that_is_a_path(read: Callable[[pa.Table], Any], trap: str) -> None:
    with pytest.raises(ValueError):
        read(in_type(f"dateutil/{trap}"))


@pytest.mark.parametrize("read", FRAMES)
@pytest.mark.parametrize("place", ["columns", "column_indexes"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_time_zone_in_what_pandas_noted_that_is_a_path(
    read: Callable[[pa.Table], Any], place: str, dtype: str, trap: str
) -> None:
    with pytest.raises(ValueError, match="time zone that is not known here|is not accepted"):
        read(noted(place, dtype.format(f"dateutil/{trap}")))


@pytest.mark.parametrize("read", FRAMES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zone", ["tzlocal()", "secret.txt", ":zone.tab", "localtime", "UTC+03:00"])
def test_time_zone_without_a_slash_in_what_pandas_noted(
    read: Callable[[pa.Table], Any], dtype: str, zone: str
) -> None:
    with pytest.raises(ValueError, match="time zone that is not known here|is not accepted"):
        read(noted("columns", dtype.format(zone)))
    with pytest.raises(ValueError, match="time zone that is not known here"):
        read(in_type(zone))


@pytest.mark.parametrize("text", ["2020-01-01T00:00:00 CET", "2020-01-01 EST", "now", "today"])
def test_timestamp_that_takes_the_zone_of_this_machine(text: str) -> None:
    with pytest.raises(ValueError, match="expected text in ISO form"):
        compatible("Timestamp", text)


@pytest.mark.parametrize("read", FRAMES)
def test_time_zone_of_the_names_of_columns_that_is_a_path(
    read: Callable[[pa.Table], Any], trap: str
) -> None:
    table = noted("column_indexes", "datetime64[ns]")
    notes = json.loads(table.schema.metadata[b"pandas"])
    for column in notes["column_indexes"]:
        column |= {
            "pandas_type": "datetimetz",
            "metadata": {"timezone": f"dateutil/{trap}"},
        }
    noted_so = table.replace_schema_metadata({b"pandas": json.dumps(notes).encode()})
    with pytest.raises(ValueError, match="time zone that is not known here"):
        read(noted_so)


@pytest.mark.parametrize("zone", [0, b"UTC", ["UTC"], "", "tzlocal()", "localtime", "Nowhere", "+1"])
def test_other_things_are_no_time_zones(zone: object) -> None:
    assert not is_zone(zone)
    with pytest.raises(ValueError, match="time zone"):
        second_timestamp(zone)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Amsterdam", "America/Argentina/Ushuaia", "+05:30"])
def test_time_zones_arrive(zone: str) -> None:
    assert is_zone(zone)
    stamp = pd.Timestamp("2020-06-01 12:00:00", tz=zone)
    frame = pd.DataFrame({"a/b": pd.Series([stamp])})
    arrived = second.decode(*second.encode([stamp, frame]))
    body = four.Serialization.pack(frame, msg_id=0, use_pickle=False)
    frames = [arrived[1], four.Serialization.unpack(body)[1]]
    for one in (arrived[0], *(frame["a/b"].iloc[0] for frame in frames)):
        assert (one, str(one)) == (stamp, str(stamp))
