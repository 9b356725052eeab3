"""Tuples: an array of their items."""

from __future__ import annotations

from typing import Any

__all__ = ["deserialize", "serialize"]


def serialize(value: tuple[Any, ...], _encoder: Any = None) -> list[Any]:
    """The items of ``value``."""
    return list(value)


def deserialize(data: list[Any], decoder: Any) -> tuple[Any, ...]:
    """A tuple of the restored items."""
    return tuple(decoder.restore(data))


# Decoders that have restored the items build the value directly.
deserialize.build = tuple  # type: ignore[attr-defined]
