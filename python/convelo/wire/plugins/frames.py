"""Columns put into a frame, in time that grows with their number alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["with_changed", "with_inserted"]

# For each column that is set or inserted, pandas goes through all of them; and a new frame has each
# of its columns in a block of its own.
_FEW = 64


def with_changed(frame: pd.DataFrame, changed: dict[int, Any]) -> pd.DataFrame:
    """``frame`` with other values in the columns at these positions."""
    if len(changed) <= _FEW:
        for position, values in changed.items():
            frame.isetitem(position, values)
        return frame
    columns = [
        changed[position] if position in changed else frame.iloc[:, position]
        for position in range(frame.shape[1])
    ]
    found = _of_columns(columns, frame.index)
    found.columns = frame.columns
    return found


def with_inserted(frame: pd.DataFrame, inserted: dict[int, Any]) -> pd.DataFrame:
    """``frame`` with more columns, which come to stand at these positions, in rising order.

    The labels of the columns are to be set anew.
    """
    if len(inserted) <= _FEW:
        for position, values in inserted.items():
            frame.insert(position, f"left out {position}", values)
        return frame
    kept = iter(range(frame.shape[1]))
    columns = [
        inserted[position] if position in inserted else frame.iloc[:, next(kept)]
        for position in range(frame.shape[1] + len(inserted))
    ]
    return _of_columns(columns, frame.index)


def _of_columns(columns: list[Any], index: Any) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(dict(enumerate(columns)), index=index, copy=False)
