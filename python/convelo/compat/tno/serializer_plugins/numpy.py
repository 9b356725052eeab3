"""numpy arrays that are no nested lists of numbers: of objects, strided, without dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convelo.compat.tno.functions import require
from convelo.compat.tno.serialization import Serialization
from convelo.wire.plugins import numpy as core
from convelo.wire.state import builtin

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["numpy_deserialize", "numpy_serialize", "register"]

require("numpy")


@builtin(core.serialize)
def numpy_serialize(obj: npt.NDArray[Any], **_kwargs: Any) -> dict[str, Any]:
    """The values of ``obj`` as nested lists, and its shape."""
    return core.serialize(obj)


@builtin(core.deserialize)
def numpy_deserialize(
    obj: dict[str, Any], use_pickle: bool = False, **kwargs: Any
) -> npt.NDArray[Any]:
    """The array of ``dtype=object`` that ``obj`` describes.

    Raises:
        ValueError: the values do not fill the shape.
    """
    restored = Serialization.deserialize(obj, use_pickle=use_pickle, **kwargs)
    return core.deserialize(restored)


def register() -> None:
    """Registers ``ndarray``."""
    Serialization.register(numpy_serialize, numpy_deserialize, "ndarray", check_annotations=False)
