"""numpy arrays that are not nested lists of numbers: of objects, strided, without dimensions."""

from convelo.compat.tno5.packers.serialization import STATE
from convelo.wire.faces import functions_of

numpy_serialize, numpy_deserialize, register = functions_of(STATE, "numpy")
