"""Time zones, as a peer may name them.

Libraries open files by what they take for the name of a time zone. So a name is looked up among
those that there are before any library sees it.
"""

from __future__ import annotations

import json
import re
import zoneinfo
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_schema", "is_zone"]

_OFFSET = re.compile(r"[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]")
_PARTS = re.compile(r"[\[\],=]\s*")


def is_zone(name: object) -> bool:
    """Whether ``name`` is in the IANA's database, or an offset such as ``+02:00``."""
    return type(name) is str and (name in _names() or _OFFSET.fullmatch(name) is not None)


@cache
def _names() -> frozenset[str]:
    # "localtime" is a link that some systems have there. UTC needs no database.
    return frozenset(zoneinfo.available_timezones() - {"localtime"} | {"UTC"})


def check_schema(schema: pa.Schema) -> None:
    """Checks the time zones in a table's types, and in what pandas has noted about its columns.

    Raises:
        ValueError: One of them is none, or the notes cannot be read.
    """
    texts = [str(field.type) for field in schema if "tz=" in str(field.type)]
    notes = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    if type(notes) is not dict:
        raise ValueError("what pandas has noted about a table is malformed: expected a dict")
    for kind in ("columns", "column_indexes"):
        columns = notes.get(kind) or []
        if type(columns) is not list or not all(type(column) is dict for column in columns):
            raise ValueError("what pandas has noted about columns is malformed: expected dicts")
        for column in columns:
            dtype, more = column.get("numpy_type"), column.get("metadata")
            if type(dtype) is str:
                texts.append(dtype)
            if type(more) is dict and not _is_known(more.get("timezone")):
                raise ValueError(_unknown(str(more["timezone"])))
    for text in texts:
        # Names of dtypes have no slash, and those that lead to other files than a time zone's do.
        for part in _PARTS.split(text):
            if "/" in part and not is_zone(part):
                raise ValueError(_unknown(text))


def _is_known(name: object) -> bool:
    return name is None or is_zone(name)


def _unknown(text: str) -> str:
    return (
        f"{text[:100]!r} names a time zone that is not known here: expected a name of the IANA's "
        "database"
    )
