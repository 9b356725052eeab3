"""What pandas has noted about a table: the types of its columns, its index, its columns' labels.

pandas and pyarrow do what such notes say. They make types of any width, evaluate labels as Python,
turn a column into what takes a hundred times its bytes, and make an index for each time that one is
described. So a peer's notes never reach them: what :func:`read` accepts is a closed list, and the
notes that pandas sees are written here, from that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from convelo.wire.budget import current_budget
from convelo.wire.zones import check_zone, is_time, is_zone

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["MAX_LEVELS", "Notes", "frame", "read"]

MAX_LEVELS = 64
"""How many levels the labels of rows or columns may have."""

_KEY = b"pandas"
_ATTRIBUTES_KEY = b"PANDAS_ATTRS"

# Bytes of memory for a byte of JSON, and for a level of labels.
_JSON = 48
_LEVEL = 8 << 10
# For a part of a label, and a byte of a label in parts, which are read as Python literals.
_PART = 512
_LITERAL = 16
# For a row: in a level of its labels, in a column of another type, in one whose time zone changes.
_LEVEL_ROW = 24
_CAST_ROW = 24
_ZONE_ROW = 48

_LONGEST_NUMBER = 100
_WORD = 1 << 63

_UNITS = ("s", "ms", "us", "ns")
_INTEGERS = tuple(f"{sign}int{width}" for sign in ("", "u") for width in (8, 16, 32, 64))

# What pandas notes about a column whose Arrow type says it all.
_SILENT = frozenset(
    (*_INTEGERS, "bool", "float16", "float32", "float64", "object", "category", "datetime64")
    + ("timedelta64",)
)
_MOMENTS = re.compile(r"(datetime|timedelta)64\[(?:s|ms|us|ns|D)\]")
_ZONED = re.compile(r"datetime64\[(?:s|ms|us|ns), ([^\[\], ]{1,64})\]")
_SPANS = re.compile(r"(period|interval)\[[A-Za-z0-9\[\], -]{1,64}\]")
_TEXTS = frozenset(
    ("str", "string", "string[python]", "string[pyarrow]", "string[pyarrow_numpy]")
)
_MASKED = {
    "boolean": "bool",
    "Float32": "floating",
    "Float64": "floating",
    **{name.replace("i", "I").replace("u", "U"): "integer" for name in _INTEGERS},
}
_OF_ARROW = "[pyarrow]"

# What the values of a level of columns' labels were, and what held them.
_TEXT_LEVELS = frozenset(
    ("unicode", "string", "bytes", "empty", "object", "mixed", "mixed-integer")
    + ("mixed-integer-float",)
)
_TIME_LEVELS = frozenset(("date", "datetime", "datetimetz"))
_NUMBER_LEVELS = frozenset(
    (*_INTEGERS, "bool", "float16", "float32", "float64", "integer", "floating", "decimal")
    + ("timedelta64",)
)
_ARROW_LEVEL = re.compile(
    r"(u?int(8|16|32|64)|halffloat|float|double|bool|(large_)?string|date32\[day\]"
    r"|(timestamp|duration)\[(s|ms|us|ns)\])\[pyarrow\]"
)

# A part of a label, as Python writes it. No other text is read as a literal.
_ESCAPE = r"\\(?:[\\'\"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})"
_LABEL_PART = re.compile(
    rf"None|'[^'\\\x00-\x1f]*+(?:{_ESCAPE}[^'\\\x00-\x1f]*+)*+'"
    rf'|"[^"\\\x00-\x1f]*+(?:{_ESCAPE}[^"\\\x00-\x1f]*+)*+"'
)


class Notes(NamedTuple):
    """What pandas is told about a table."""

    metadata: dict[bytes, bytes] | None
    """The metadata of its schema."""
    attributes: dict[str, Any]
    """The ``attrs`` of the frame."""


def read(schema: pa.Schema, rows: int, *, labels: bool) -> Notes:
    """The notes of a table that are accepted; pays for what pandas makes of them.

    Args:
        schema: the table's.
        rows: how many it has.
        labels: whether its columns have the labels that are noted, not others that follow.

    Raises:
        ValueError: something in them is nothing that pandas writes.
        TooLarge: they stand for too much memory.
    """
    names = schema.names
    if len(set(names)) < len(names):
        raise ValueError("a table has two columns of one name, expected different names")
    metadata = schema.metadata or {}
    noted = _json(metadata, _KEY)
    attributes = _json(metadata, _ATTRIBUTES_KEY) or {}
    if noted is None:
        return Notes(None, attributes)
    attributes = attributes or _dict(noted.get("attributes") or {})
    columns = _columns(schema, rows, _dicts(noted.get("columns")))
    index = _index(columns, rows, noted.get("index_columns"))
    held = [column for name, column in columns.items() if name not in index]
    plain = [name for name in names if name not in columns]
    levels = _levels(
        _dicts(noted.get("column_indexes")), [column["name"] for column in held] + plain
    )
    written = {
        "index_columns": index,
        "column_indexes": levels if labels else [],
        "columns": list(columns.values()),
    }
    return Notes({_KEY: json.dumps(written).encode()}, attributes)


def frame(table: pa.Table, notes: Notes) -> pd.DataFrame:
    """The frame of a table, made after the notes that were accepted."""
    noted = _with_metadata(table, notes.metadata)
    found: pd.DataFrame = noted.to_pandas(types_mapper=_texts())
    attributes: Any = notes.attributes
    if attributes:
        found.attrs = attributes
    return found


def _with_metadata(table: pa.Table, metadata: dict[bytes, bytes] | None) -> pa.Table:
    if table.num_columns:
        return table.replace_schema_metadata(metadata)
    import pyarrow as pa

    # Without columns, a table would forget how many rows it has; a batch does not.
    batches = [batch.replace_schema_metadata(metadata) for batch in table.to_batches()]
    return pa.Table.from_batches(batches, table.schema.with_metadata(metadata))


def _texts() -> Callable[[pa.DataType], Any] | None:
    """pandas' own type for texts, by Arrow's type; ``None`` where pyarrow knows it."""
    import pandas as pd
    import pyarrow as pa

    if int(pa.__version__.split(".")[0]) >= 19:
        return None
    kind = pd.Series(["text"]).dtype
    return None if kind == "object" else {pa.string(): kind, pa.large_string(): kind}.get


def _json(metadata: dict[bytes, bytes], key: bytes) -> dict[str, Any] | None:
    content = metadata.get(key)
    if content is None:
        return None
    current_budget().pay(_JSON * len(content), "the metadata of a frame")
    return _dict(json.loads(content))


def _dict(noted: Any) -> dict[str, Any]:
    if type(noted) is not dict:
        raise _malformed("a dict", noted)
    return noted


def _dicts(noted: Any) -> list[dict[str, Any]]:
    if noted is None:
        return []
    if type(noted) is not list or not all(type(one) is dict for one in noted):
        raise _malformed("a list of dicts", noted)
    return noted


def _malformed(expected: str, noted: Any) -> ValueError:
    return ValueError(
        f"what pandas has noted about a table is malformed: expected {expected}, found "
        f"{type(noted).__name__}"
    )


def _name(noted: Any) -> Any:
    if noted is not None and type(noted) not in (str, int, float, bool):
        raise _malformed("a text as name", noted)
    return noted


def _columns(
    schema: pa.Schema, rows: int, noted: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The notes about each column, by its name in the table."""
    kinds = {field.name: field.type for field in schema}
    columns: dict[str, dict[str, Any]] = {}
    for column in noted:
        name = column.get("name")
        field = column.get("field_name", name)
        if type(field) is not str or field not in kinds:
            raise ValueError("pandas has noted something about a column that a table does not have")
        if field in columns:
            raise ValueError("pandas has noted something about a column of a table twice")
        columns[field] = {
            "name": _name(name),
            "field_name": field,
            "pandas_type": "object",
            "numpy_type": _dtype(column.get("numpy_type"), kinds[field], rows),
            "metadata": None,
            **_zone(column, kinds[field], rows),
        }
    # pandas takes the columns without notes for what Arrow says.
    return {name: columns[name] for name in kinds if name in columns}


def _zone(column: dict[str, Any], kind: pa.DataType, rows: int) -> dict[str, Any]:
    """The time zone of a column, where Arrow's type does not have it."""
    from pyarrow import types

    more = column.get("metadata")
    zone = more.get("timezone") if type(more) is dict else None
    if zone is None:
        return {}
    check_zone(zone)
    if not types.is_timestamp(kind) or kind.tz == zone:
        return {}
    current_budget().pay_zone(zone)
    current_budget().pay(_ZONE_ROW * rows, "time zones")
    return {"pandas_type": "datetimetz", "metadata": {"timezone": zone}}


def _dtype(noted: Any, kind: pa.DataType, rows: int) -> str:
    """What pandas is told of the type of a column; ``object`` leaves it to Arrow's."""
    zoned = _ZONED.fullmatch(noted) if type(noted) is str else None
    family = _family(kind)
    if noted is None or noted in _SILENT or (zoned and is_zone(zoned[1])):
        return "object"
    if type(noted) is str:
        if _MOMENTS.fullmatch(noted) or (family == "extension" and _SPANS.fullmatch(noted)):
            return "object"
        if noted in _TEXTS and family == "text":
            return noted
        if noted in _MASKED and family in (_MASKED[noted], "null"):
            current_budget().pay(_CAST_ROW * rows, "columns of a frame")
            return noted
        if noted.endswith(_OF_ARROW) and noted[: -len(_OF_ARROW)] in _relatives(kind, family):
            current_budget().pay(_CAST_ROW * rows, "columns of a frame")
            return noted
    raise ValueError(
        f"pandas has noted {str(noted)[:80]!r} as the type of a column that Arrow holds as "
        f"{str(kind)[:80]!r}, which is not accepted"
    )


def _family(kind: pa.DataType) -> str:
    from pyarrow import types

    if hasattr(kind, "storage_type"):
        return "extension"
    checks = {
        "null": (types.is_null,),
        "bool": (types.is_boolean,),
        "integer": (types.is_integer,),
        "floating": (types.is_floating,),
        "text": (types.is_string, types.is_large_string),
        "bytes": (types.is_binary, types.is_large_binary),
        "date": (types.is_date,),
        "time": (types.is_time,),
        "timestamp": (types.is_timestamp,),
        "duration": (types.is_duration,),
    }
    found = (family for family, are in checks.items() if any(check(kind) for check in are))
    return next(found, "other")


def _relatives(kind: pa.DataType, family: str) -> tuple[str, ...]:
    """What Arrow calls the types that a column may have had where it was sent.

    Parquet has fewer than Arrow; it keeps none of another family.
    """
    zone = f", tz={kind.tz}" if family == "timestamp" and kind.tz is not None else ""
    return {
        "null": ("null",),
        "bool": ("bool",),
        "integer": _INTEGERS,
        "floating": ("halffloat", "float", "double"),
        "text": ("string", "large_string"),
        "bytes": ("binary", "large_binary"),
        "date": ("date32[day]", "date64[ms]"),
        "time": ("time32[s]", "time32[ms]", "time64[us]", "time64[ns]"),
        "timestamp": tuple(f"timestamp[{unit}{zone}]" for unit in _UNITS),
        "duration": tuple(f"duration[{unit}]" for unit in _UNITS),
    }.get(family, ())


def _index(columns: dict[str, dict[str, Any]], rows: int, noted: Any) -> list[Any]:
    """What the index is made of: columns, each once, and ranges."""
    if noted is None:
        return []
    if type(noted) is not list:
        raise _malformed("a list", noted)
    if len(noted) > MAX_LEVELS:
        raise ValueError(f"an index has {len(noted)} levels, expected at most {MAX_LEVELS}")
    names = [one for one in noted if type(one) is str]
    if len(set(names)) < len(names) or not columns.keys() >= set(names):
        raise ValueError("an index is made of a column that the table has not, or of one twice")
    if len(noted) > 1:
        current_budget().pay((_LEVEL + _LEVEL_ROW * rows) * len(noted), "labels")
    ranges = [None if type(one) is str else _range(one) for one in noted]
    # Of a table that was cut, pandas takes the range for none.
    return [
        bounds or one
        for one, bounds in zip(noted, ranges, strict=True)
        if bounds is None or _length(bounds) == rows
    ]


def _range(noted: Any) -> dict[str, Any]:
    bounds = {key: _dict(noted).get(key) for key in ("start", "stop", "step")}
    whole = all(type(bound) is int and -_WORD <= bound < _WORD for bound in bounds.values())
    if noted.get("kind") != "range" or not whole or bounds["step"] == 0:
        raise _malformed("a range with start, stop and step", noted)
    return {"kind": "range", "name": _name(noted.get("name")), **bounds}


def _length(bounds: dict[str, Any]) -> int:
    whole = range(bounds["start"], bounds["stop"], bounds["step"])
    # len() has no room for 64 bits.
    return 0 if not whole else (whole[-1] - whole[0]) // whole.step + 1


def _levels(noted: list[dict[str, Any]], labels: list[Any]) -> list[dict[str, Any]]:
    """The levels of the columns' labels."""
    if len(noted) > MAX_LEVELS:
        raise ValueError(
            f"the labels of columns have {len(noted)} levels, expected at most {MAX_LEVELS}"
        )
    parts = [[label] for label in labels]
    if len(noted) > 1:
        current_budget().pay(
            _LEVEL * len(noted)
            + sum(_PART * len(noted) + _LITERAL * len(str(label)) for label in labels),
            "labels",
        )
        parts = [_label_parts(label, len(noted)) for label in labels]
    return [
        _level(level, [label[position] for label in parts]) for position, level in enumerate(noted)
    ]


def _label_parts(label: Any, levels: int) -> list[str]:
    """The parts of a label as pandas writes them into one text: Python's form of a tuple."""
    text = label if type(label) is str else ""
    end = len(text) - 1
    place = 1
    parts: list[str] = []
    while len(parts) < levels:
        part = _LABEL_PART.match(text, place, end)
        if part is None:
            break
        parts.append(part[0].strip("'\""))
        place = part.end()
        if not text.startswith(", ", place):
            break
        place += 2
    if text[:1] != "(" or text[-1:] != ")" or len(parts) != levels or place != end:
        raise ValueError(
            f"a label of columns of {levels} levels is {text[:80]!r}, expected that many texts in "
            "parentheses"
        )
    return parts


def _level(noted: dict[str, Any], labels: list[Any]) -> dict[str, Any]:
    kind, held = noted.get("pandas_type"), noted.get("numpy_type")
    moment = _MOMENTS.fullmatch(kind) if type(kind) is str else None
    known = moment is not None or (
        type(kind) is str and kind in _TEXT_LEVELS | _TIME_LEVELS | _NUMBER_LEVELS
    )
    if not known or type(held) is not str or not _holds_labels(held):
        raise ValueError(
            f"pandas has noted {str(kind)[:80]!r} and {str(held)[:80]!r} as the types of columns' "
            "labels, which is not accepted"
        )
    more = noted.get("metadata")
    zone = more.get("timezone") if type(more) is dict else None
    if zone is not None:
        check_zone(zone)
        current_budget().pay_zone(zone)
    if kind not in _TEXT_LEVELS or held not in _TEXTS | {"object"}:
        times = kind in _TIME_LEVELS or (moment is not None and moment[1] == "datetime")
        for label in labels:
            _check_label(label, times=times or "datetime" in held or "timestamp" in held)
    return {
        "name": _name(noted.get("name")),
        "field_name": None,
        "pandas_type": kind,
        "numpy_type": held,
        "metadata": None if zone is None else {"timezone": zone},
    }


def _holds_labels(held: str) -> bool:
    return (
        held in _SILENT - {"category", "datetime64", "timedelta64"}
        or held in _TEXTS
        or held in _MASKED
        or _MOMENTS.fullmatch(held) is not None
        or _ARROW_LEVEL.fullmatch(held) is not None
    )


def _check_label(label: Any, *, times: bool) -> None:
    if times:
        fits = label in (None, "NaT", "None") or is_time(label)
    else:
        fits = type(label) is not str or len(label) <= _LONGEST_NUMBER
    if not fits:
        raise ValueError(
            f"{str(label)[:80]!r} is a label of columns, expected "
            + ("a time in ISO form" if times else "a number")
        )
