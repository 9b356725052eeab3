"""What one API knows about types: the registered functions, and how they are called.

The 4.x API calls ``function(value, **kwargs)``, the 5.x API ``function(value, opts)``. Everything
else about serialization is the same for both and lives in :mod:`convelo.wire`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, MutableMapping
from typing import Any, Protocol, TypeVar

import ormsgpack

from convelo.exceptions import RepetitionError

__all__ = [
    "DEFAULT_PACK_OPTION",
    "Function",
    "State",
    "builtin",
    "default_state",
    "register",
    "set_default",
]

Function = Callable[..., Any]
_AnyFunction = TypeVar("_AnyFunction", bound=Function)

DEFAULT_PACK_OPTION: int = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_SERIALIZE_NUMPY
)


class State(Protocol):
    """The registered functions of one API, by type name, read again for each message.

    ``options`` is what that API hands to its functions: a dict of keyword arguments (4.x), or an
    options object (5.x).
    """

    package: str
    """The package with the API's modules for known types."""
    takes_keywords: bool
    """Whether options come as keyword arguments."""

    def __hash__(self) -> int: ...

    def serializers(self) -> MutableMapping[str, Function]:
        """Serializers by the ``__name__`` of the class."""

    def deserializers(self) -> MutableMapping[str, Function]:
        """Deserializers by the ``__name__`` that the sender's class has."""

    def call(self, function: Function, value: Any, options: Any) -> Any:
        """Calls a registered function the way its API does."""

    def serializer(self, core: Function) -> Function:
        """A serializer of the API that calls ``core(value, encoder)``."""

    def deserializer(self, core: Function) -> Function:
        """A deserializer of the API that calls ``core(data, decoder)``."""

    def signature(self, function: Function) -> inspect.Signature:
        """The signature whose annotations are compared."""

    def sending(self, keywords: dict[str, Any]) -> Any:
        """Options for a message to a peer; never with pickle."""

    def receiving(self, keywords: dict[str, Any]) -> Any:
        """Options for a message from a peer; never with pickle."""

    def dangerous_pickle(self, options: Any) -> bool:
        """Whether ``options`` ask for pickle where nothing is registered."""


_default: list[State] = []


def set_default(state: State) -> None:
    """Makes ``state`` the one that coders use by default."""
    _default[:] = [state]


def default_state() -> State:
    """The state of the 4.x API, once it is imported."""
    if not _default:
        raise RuntimeError("no serializers are registered: import convelo.compat.tno first")
    return _default[0]


def builtin(core: Function) -> Callable[[_AnyFunction], _AnyFunction]:
    """Marks a function of an API as the face of ``core``.

    ``core(value, coder)`` does the same with an :class:`~convelo.wire.coding.Encoder` or
    :class:`~convelo.wire.coding.Decoder`. Coders call it directly, so that options, depth and the
    wire's own forms apply to nested values too.
    """

    def mark(function: _AnyFunction) -> _AnyFunction:
        function.core = core  # type: ignore[attr-defined]
        return function

    return mark


def register(
    state: State,
    serializer: Function,
    deserializer: Function,
    types: Collection[str],
    *,
    overwrite: bool = False,
) -> None:
    """Registers a pair for the names ``types``: all of them, or none.

    Raises:
        TypeError: one of the pair is not callable.
        RepetitionError: a name is taken and ``overwrite`` is false.
    """
    for role, function in (("serializer", serializer), ("deserializer", deserializer)):
        if not callable(function):
            raise TypeError(f"Expected a function as {role}, not {type(function).__name__}.")
    targets = ((state.serializers(), serializer), (state.deserializers(), deserializer))
    if not overwrite:
        for name in types:
            if any(name in target for target, _ in targets):
                raise RepetitionError(
                    f"The logic for type {name} has already been set; pass overwrite=True to "
                    "replace it."
                )
    for target, function in targets:
        for name in types:
            target[name] = function
