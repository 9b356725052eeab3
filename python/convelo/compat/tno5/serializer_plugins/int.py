"""Integers beyond msgpack's 64 bits."""

from convelo.compat.tno5.packers.serialization import STATE
from convelo.wire.faces import functions_of

int_serialize, int_deserialize, register = functions_of(STATE, "int")
