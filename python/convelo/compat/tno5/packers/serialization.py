"""Packing of objects, and the registered functions for types that msgpack does not know.

This is the 5.x face of :mod:`convelo.wire`, which does the work.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import ormsgpack

from convelo.compat.tno5.exceptions import NumpySerializationWarning
from convelo.wire.budget import Budget
from convelo.wire.coding import current_encoder
from convelo.wire.compatible import CompatibleDecoder, CompatibleEncoder
from convelo.wire.plugins.numpy import is_array
from convelo.wire.registration import Registration
from convelo.wire.state import DEFAULT_PACK_OPTION as _PACK_OPTION

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


class _State:
    """The functions of :class:`Serializer`, called with an options object."""

    package = "convelo.compat.tno5.serializer_plugins"
    takes_keywords = False

    def serializers(self) -> dict[str, SerializerFunction]:
        return Serializer._serializer_funcs

    def deserializers(self) -> dict[str, DeserializerFunction]:
        return Serializer._deserializer_funcs

    def call(self, function: Callable[..., Any], value: Any, options: Any) -> Any:
        return function(value, options)

    def serializer(self, core: Callable[..., Any]) -> SerializerFunction:
        def serialize(obj: Any, opts: SerializerOpts) -> Any:
            return core(obj, CompatibleEncoder(self, opts, opts.ormsgpack_option))

        return serialize

    def deserializer(self, core: Callable[..., Any]) -> DeserializerFunction:
        def deserialize(obj: Any, opts: DeserializerOpts) -> Any:
            return CompatibleDecoder(self, opts, copying=True).built(core, obj)

        return deserialize

    def signature(self, function: Callable[..., Any]) -> inspect.Signature:
        try:
            return inspect.signature(function, eval_str=True)
        except Exception:
            # An annotation that is text names something that cannot be looked up.
            return inspect.signature(function)

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


class Serializer(Registration[SupportsSerialization]):
    """Packs and unpacks objects, and keeps the functions for types that need them."""

    state = STATE

    _serializer_funcs: ClassVar[dict[str, SerializerFunction]] = {}
    _deserializer_funcs: ClassVar[dict[str, DeserializerFunction]] = {}

    @classmethod
    def serialize(cls, obj: Any, opts: SerializerOpts = DefaultSerializerOpts) -> bytes:
        """The msgpack document of ``obj``.

        A bare numpy array causes a :class:`NumpySerializationWarning`: it may be unpacked as
        nested lists.

        Raises:
            TypeError: something in ``obj`` cannot be packed.
        """
        if is_array(obj):
            warnings.warn(
                "A numpy array that is packed for the compatible wire may arrive as nested lists; "
                "np.asarray turns them into an array.",
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
        with Budget(len(obj)) as budget:
            budget.pay_document(obj, opts.ormsgpack_option)
            value = ormsgpack.unpackb(obj, option=opts.ormsgpack_option)
            return CompatibleDecoder(STATE, opts).restore(value)

    @classmethod
    def transform_into_native(cls, obj: Any, opts: SerializerOpts) -> Any:
        """What stands for ``obj`` in a message, by the serializer of its type.

        For serializers that wrap parts of their data themselves. In a message between two parties
        that both use convelo, this is an opaque object instead of a dict.

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
        """``obj`` with the wrapped objects in it restored. ``obj`` itself is unchanged.

        Raises:
            NotImplementedError: a type is not registered.
        """
        opts = opts or DefaultDeserializerOpts
        return CompatibleDecoder(STATE, opts, copying=True).restore(obj)


# Here rather than in the package's __init__, so that this module is complete on its own.
Serializer.clear_serialization_logic(reload_defaults=True)
