"""Registers the functions for types that need them."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any, ClassVar, Generic, TypeVar

from convelo.exceptions import AnnotationError
from convelo.wire.faces import register_defaults
from convelo.wire.state import Function, State, register

__all__ = ["Registration"]

_Supported = TypeVar("_Supported")


class Registration(Generic[_Supported]):
    """What the classes of both APIs have in common: they keep the functions for types.

    A type that msgpack does not know travels as ``{"type": <class name>, "data": ...}``. Classes
    are distinguished only by their ``__name__``.
    """

    state: ClassVar[State]

    @classmethod
    def register_class(
        cls, obj_class: type[_Supported], check_annotations: bool = True, overwrite: bool = False
    ) -> None:
        """Registers the methods ``serialize`` and ``deserialize`` of a class.

        Args:
            obj_class: the class. Both parties register it under the same name.
            check_annotations: check that both methods are annotated alike and, in the 4.x API, take
                ``**kwargs``.
            overwrite: replace what is registered for that name.

        Raises:
            AttributeError: the class has no such methods.
            TypeError: they are not functions, or lack a parameter.
            AnnotationError: their annotations are missing or do not match.
            RepetitionError: the name is taken.
        """
        supported: Any = obj_class
        cls.register(
            supported.serialize,
            supported.deserialize,
            supported.__name__,
            check_annotations=check_annotations,
            overwrite=overwrite,
        )

    @classmethod
    def register(
        cls,
        serializer: Function,
        deserializer: Function,
        *types: str,
        check_annotations: bool = True,
        overwrite: bool = False,
    ) -> None:
        """Registers two functions for the class names ``types``: for all of them, or for none.

        Args:
            serializer: called with a value and the API's options (``**kwargs`` in 4.x, ``opts`` in
                5.x); returns what stands for the value.
            deserializer: called with that as ``obj`` and the options; returns the value again.
            types: the ``__name__`` of each class.
            check_annotations: check that both are annotated alike and, in the 4.x API, take
                ``**kwargs``.
            overwrite: replace what is registered for these names.

        Raises:
            TypeError: one is not a function, or lacks a parameter.
            AnnotationError: the annotations are missing or do not match.
            RepetitionError: a name is taken.
        """
        state = cls.state
        if check_annotations and callable(serializer) and callable(deserializer):
            _check(
                state.signature(serializer),
                state.signature(deserializer),
                types,
                takes_keywords=state.takes_keywords,
            )
        register(state, serializer, deserializer, types, overwrite=overwrite)

    @classmethod
    def clear_serialization_logic(cls, reload_defaults: bool = True) -> None:
        """Forgets what was registered, except for the known types if ``reload_defaults``."""
        cls.state.serializers().clear()
        cls.state.deserializers().clear()
        if reload_defaults:
            register_defaults(cls.state)


def _check(
    serializer: inspect.Signature,
    deserializer: inspect.Signature,
    types: Collection[str],
    *,
    takes_keywords: bool,
) -> None:
    if takes_keywords:
        for role, signature in (("serializer", serializer), ("deserializer", deserializer)):
            kinds = [parameter.kind for parameter in signature.parameters.values()]
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                raise TypeError(
                    f"The {role} does not accept **kwargs, which carry options to it and to the "
                    "(de)serializers it calls: add that parameter and pass it on."
                )
    returned = deserializer.return_annotation
    if returned not in types and getattr(returned, "__name__", None) not in types:
        raise AnnotationError(
            f"Expected a deserializer annotated to return {' or '.join(types)}, found "
            f"{returned!r}. Annotate it, or pass check_annotations=False."
        )
    if "obj" not in deserializer.parameters:
        raise TypeError("The deserializer has no parameter named 'obj', which holds the data.")
    taken = deserializer.parameters["obj"].annotation
    if serializer.return_annotation != taken:
        raise AnnotationError(
            f"The serializer returns {serializer.return_annotation!r}, but 'obj' of the "
            f"deserializer is annotated as {taken!r}: give both the same annotation, or pass "
            "check_annotations=False."
        )
