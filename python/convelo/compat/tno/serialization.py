"""Packing of objects, and the registered functions for types that msgpack does not know.

What is here is the 4.x face of :mod:`convelo.wire`, which does the work.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, Protocol

import ormsgpack

from convelo.compat.tno import serializer_plugins
from convelo.compat.tno.exceptions import AnnotationError, RepetitionError
from convelo.wire import dangerous
from convelo.wire.coding import current_encoder
from convelo.wire.compatible import CompatibleDecoder, CompatibleEncoder
from convelo.wire.state import (
    DEFAULT_PACK_OPTION,
    check_pair,
    set_default,
)
from convelo.wire.state import register as register_pair

__all__ = [
    "DEFAULT_PACK_OPTION",
    "DESERIALIZER_FUNCS",
    "SERIALIZER_FUNCS",
    "STATE",
    "DeserializerFunction",
    "Serialization",
    "SerializerFunction",
    "SupportsSerialization",
    "logger",
]

logger = logging.getLogger("tno.mpc.communication.serialization")

SerializerFunction = Callable[..., Any]
DeserializerFunction = Callable[..., Any]

SERIALIZER_FUNCS: dict[str, SerializerFunction] = {}
"""Serializers by class name. Looked up in this module for each message."""

DESERIALIZER_FUNCS: dict[str, DeserializerFunction] = {}
"""Deserializers by class name. Looked up in this module for each message."""


class SupportsSerialization(Protocol):
    """What a class needs to be registered by :meth:`Serialization.register_class`."""

    def serialize(self, **kwargs: Any) -> Any:
        """What stands for this object: anything that can be sent itself.

        Args:
            kwargs: options, among them ``destination``, the handler (or list of handlers) that the
                message goes to.
        """

    @staticmethod
    def deserialize(obj: Any, **kwargs: Any) -> SupportsSerialization:
        """The object that ``obj`` stands for.

        Args:
            obj: what ``serialize`` returned at the sender, restored unless it is a list.
            kwargs: options, among them ``origin``, the handler that the message came from.
        """


class _State:
    """The functions of this module, called with keyword arguments."""

    def serializers(self) -> dict[str, SerializerFunction]:
        return SERIALIZER_FUNCS

    def deserializers(self) -> dict[str, DeserializerFunction]:
        return DESERIALIZER_FUNCS

    def call(self, function: Callable[..., Any], value: Any, options: dict[str, Any]) -> Any:
        return function(value, **options)

    def sending(self, keywords: dict[str, Any]) -> dict[str, Any]:
        return {**keywords, "use_pickle": False}

    receiving = sending

    def dangerous_pickle(self, options: dict[str, Any]) -> bool:
        return bool(options.get("use_pickle", False))


STATE = _State()
"""What :mod:`convelo.wire` is given to use the functions registered here."""

set_default(STATE)


class Serialization:
    """Packs and unpacks objects, and keeps the functions for types that need them.

    A type that msgpack does not know travels as ``{"type": <class name>, "data": ...}``. Classes
    are told apart by their bare name.
    """

    @staticmethod
    def register_class(
        obj_class: type[SupportsSerialization],
        check_annotations: bool = True,
        overwrite: bool = False,
    ) -> None:
        """Registers the methods ``serialize`` and ``deserialize`` of a class.

        Args:
            obj_class: the class. Both parties register it, under one name.
            check_annotations: check that both methods take ``**kwargs`` and are annotated alike.
            overwrite: replace what is registered for that name.

        Raises:
            AttributeError: the class has no such methods.
            TypeError: they are not functions, or lack a parameter.
            AnnotationError: their annotations are missing or do not fit together.
            RepetitionError: the name is taken.
        """
        Serialization.register(
            obj_class.serialize,
            obj_class.deserialize,
            obj_class.__name__,
            check_annotations=check_annotations,
            overwrite=overwrite,
        )

    set_serialization_logic = register_class

    @staticmethod
    def register(
        serializer: SerializerFunction,
        deserializer: DeserializerFunction,
        *types: str,
        check_annotations: bool = True,
        overwrite: bool = False,
    ) -> None:
        """Registers two functions for the class names ``types``.

        Args:
            serializer: ``serializer(value, **kwargs)`` returns what stands for ``value``.
            deserializer: ``deserializer(obj=data, **kwargs)`` returns the value again.
            types: the ``__name__`` of each class.
            check_annotations: check that both take ``**kwargs`` and are annotated alike.
            overwrite: replace what is registered for these names.

        Raises:
            TypeError: one is not a function, or lacks a parameter.
            AnnotationError: the annotations are missing or do not fit together.
            RepetitionError: a name is taken.
        """
        if check_annotations and callable(serializer) and callable(deserializer):
            check_pair(
                inspect.signature(serializer),
                inspect.signature(deserializer),
                types,
                needs_keywords=True,
                annotation=AnnotationError,
            )
        register_pair(
            STATE, serializer, deserializer, types, overwrite=overwrite, repetition=RepetitionError
        )

    @staticmethod
    def clear_serialization_logic(reload_defaults: bool = True) -> None:
        """Forgets what was registered; keeps the package's own types if ``reload_defaults``."""
        SERIALIZER_FUNCS.clear()
        DESERIALIZER_FUNCS.clear()
        if reload_defaults:
            serializer_plugins.register_defaults()

    @staticmethod
    def default_serialize(obj: Any, use_pickle: bool, **_kwargs: Any) -> bytes:
        """What happens to a type that is not registered: ``obj`` is pickled, or refused.

        Raises:
            NotImplementedError: ``use_pickle`` is false.
        """
        if use_pickle:
            return dangerous.dumps(obj)
        raise NotImplementedError(
            f"There is no serialization function defined for {obj.__class__.__name__} objects."
        )

    @staticmethod
    def default_deserialize(obj: bytes, use_pickle: bool = False, **_kwargs: Any) -> Any:
        """What happens to a type that is not registered: ``obj`` is unpickled, or refused.

        Raises:
            NotImplementedError: ``use_pickle`` is false.
        """
        if use_pickle:
            return dangerous.loads(obj)
        raise NotImplementedError(
            f"There is no deserialization function defined for {obj.__class__.__name__} objects."
        )

    @staticmethod
    def serialize(obj: Any, use_pickle: bool, **kwargs: Any) -> Any:
        """What stands for ``obj`` in a message, by the serializer of its type.

        For serializers that wrap parts of their data themselves. In a message between two parties
        that both use convelo this is an opaque object instead of a dict.

        Raises:
            NotImplementedError: no serializer is registered, and ``use_pickle`` is false.
        """
        options = {**kwargs, "use_pickle": use_pickle}
        encoder = current_encoder()
        if encoder is None or encoder.state is not STATE:
            encoder = CompatibleEncoder(STATE, options, DEFAULT_PACK_OPTION)
        return encoder.wrap(obj, options)

    @staticmethod
    def deserialize(obj: Any, use_pickle: bool = False, **kwargs: Any) -> Any:
        """``obj`` with the wrapped objects in it restored. ``obj`` itself stays as it is.

        Raises:
            NotImplementedError: a type is not registered, and ``use_pickle`` is false.
        """
        options = {**kwargs, "use_pickle": use_pickle}
        return CompatibleDecoder(STATE, options, copying=True).restore(obj)

    @staticmethod
    def collection_deserialize(
        collection_obj: list[Any] | dict[str, Any], **kwargs: Any
    ) -> list[Any] | dict[str, Any]:
        """The items of a list or dict restored; of a wrapper, those of its data.

        Raises:
            ValueError: it is neither list nor dict.
        """
        if isinstance(collection_obj, list):
            return [Serialization.deserialize(item, **kwargs) for item in collection_obj]
        if not isinstance(collection_obj, dict):
            raise ValueError(
                f"A list or a dict was expected, not {type(collection_obj).__name__}."
            )
        if "type" in collection_obj and "data" in collection_obj:
            data = {
                key: Serialization.deserialize(item, **kwargs)
                for key, item in collection_obj["data"].items()
            }
            return {"type": collection_obj["type"], "data": data}
        return {
            key: Serialization.deserialize(item, **kwargs) for key, item in collection_obj.items()
        }

    @staticmethod
    def pack(
        obj: Any,
        msg_id: str | int,
        use_pickle: bool,
        option: int | None = DEFAULT_PACK_OPTION,
        **kwargs: Any,
    ) -> bytes:
        """The body of a message of the 4.x wire: ``obj`` and ``msg_id``.

        Args:
            use_pickle: pickle what has no serializer. Only for bytes that this program unpacks
                itself; messages of a pool are never pickled.
            option: ormsgpack's options.
            kwargs: handed to serializers.

        Raises:
            TypeError: something in ``obj`` cannot be packed.
        """
        encoder = CompatibleEncoder(STATE, {**kwargs, "use_pickle": use_pickle}, option)
        return encoder.pack({"object": obj, "id": msg_id})

    @staticmethod
    def unpack(
        obj: bytes, use_pickle: bool = False, option: int | None = None, **kwargs: Any
    ) -> tuple[str | int, Any]:
        """The id and the object in the body of a message of the 4.x wire.

        Args:
            use_pickle: unpickle what has no deserializer, which lets whoever made ``obj`` run code.
            option: ormsgpack's options.
            kwargs: handed to deserializers.

        Raises:
            ValueError: ``obj`` is not msgpack.
            KeyError: it has no id or no object.
            NotImplementedError: a type is not registered, and ``use_pickle`` is false.
        """
        body = ormsgpack.unpackb(obj, option=option)
        decoder = CompatibleDecoder(STATE, {**kwargs, "use_pickle": use_pickle})
        restored = decoder.restore(body["object"])
        return body["id"], restored


# Here and not in the package's __init__, so that this module is complete by itself.
Serialization.clear_serialization_logic(reload_defaults=True)
