"""pandas frames, series and timestamps in the compatible wire's form.

A frame is a parquet file. Values that parquet refuses become wrapper dicts inside it, and where
that fails too the whole frame is a dict of ``index``, ``columns`` and ``data``.
"""

from __future__ import annotations

import datetime
import warnings
from typing import TYPE_CHECKING, Any

from convelo.exceptions import AmbiguousDict, OptionalImportError
from convelo.wire.budget import current_budget
from convelo.wire.plugins import parquet
from convelo.wire.plugins.frames import with_changed
from convelo.wire.plugins.notes import MAX_LEVELS
from convelo.wire.plugins.numpy import filled
from convelo.wire.zones import is_time

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "TEMP_COLUMN_NAME",
    "checked_labels",
    "deserialize_frame",
    "deserialize_series",
    "deserialize_timestamp",
    "serialize_frame",
    "serialize_series",
    "serialize_timestamp",
]

TEMP_COLUMN_NAME = "TNO_MPC_COMMUNICATION_TEMPNAME"
"""The column that holds a series without a name."""

_WORD_BITS = 63
_LONGEST_TIME = 64

# Bytes of memory for a column, a cell and a label of a frame that arrives as lists.
_COLUMN_MEMORY = 512
_CELL_MEMORY = 24
_LABEL_MEMORY = 24
_LEVEL_MEMORY = 4 << 10


def serialize_frame(value: pd.DataFrame, encoder: Any) -> bytes | dict[str, Any]:
    """The parquet file of ``value``, or its dict form."""
    if encoder.strict:
        _refuse_lookalikes(value)
    try:
        return parquet.write(value)
    except ImportError:
        warnings.warn(
            "With pyarrow, pandas objects would travel as Parquet, which is smaller and faster: "
            "pip install 'convelo[pandas]'.",
            stacklevel=2,
        )
    except OverflowError:
        pass
    except Exception as error:
        if "string column" in str(error):
            warnings.warn(
                "Parquet refused column names that are not str, so the frame travels as a dict; "
                "avoid that with frame.columns = frame.columns.astype(str).",
                stacklevel=2,
            )
            return _split(value)
        if not _refused(error):
            raise
    return _with_wrappers(value, encoder)


def _refuse_lookalikes(frame: pd.DataFrame) -> None:
    for position, kind in enumerate(frame.dtypes):
        if kind == "object":
            values = frame.iloc[:, position].array
            if dict in set(map(type, values)) and any(
                isinstance(item, dict) and "type" in item and "data" in item for item in values
            ):
                raise AmbiguousDict(
                    f"A dict in column {frame.columns[position]!r} has both keys 'type' and "
                    "'data'. On the compatible wire they mark a wrapped object, so it would arrive "
                    "as something else. Rename one of the keys, or use convelo on both sides."
                )


def _with_wrappers(value: pd.DataFrame, encoder: Any) -> bytes | dict[str, Any]:
    import numpy as np

    fits = (bool, datetime.datetime, float, type(None), np.number, str)
    inner = encoder.compatible()

    def prepared(item: Any) -> Any:
        if isinstance(item, fits):
            return item
        if isinstance(item, int) and item.bit_length() <= _WORD_BITS:
            return item
        return inner.wrap(item, encoder.options)

    # Columns of other kinds hold nothing else; going through their values would change some kinds.
    changed = value.copy(deep=False)
    for position, kind in enumerate(value.dtypes):
        if kind == "object":
            items = [prepared(item) for item in value.iloc[:, position].array]
            changed.isetitem(position, filled(items, (len(items),)))
    try:
        return parquet.write(changed)
    except Exception as error:
        if not isinstance(error, ImportError | OverflowError) and not _refused(error):
            raise
    return _split(value)


def deserialize_frame(data: bytes | dict[str, Any], decoder: Any) -> pd.DataFrame:
    """The frame that ``data`` holds.

    Raises:
        ImportError: it is parquet, and pyarrow is not installed.
    """
    if isinstance(data, dict):
        frame = _of_rows(data)
    else:
        try:
            frame = parquet.read(data)
        except OptionalImportError:
            raise
        except ImportError as error:
            raise ImportError(
                "The pandas object arrived as a Parquet file; to read it, "
                "pip install 'convelo[pandas]'."
            ) from error
    # pandas would copy them with each column.
    attributes, frame.attrs = frame.attrs, {}
    changed = {}
    for position, kind in enumerate(frame.dtypes):
        if kind != "object":
            continue
        column = frame.iloc[:, position]
        if dict in set(map(type, column.array)):
            items = [_restored(item, decoder) for item in column.array]
            changed[position] = filled(items, (len(items),))
    frame = with_changed(frame, changed)
    frame.attrs = attributes
    return frame


def _of_rows(data: dict[str, Any]) -> pd.DataFrame:
    """The frame of lists of rows. pandas would repeat a single value, and fill up short rows."""
    import pandas as pd

    index, columns, rows = data["index"], data["columns"], data["data"]
    if type(rows) is not list or len(rows) != len(checked_labels(index)):
        raise ValueError("expected a row for each label of the index")
    width = len(checked_labels(columns))
    if any(type(row) not in (list, tuple) or len(row) != width for row in rows):
        raise ValueError("expected a value for each column in every row")
    current_budget().pay(
        _COLUMN_MEMORY * width + _CELL_MEMORY * (len(rows) + 1) * (width + 1), "rows of a frame"
    )
    return pd.DataFrame(rows, index=index, columns=columns)


def checked_labels(labels: Any) -> list[Any]:
    """``labels`` of rows or columns, if each is a value or a tuple, and all tuples have one length.

    pandas would fill up shorter ones, and take lists and arrays for levels. The items of tuples are
    levels, each of which takes much more than its items.

    Raises:
        ValueError: they are something else.
    """
    if type(labels) is not list:
        raise ValueError("expected a list of labels")
    lengths = set()
    for label in labels:
        if type(label) is tuple:
            lengths.add(len(label))
        elif hasattr(label, "__len__") and type(label) not in (str, bytes):
            raise ValueError(f"expected a value or a tuple as label, found {type(label).__name__}")
    if len(lengths) > 1:
        raise ValueError("expected labels of one length")
    levels = max(lengths, default=1)
    if levels > MAX_LEVELS:
        raise ValueError(f"labels have {levels} levels, expected at most {MAX_LEVELS}")
    current_budget().pay(levels * (_LABEL_MEMORY * len(labels) + _LEVEL_MEMORY), "labels")
    return labels


def _restored(item: Any, decoder: Any) -> Any:
    if isinstance(item, dict) and "type" in item and "data" in item:
        return decoder.wrapped(item)
    return item


def serialize_series(value: pd.Series[Any], encoder: Any) -> bytes | dict[str, Any]:
    """``value`` as a frame with one column."""
    name = TEMP_COLUMN_NAME if value.name is None else value.name
    return serialize_frame(value.to_frame(name=name), encoder)


def deserialize_series(data: bytes | dict[str, Any], decoder: Any) -> pd.Series[Any]:
    """The first column of the frame that ``data`` holds."""
    frame = deserialize_frame(data, decoder)
    attributes, frame.attrs = frame.attrs, {}
    series = frame.iloc[:, 0]
    series.attrs = attributes
    if series.name == TEMP_COLUMN_NAME:
        series.name = None
    return series


def serialize_timestamp(value: pd.Timestamp, _encoder: Any = None) -> str:
    """The ISO form of ``value``, to the microsecond."""
    return value.to_pydatetime(warn=False).isoformat()


def deserialize_timestamp(data: str, _decoder: Any = None) -> pd.Timestamp:
    """The timestamp that ``data`` holds.

    Raises:
        ValueError: it is not a text in ISO form.
    """
    import pandas as pd

    if not is_time(data):
        found = repr(data[:_LONGEST_TIME]) if type(data) is str else type(data).__name__
        raise ValueError(f"a malformed timestamp: expected text in ISO form, found {found}")
    return pd.Timestamp(data)


def _split(frame: pd.DataFrame) -> dict[str, Any]:
    form: dict[str, Any] = frame.to_dict(orient="split")
    return form


def _refused(error: Exception) -> bool:
    try:
        from pyarrow import ArrowException
    except ImportError:
        return False
    return isinstance(error, ArrowException)
