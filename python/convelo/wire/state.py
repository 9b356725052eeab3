"""What one API knows about types: the registered functions, and how they are called.

The 4.x API calls ``function(value, **kwargs)``, the 5.x API ``function(value, opts)``. Everything
else about serialization is the same for both and lives in :mod:`convelo.wire`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, MutableMapping
from typing import Any, Protocol, TypeVar

import ormsgpack

__all__ = [
    "DEFAULT_PACK_OPTION",
    "Function",
    "State",
    "builtin",
    "check_pair",
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
    """The registered functions of one API, by type name, read anew for each message.

    ``options`` is what that API hands to its functions: a dict of keyword arguments (4.x), or an
    options object (5.x).
    """

    def serializers(self) -> MutableMapping[str, Function]:
        """Serializers by the ``__name__`` of the class."""

    def deserializers(self) -> MutableMapping[str, Function]:
        """Deserializers by the ``__name__`` that the sender's class has."""

    def call(self, function: Function, value: Any, options: Any) -> Any:
        """Calls a registered function the way its API does."""

    def sending(self, keywords: dict[str, Any]) -> Any:
        """Options for a message to a peer; never with pickle."""

    def receiving(self, keywords: dict[str, Any]) -> Any:
        """Options for a message from a peer; never with pickle."""

    def dangerous_pickle(self, options: Any) -> bool:
        """Whether ``options`` ask for pickle where nothing is registered."""


_default: list[State] = []


def set_default(state: State) -> None:
    """Makes ``state`` the one that coders use when none is given."""
    _default[:] = [state]


def default_state() -> State:
    """The state of the 4.x API, once that is imported."""
    if not _default:
        raise RuntimeError("no serializers are registered: import convelo.compat.tno first")
    return _default[0]


def builtin(core: Function) -> Callable[[_AnyFunction], _AnyFunction]:
    """Marks a function of an API as the face of ``core``.

    ``core(value, coder)`` does the same with an :class:`~convelo.wire.coding.Encoder` or
    :class:`~convelo.wire.coding.Decoder`: coders call it directly, so that options, depth and the
    wire's own forms reach nested values.
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
    overwrite: bool,
    repetition: type[Exception],
) -> None:
    """Registers a pair for the names ``types``: all of them, or none.

    Raises:
        TypeError: one of the pair is not callable.
        repetition: a name is taken and ``overwrite`` is false.
    """
    if not callable(serializer):
        raise TypeError(f"The serializer is a {type(serializer).__name__}, not a function.")
    if not callable(deserializer):
        raise TypeError(f"The deserializer is a {type(deserializer).__name__}, not a function.")
    targets = ((state.serializers(), serializer), (state.deserializers(), deserializer))
    if not overwrite:
        for name in types:
            if any(name in target for target, _ in targets):
                raise repetition(
                    f"The logic for type {name} has already been set; pass overwrite=True to "
                    "replace it."
                )
    for target, function in targets:
        for name in types:
            target[name] = function


def check_pair(
    serializer: inspect.Signature,
    deserializer: inspect.Signature,
    types: Collection[str],
    *,
    needs_keywords: bool,
    annotation: type[Exception],
) -> None:
    """Checks what the signatures of a pair promise.

    Both accept ``**kwargs`` (if ``needs_keywords``); the deserializer takes ``obj``, annotated as
    what the serializer returns, and returns one of ``types``.

    Raises:
        TypeError: a parameter is missing.
        annotation: the annotations are missing or do not fit together.
    """
    if needs_keywords:
        for role, signature in (("serializer", serializer), ("deserializer", deserializer)):
            kinds = [parameter.kind for parameter in signature.parameters.values()]
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                raise TypeError(
                    f"The {role} does not accept **kwargs, by which options reach it and the "
                    "(de)serializers it calls: add that parameter and pass it on."
                )
    returned = deserializer.return_annotation
    if returned not in types and getattr(returned, "__name__", None) not in types:
        raise annotation(
            f"The deserializer must be annotated to return {' or '.join(types)}; it says "
            f"{returned!r}. Annotate it, or pass check_annotations=False."
        )
    if "obj" not in deserializer.parameters:
        raise TypeError("The deserializer has no parameter named 'obj', which holds the data.")
    taken = deserializer.parameters["obj"].annotation
    if serializer.return_annotation != taken:
        raise annotation(
            f"The serializer returns {serializer.return_annotation!r}, but 'obj' of the "
            f"deserializer is annotated as {taken!r}: annotate both alike, or pass "
            "check_annotations=False."
        )
