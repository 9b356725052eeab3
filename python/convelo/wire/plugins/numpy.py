"""numpy arrays in the compatible wire's own form: nested lists and a shape.

Arrays of native numbers never get here: they travel as plain nested lists, and arrive as lists.
"""

from __future__ import annotations

from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any

from convelo.wire.budget import current_budget

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["MAX_DIMENSIONS", "checked_shape", "deserialize", "filled", "is_array", "serialize"]

MAX_DIMENSIONS = 64

_SCALARS = frozenset((bool, int, float, complex, str, bytes))


def is_array(value: Any) -> bool:
    """Whether ``value`` is a numpy array, and not one of a subclass."""
    kind = type(value)
    return kind.__name__ == "ndarray" and kind.__module__ == "numpy"


def serialize(value: npt.NDArray[Any], _encoder: Any = None) -> dict[str, Any]:
    """``values``, nested as deep as the array has dimensions, and ``shape``."""
    return {"values": value.tolist(), "shape": value.shape}


def deserialize(data: dict[str, Any], _decoder: Any = None) -> npt.NDArray[Any]:
    """An array of ``dtype=object`` and the given shape; without dimensions, of numpy's choice.

    Raises:
        ValueError: the values do not fill the shape.
    """
    import numpy as np

    values, shape = data["values"], data["shape"]
    if not shape:
        if type(values) in _SCALARS:
            current_budget().pay(4 * len(values) if type(values) is str else 0, "arrays of texts")
            return np.array(values)
        # numpy would look for dimensions and a common type in it: as wide as the widest text.
        single: npt.NDArray[Any] = np.fromiter([values], dtype=object, count=1).reshape(())
        return single
    checked = checked_shape(shape)
    flat: Any = [values]
    for _ in checked:
        if any(type(item) is not list and type(item) is not tuple for item in flat):
            raise ValueError("expected lists, nested as deep as the array has dimensions")
        count = sum(map(len, flat))
        current_budget().pay(8 * count, "arrays of objects")
        flat = list(chain.from_iterable(flat))
    return filled(flat, checked)


def checked_shape(shape: Any) -> tuple[int, ...]:
    """``shape`` as a tuple of sizes.

    Raises:
        ValueError: it is not a list of sizes, or has too many of them.
    """
    if not isinstance(shape, list | tuple) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"a shape is a list of at most {MAX_DIMENSIONS} sizes")
    for size in shape:
        if type(size) is not int or not 0 <= size < 1 << 62:
            raise ValueError("the sizes of a shape are integers, 0 or more")
    return tuple(shape)


def filled(flat: list[Any], shape: tuple[int, ...]) -> npt.NDArray[np.object_]:
    """An array of objects with the items of ``flat``, which may be sequences themselves.

    Raises:
        ValueError: there are more or fewer of them than ``shape`` holds.
    """
    import numpy as np

    if len(flat) != prod(shape):
        raise ValueError(f"{len(flat)} values do not fill the shape {shape}")
    return np.fromiter(flat, dtype=object, count=len(flat)).reshape(shape)
