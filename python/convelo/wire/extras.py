"""Types that are only sent if both parties ask for it: sets, decimals, dataclasses and so on.

Peers with the genuine package must register serializers of the same form for what they receive.
"""

from __future__ import annotations

import dataclasses
import decimal
from collections.abc import Callable
from typing import Any

from convelo.wire.budget import current_budget
from convelo.wire.registration import Registration
from convelo.wire.state import builtin, default_state, register

__all__ = ["register_extras"]

# Bytes of memory for a set, and at most for an item in its table.
_SET_MEMORY = 240
_ITEM_MEMORY = 128


def register_extras(
    *classes: type, registration: type[Registration[Any]] | None = None
) -> None:
    """Registers ``set``, ``frozenset``, ``complex``, ``decimal.Decimal``, and ``classes``.

    Both parties call it with the same classes. An object travels as the ``__name__`` of its class
    and a dict of its fields; it is rebuilt by calling the class, so ``__init__`` checks it again.

    Args:
        classes: dataclasses and named tuples.
        registration: ``Serialization`` (the default) or, for the 5.0 API, ``Serializer``.

    Raises:
        TypeError: one of ``classes`` is neither a dataclass nor a named tuple.
    """
    state = default_state() if registration is None else registration.state
    pairs: list[tuple[str, Callable[..., Any], Callable[..., Any]]] = [
        ("set", _items, _builder(set)),
        ("frozenset", _items, _builder(frozenset)),
        ("complex", _complex_parts, _complex),
        ("Decimal", _decimal_text, _decimal),
    ]
    for made in classes:
        if dataclasses.is_dataclass(made):
            pairs.append((made.__name__, *_dataclass(made)))
        elif issubclass(made, tuple) and hasattr(made, "_fields"):
            pairs.append((made.__name__, *_named_tuple(made)))
        else:
            raise TypeError(f"{made!r} is neither a dataclass nor a named tuple")
    for name, serialize, deserialize in pairs:
        register(state, _face(serialize), _face(deserialize), (name,), overwrite=True)


def _face(core: Callable[..., Any]) -> Callable[..., Any]:
    """``core`` for either API; the options that an API passes are not needed."""

    @builtin(core)
    def function(value: Any, *_options: Any, **_keywords: Any) -> Any:
        return core(value, None)

    return function


def _items(value: Any, _encoder: Any) -> list[Any]:
    return list(value)


def _builder(build: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    def deserialize(data: list[Any], decoder: Any) -> Any:
        return built(data if decoder is None else decoder.restore(data))

    def built(items: list[Any]) -> Any:
        current_budget().pay(_SET_MEMORY + _ITEM_MEMORY * len(items), "sets")
        return build(items)

    deserialize.build = built  # type: ignore[attr-defined]
    return deserialize


def _complex_parts(value: complex, _encoder: Any) -> list[float]:
    return [value.real, value.imag]


def _complex(data: list[float], _decoder: Any) -> complex:
    real, imaginary = data
    return complex(real, imaginary)


def _decimal_text(value: decimal.Decimal, _encoder: Any) -> str:
    return str(value)


def _decimal(data: str, _decoder: Any) -> decimal.Decimal:
    return decimal.Decimal(data)


def _dataclass(made: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    names = [field.name for field in dataclasses.fields(made)]
    later = [field.name for field in dataclasses.fields(made) if not field.init]

    def serialize(value: Any, _encoder: Any) -> dict[str, Any]:
        return {name: getattr(value, name) for name in names}

    def deserialize(data: dict[str, Any], _decoder: Any) -> Any:
        given = dict(data)
        rest = {name: given.pop(name) for name in later}
        value = made(**given)
        for name, item in rest.items():
            # Bypasses __setattr__, which a frozen dataclass blocks.
            object.__setattr__(value, name, item)
        return value

    return serialize, deserialize


def _named_tuple(made: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def serialize(value: Any, _encoder: Any) -> dict[str, Any]:
        fields: dict[str, Any] = value._asdict()
        return fields

    def deserialize(data: dict[str, Any], _decoder: Any) -> Any:
        return made(**data)

    return serialize, deserialize
