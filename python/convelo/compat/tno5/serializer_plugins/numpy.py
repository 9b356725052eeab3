"""numpy arrays that are no nested lists of numbers: of objects, strided, without dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convelo.compat.tno5.functions import require
from convelo.compat.tno5.packers.serialization import (
    DeserializerOpts,
    Serializer,
    SerializerOpts,
)
from convelo.wire.plugins import numpy as core
from convelo.wire.state import builtin

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["numpy_deserialize", "numpy_serialize", "register"]

require("numpy")


@builtin(core.serialize)
def numpy_serialize(obj: npt.NDArray[Any], opts: SerializerOpts) -> dict[str, Any]:
    """The values of ``obj`` as nested lists, and its shape."""
    return core.serialize(obj)


@builtin(core.deserialize)
def numpy_deserialize(obj: dict[str, Any], opts: DeserializerOpts) -> npt.NDArray[Any]:
    """The array of ``dtype=object`` that ``obj`` describes.

    Raises:
        ValueError: the values do not fill the shape.
    """
    return core.deserialize(Serializer.transform_into_nonnative(obj, opts))


def register() -> None:
    """Registers ``ndarray``."""
    Serializer.register(numpy_serialize, numpy_deserialize, "ndarray", check_annotations=False)
