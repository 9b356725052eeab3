"""torch tensors."""

from convelo.compat.tno5.packers.serialization import STATE
from convelo.wire.faces import functions_of
from convelo.wire.plugins import TENSOR_KEY as TENSOR_KEY

torch_serialize_tensor, torch_deserialize_tensor, register = functions_of(STATE, "torch")
