"""Types that are only sent after both parties asked for it: sets, decimals, dataclasses and so on.

Peers with the genuine package have to register serializers of the same form for what they receive.
"""

from __future__ import annotations

import dataclasses
import decimal
from collections.abc import Callable
from typing import Any, Protocol

from convelo.wire.state import builtin

__all__ = ["register_extras"]


class _Registration(Protocol):
    def register(
        self,
        serializer: Callable[..., Any],
        deserializer: Callable[..., Any],
        *types: str,
        check_annotations: bool = True,
        overwrite: bool = False,
    ) -> None: ...


def register_extras(*classes: type, registration: Any = None) -> None:
    """Registers ``set``, ``frozenset``, ``complex``, ``decimal.Decimal``, and ``classes``.

    Both parties call it with the same classes. A class travels under its bare name as a dict of its
    fields; it is rebuilt by calling it, so what its ``__init__`` checks is checked again.

    Args:
        classes: dataclasses and named tuples.
        registration: ``Serialization`` (which it is without this argument) or, for the 5.0 API,
            ``Serializer``.

    Raises:
        TypeError: one of ``classes`` is neither a dataclass nor a named tuple.
    """
    known: _Registration
    if registration is None:
        from convelo.compat.tno.serialization import Serialization

        known = Serialization
    else:
        known = registration
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
        known.register(
            _face(serialize), _face(deserialize), name, check_annotations=False, overwrite=True
        )


def _face(core: Callable[..., Any]) -> Callable[..., Any]:
    """``core`` for either API: what its registered functions are called with is not needed."""

    @builtin(core)
    def function(value: Any, *_options: Any, **_keywords: Any) -> Any:
        return core(value, None)

    return function


def _items(value: Any, _encoder: Any) -> list[Any]:
    return list(value)


def _builder(build: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    def deserialize(data: list[Any], decoder: Any) -> Any:
        return build(data if decoder is None else decoder.restore(data))

    deserialize.build = build  # type: ignore[attr-defined]
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
            # Past __setattr__, which a frozen dataclass has closed.
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
