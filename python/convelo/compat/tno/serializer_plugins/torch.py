"""torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convelo.compat.tno.functions import require
from convelo.compat.tno.serialization import STATE, Serialization
from convelo.wire.compatible import CompatibleDecoder
from convelo.wire.plugins import torch as core
from convelo.wire.plugins.torch import TENSOR_KEY
from convelo.wire.state import builtin

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TENSOR_KEY", "register", "torch_deserialize_tensor", "torch_serialize_tensor"]

require("torch")
require("safetensors")


@builtin(core.serialize)
def torch_serialize_tensor(obj: Tensor, **_kwargs: Any) -> tuple[int, ...] | bytes:
    """``obj`` as a safetensors file, or its sizes where one of them is 0."""
    return core.serialize(obj)


@builtin(core.deserialize)
def torch_deserialize_tensor(obj: dict[str, Any] | bytes, **kwargs: Any) -> Tensor:
    """The tensor that ``obj`` holds, in the memory of the CPU."""
    return core.deserialize(obj, CompatibleDecoder(STATE, kwargs, copying=True))


def register() -> None:
    """Registers ``Tensor``."""
    Serialization.register(
        torch_serialize_tensor, torch_deserialize_tensor, "Tensor", check_annotations=False
    )
