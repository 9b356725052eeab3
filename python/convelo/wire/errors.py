"""What goes wrong between values and bytes, in more detail than :mod:`convelo.exceptions`."""

from __future__ import annotations

from convelo.exceptions import BodyError

__all__ = ["TooDeep", "TooLarge", "Undecodable", "UnknownType"]


class Undecodable(BodyError, ValueError):
    """What arrived is not a value of its wire: cut off, malformed, or beyond a limit."""


class TooLarge(Undecodable):
    """What arrived would take far more memory than it has bytes."""

    def __init__(self, size: int, what: str) -> None:
        super().__init__(
            f"{size} bytes arrived that stand for far more memory, in {what}: expected at most 64 "
            "times their size and 1 MiB. Send it in parts, or in a form that is not compressed."
        )


class TooDeep(BodyError, RecursionError):
    """What arrived is nested deeper than any sender may nest."""


class UnknownType(BodyError, NotImplementedError):
    """What arrived names a type for which no deserializer is registered here."""

    def __init__(self, name: object, data: object) -> None:
        super().__init__(
            f"There is no deserialization function defined for the type {repr(name)[:200]}, "
            f"whose data arrived as {type(data).__name__}. Register the class here under the name "
            "that it has at the sender, or import the module that does so. If the sender uses "
            "pickle: pickled objects are refused, because loading one runs code of the sender's "
            "choice."
        )
        self.type_name = name
