"""Integers outside the 64 bits that msgpack has."""

from convelo.compat.tno5.packers.serialization import STATE
from convelo.wire.faces import functions_of

int_serialize, int_deserialize, register = functions_of(STATE, "int")
