"""The numbers of gmpy2."""

from convelo.compat.tno.serialization import STATE
from convelo.wire.faces import functions_of
from convelo.wire.plugins.gmpy import GmpyTypes as GmpyTypes
from convelo.wire.plugins.gmpy import typeguard_ignore as typeguard_ignore

gmpy_serialize, gmpy_deserialize, register = functions_of(STATE, "gmpy")
