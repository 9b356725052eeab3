"""pandas frames, series and timestamps."""

from convelo.compat.tno5.packers.serialization import STATE
from convelo.wire.faces import functions_of
from convelo.wire.plugins.pandas import TEMP_COLUMN_NAME as TEMP_COLUMN_NAME

(
    pandas_serialize_dataframe,
    pandas_deserialize_dataframe,
    pandas_serialize_series,
    pandas_deserialize_series,
    pandas_serialize_timestamp,
    pandas_deserialize_timestamp,
    register,
) = functions_of(STATE, "pandas")
