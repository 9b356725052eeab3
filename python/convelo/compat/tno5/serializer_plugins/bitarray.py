"""bitarray."""

from convelo.compat.tno5.packers.serialization import STATE
from convelo.wire.faces import functions_of

bitarray_serialize, bitarray_deserialize, register = functions_of(STATE, "bitarray")
