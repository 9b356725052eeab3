"""pandas frames, series and timestamps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convelo.compat.tno.functions import require
from convelo.compat.tno.serialization import STATE, Serialization
from convelo.wire.compatible import DEFAULT_PACK_OPTION, CompatibleDecoder, CompatibleEncoder
from convelo.wire.plugins import pandas as core
from convelo.wire.plugins.pandas import TEMP_COLUMN_NAME
from convelo.wire.state import builtin

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "TEMP_COLUMN_NAME",
    "pandas_deserialize_dataframe",
    "pandas_deserialize_series",
    "pandas_deserialize_timestamp",
    "pandas_serialize_dataframe",
    "pandas_serialize_series",
    "pandas_serialize_timestamp",
    "register",
]

require("pandas")


@builtin(core.serialize_frame)
def pandas_serialize_dataframe(
    obj: pd.DataFrame, use_pickle: bool = False, **kwargs: Any
) -> bytes | dict[str, Any]:
    """``obj`` as a parquet file, or as a dict where parquet cannot hold it."""
    return core.serialize_frame(obj, _encoder(use_pickle, kwargs))


@builtin(core.deserialize_frame)
def pandas_deserialize_dataframe(
    obj: bytes | dict[str, Any], use_pickle: bool = False, **kwargs: Any
) -> pd.DataFrame:
    """The frame that ``obj`` holds.

    Raises:
        ImportError: it is parquet, and pyarrow is not installed.
    """
    return core.deserialize_frame(obj, _decoder(use_pickle, kwargs))


@builtin(core.serialize_series)
def pandas_serialize_series(
    obj: pd.Series[Any], use_pickle: bool = False, **kwargs: Any
) -> bytes | dict[str, Any]:
    """``obj`` as a frame with one column."""
    return core.serialize_series(obj, _encoder(use_pickle, kwargs))


@builtin(core.deserialize_series)
def pandas_deserialize_series(
    obj: bytes | dict[str, Any], use_pickle: bool = False, **kwargs: Any
) -> pd.Series[Any]:
    """The series that ``obj`` holds.

    Raises:
        ImportError: it is parquet, and pyarrow is not installed.
    """
    return core.deserialize_series(obj, _decoder(use_pickle, kwargs))


@builtin(core.serialize_timestamp)
def pandas_serialize_timestamp(obj: pd.Timestamp, **_kwargs: Any) -> str:
    """The ISO form of ``obj``, to the microsecond."""
    return core.serialize_timestamp(obj)


@builtin(core.deserialize_timestamp)
def pandas_deserialize_timestamp(obj: str, **_kwargs: Any) -> pd.Timestamp:
    """The timestamp that ``obj`` holds."""
    return core.deserialize_timestamp(obj)


def _encoder(use_pickle: bool, kwargs: dict[str, Any]) -> CompatibleEncoder:
    return CompatibleEncoder(STATE, {**kwargs, "use_pickle": use_pickle}, DEFAULT_PACK_OPTION)


def _decoder(use_pickle: bool, kwargs: dict[str, Any]) -> CompatibleDecoder:
    return CompatibleDecoder(STATE, {**kwargs, "use_pickle": use_pickle})


def register() -> None:
    """Registers ``DataFrame``, ``Series`` and ``Timestamp``."""
    for serializer, deserializer, name in (
        (pandas_serialize_dataframe, pandas_deserialize_dataframe, "DataFrame"),
        (pandas_serialize_series, pandas_deserialize_series, "Series"),
        (pandas_serialize_timestamp, pandas_deserialize_timestamp, "Timestamp"),
    ):
        Serialization.register(serializer, deserializer, name, check_annotations=False)
