"""Packing of objects, and the registered functions for types that msgpack does not know.

What is here is the 5.x face of :mod:`convelo.wire`, which does the work.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import ormsgpack

from convelo.compat.tno5 import serializer_plugins
from convelo.compat.tno5.exceptions import (
    AnnotationError,
    NumpySerializationWarning,
    RepetitionError,
)
from convelo.wire.coding import current_encoder
from convelo.wire.compatible import CompatibleDecoder, CompatibleEncoder
from convelo.wire.plugins.numpy import is_array
from convelo.wire.state import DEFAULT_PACK_OPTION as _PACK_OPTION
from convelo.wire.state import check_pair
from convelo.wire.state import register as register_pair

__all__ = [
    "DEFAULT_PACK_OPTION",
    "DEFAULT_UNPACK_OPTION",
    "STATE",
    "DefaultDeserializerOpts",
    "DefaultSerializerOpts",
    "DeserializerFunction",
    "DeserializerOpts",
    "Serializer",
    "SerializerFunction",
    "SerializerOpts",
    "SupportsSerialization",
    "logger",
]

logger = logging.getLogger("tno.mpc.communication.packers.serialization")

DEFAULT_PACK_OPTION: int | None = _PACK_OPTION
DEFAULT_UNPACK_OPTION: int | None = None

SerializerFunction = Callable[..., Any]
DeserializerFunction = Callable[..., Any]


@dataclass(frozen=True)
class SerializerOpts:
    """How to serialize."""

    fallback_pickle: bool = False
    """Pickle what has no serializer. Messages of a pool are never pickled."""
    ormsgpack_option: int | None = DEFAULT_PACK_OPTION
    """ormsgpack's options for packing."""


@dataclass(frozen=True)
class DeserializerOpts:
    """How to deserialize."""

    fallback_pickle: bool = False
    """Unpickle what has no deserializer. Messages of a pool are never unpickled."""
    ormsgpack_option: int | None = DEFAULT_UNPACK_OPTION
    """ormsgpack's options for unpacking."""


DefaultSerializerOpts = SerializerOpts()
DefaultDeserializerOpts = DeserializerOpts()


class SupportsSerialization(Protocol):
    """What a class needs to be registered by :meth:`Serializer.register_class`."""

    def serialize(self, opts: SerializerOpts) -> Any:
        """What stands for this object: anything that can be sent itself."""

    @staticmethod
    def deserialize(obj: Any, opts: DeserializerOpts) -> SupportsSerialization:
        """The object for ``obj``: what ``serialize`` returned, restored unless it is a list."""


class Serializer:
    """Packs and unpacks objects, and keeps the functions for types that need them.

    A type that msgpack does not know travels as ``{"type": <class name>, "data": ...}``. Classes
    are told apart by their bare name.
    """

    _serializer_funcs: ClassVar[dict[str, SerializerFunction]] = {}
    _deserializer_funcs: ClassVar[dict[str, DeserializerFunction]] = {}

    @classmethod
    def register_class(
        cls,
        obj_class: type[SupportsSerialization],
        check_annotations: bool = True,
        overwrite: bool = False,
    ) -> None:
        """Registers the methods ``serialize`` and ``deserialize`` of a class.

        Args:
            obj_class: the class. Both parties register it, under one name.
            check_annotations: check that both methods are annotated alike.
            overwrite: replace what is registered for that name.

        Raises:
            AttributeError: the class has no such methods.
            TypeError: they are not functions, or lack a parameter.
            AnnotationError: their annotations are missing or do not fit together.
            RepetitionError: the name is taken.
        """
        cls.register(
            obj_class.serialize,
            obj_class.deserialize,
            obj_class.__name__,
            check_annotations=check_annotations,
            overwrite=overwrite,
        )

    @classmethod
    def register(
        cls,
        serializer: SerializerFunction,
        deserializer: DeserializerFunction,
        *types: str,
        check_annotations: bool = True,
        overwrite: bool = False,
    ) -> None:
        """Registers two functions for the class names ``types``.

        Args:
            serializer: ``serializer(value, opts)`` returns what stands for ``value``.
            deserializer: ``deserializer(obj, opts)`` returns the value again.
            types: the ``__name__`` of each class.
            check_annotations: check that both are annotated alike.
            overwrite: replace what is registered for these names.

        Raises:
            TypeError: one is not a function, or lacks a parameter.
            AnnotationError: the annotations are missing or do not fit together.
            RepetitionError: a name is taken.
        """
        if check_annotations and callable(serializer) and callable(deserializer):
            check_pair(
                _signature(serializer),
                _signature(deserializer),
                types,
                needs_keywords=False,
                annotation=AnnotationError,
            )
        register_pair(
            STATE, serializer, deserializer, types, overwrite=overwrite, repetition=RepetitionError
        )

    @classmethod
    def clear_serialization_logic(cls, reload_defaults: bool = True) -> None:
        """Forgets what was registered; keeps the package's own types if ``reload_defaults``."""
        cls._serializer_funcs.clear()
        cls._deserializer_funcs.clear()
        if reload_defaults:
            serializer_plugins.register_defaults()

    @classmethod
    def serialize(cls, obj: Any, opts: SerializerOpts = DefaultSerializerOpts) -> bytes:
        """The msgpack document of ``obj``.

        A numpy array by itself causes a :class:`NumpySerializationWarning`: it may be unpacked as
        nested lists.

        Raises:
            TypeError: something in ``obj`` cannot be packed.
        """
        if is_array(obj):
            warnings.warn(
                "A numpy array that is packed for the compatible wire may arrive as nested lists; "
                "np.asarray makes an array of them.",
                NumpySerializationWarning,
                stacklevel=2,
            )
        opts = opts or DefaultSerializerOpts
        return CompatibleEncoder(STATE, opts, opts.ormsgpack_option).pack(obj)

    @classmethod
    def deserialize(cls, obj: bytes, opts: DeserializerOpts = DefaultDeserializerOpts) -> Any:
        """The object in a msgpack document.

        Raises:
            ValueError: ``obj`` is not msgpack.
            NotImplementedError: a type is not registered.
        """
        opts = opts or DefaultDeserializerOpts
        value = ormsgpack.unpackb(obj, option=opts.ormsgpack_option)
        return CompatibleDecoder(STATE, opts).restore(value)

    @classmethod
    def transform_into_native(cls, obj: Any, opts: SerializerOpts) -> Any:
        """What stands for ``obj`` in a message, by the serializer of its type.

        For serializers that wrap parts of their data themselves. In a message between two parties
        that both use convelo this is an opaque object instead of a dict.

        Raises:
            NotImplementedError: no serializer is registered.
        """
        opts = opts or DefaultSerializerOpts
        encoder = current_encoder()
        if encoder is None or encoder.state is not STATE:
            encoder = CompatibleEncoder(STATE, opts, opts.ormsgpack_option)
        return encoder.wrap(obj, opts)

    @classmethod
    def transform_into_nonnative(cls, obj: Any, opts: DeserializerOpts) -> Any:
        """``obj`` with the wrapped objects in it restored. ``obj`` itself stays as it is.

        Raises:
            NotImplementedError: a type is not registered.
        """
        opts = opts or DefaultDeserializerOpts
        return CompatibleDecoder(STATE, opts, copying=True).restore(obj)


class _State:
    """The functions of :class:`Serializer`, called with an options object."""

    def serializers(self) -> dict[str, SerializerFunction]:
        return Serializer._serializer_funcs

    def deserializers(self) -> dict[str, DeserializerFunction]:
        return Serializer._deserializer_funcs

    def call(self, function: Callable[..., Any], value: Any, options: Any) -> Any:
        return function(value, options)

    def sending(self, keywords: dict[str, Any]) -> SerializerOpts:
        opts: SerializerOpts = keywords.get("opts", DefaultSerializerOpts)
        return replace(opts, fallback_pickle=False) if opts.fallback_pickle else opts

    def receiving(self, keywords: dict[str, Any]) -> DeserializerOpts:
        opts: DeserializerOpts = keywords.get("opts", DefaultDeserializerOpts)
        return replace(opts, fallback_pickle=False) if opts.fallback_pickle else opts

    def dangerous_pickle(self, options: SerializerOpts | DeserializerOpts) -> bool:
        return options.fallback_pickle


STATE = _State()
"""What :mod:`convelo.wire` is given to use the functions registered here."""


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature, with annotations that are text looked up where that is possible."""
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:
        return inspect.signature(function)


# Here and not in the package's __init__, so that this module is complete by itself.
Serializer.clear_serialization_logic(reload_defaults=True)
