"""Tuples."""

from __future__ import annotations

from typing import Any

from convelo.compat.tno.serialization import STATE, Serialization
from convelo.wire.compatible import CompatibleDecoder
from convelo.wire.plugins import tuple as core
from convelo.wire.state import builtin

__all__ = ["register", "tuple_deserialize", "tuple_serialize"]


@builtin(core.serialize)
def tuple_serialize(obj: tuple[Any, ...], **_kwargs: Any) -> list[Any]:
    """The items of ``obj``."""
    return core.serialize(obj)


@builtin(core.deserialize)
def tuple_deserialize(obj: list[Any], **kwargs: Any) -> tuple[Any, ...]:
    """A tuple of the items of ``obj``, restored."""
    return core.deserialize(obj, CompatibleDecoder(STATE, kwargs, copying=True))


def register() -> None:
    """Registers ``tuple``."""
    Serialization.register(tuple_serialize, tuple_deserialize, "tuple", check_annotations=False)
