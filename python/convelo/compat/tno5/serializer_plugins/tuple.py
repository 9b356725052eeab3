"""Tuples."""

from convelo.compat.tno5.packers.serialization import STATE
from convelo.wire.faces import functions_of

tuple_serialize, tuple_deserialize, register = functions_of(STATE, "tuple")
