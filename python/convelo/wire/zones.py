"""Time zones and times, as a peer may write them.

Libraries open files by what they take for the name of a time zone, and take some names for the zone
of this machine. So a name is looked up among those that there are before any library sees it, and a
time is in ISO form, with an offset and no name.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_types", "check_zone", "is_time", "is_zone"]

_TIME = re.compile(
    r"[+-]?[0-9]{4,12}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,18})?)?(Z|[+-][0-9]{2}:?[0-9]{2}(:[0-9]{2})?)?)?"
)
_OFFSET = re.compile(r"[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]")


def is_zone(name: object) -> bool:
    """Whether ``name`` is in the IANA's database, or an offset such as ``+02:00``."""
    return type(name) is str and (name in _names() or _OFFSET.fullmatch(name) is not None)


@cache
def _names() -> frozenset[str]:
    # "localtime" is a link that some systems have there. UTC needs no database.
    return frozenset(zoneinfo.available_timezones() - {"localtime"} | {"UTC"})


def is_time(text: object) -> bool:
    """Whether ``text`` is a date or a time in ISO form."""
    return type(text) is str and _TIME.fullmatch(text) is not None


def check_zone(name: object) -> None:
    """Checks what should be the name of a time zone.

    Raises:
        ValueError: it is none.
    """
    if not is_zone(name):
        raise ValueError(
            f"{str(name)[:100]!r} names a time zone that is not known here: expected a name of the "
            "IANA's database, or an offset such as +02:00"
        )


def check_types(kinds: Iterable[pa.DataType]) -> None:
    """Checks the time zones in types of columns.

    Raises:
        ValueError: one of them is none.
    """
    from pyarrow import types

    for kind in kinds:
        if types.is_timestamp(kind):
            if kind.tz is not None:
                check_zone(kind.tz)
        elif hasattr(kind, "storage_type"):
            check_types([kind.storage_type])
        elif types.is_dictionary(kind):
            check_types([kind.value_type])
        else:
            check_types(kind.field(position).type for position in range(kind.num_fields))
