"""Packing of objects, and the registered functions for types that msgpack does not know.

This is the 4.x face of :mod:`convelo.wire`, which does the work.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, Protocol

import ormsgpack

from convelo.wire import dangerous
from convelo.wire.budget import Budget
from convelo.wire.coding import current_encoder
from convelo.wire.compatible import CompatibleDecoder, CompatibleEncoder
from convelo.wire.registration import Registration
from convelo.wire.state import DEFAULT_PACK_OPTION, set_default

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

    package = "convelo.compat.tno.serializer_plugins"
    takes_keywords = True

    def serializers(self) -> dict[str, SerializerFunction]:
        return SERIALIZER_FUNCS

    def deserializers(self) -> dict[str, DeserializerFunction]:
        return DESERIALIZER_FUNCS

    def call(self, function: Callable[..., Any], value: Any, options: dict[str, Any]) -> Any:
        return function(value, **options)

    def serializer(self, core: Callable[..., Any]) -> SerializerFunction:
        def serialize(obj: Any, use_pickle: bool = False, **kwargs: Any) -> Any:
            options = {**kwargs, "use_pickle": use_pickle}
            return core(obj, CompatibleEncoder(self, options, DEFAULT_PACK_OPTION))

        return serialize

    def deserializer(self, core: Callable[..., Any]) -> DeserializerFunction:
        def deserialize(obj: Any, use_pickle: bool = False, **kwargs: Any) -> Any:
            options = {**kwargs, "use_pickle": use_pickle}
            return CompatibleDecoder(self, options, copying=True).built(core, obj)

        return deserialize

    def signature(self, function: Callable[..., Any]) -> inspect.Signature:
        return inspect.signature(function)

    def sending(self, keywords: dict[str, Any]) -> dict[str, Any]:
        return {**keywords, "use_pickle": False}

    receiving = sending

    def dangerous_pickle(self, options: dict[str, Any]) -> bool:
        return bool(options.get("use_pickle", False))


STATE = _State()
"""What :mod:`convelo.wire` is given to use the functions registered here."""

set_default(STATE)


class Serialization(Registration[SupportsSerialization]):
    """Packs and unpacks objects, and keeps the functions for types that need them."""

    state = STATE

    @classmethod
    def set_serialization_logic(
        cls,
        obj_class: type[SupportsSerialization],
        check_annotations: bool = True,
        overwrite: bool = False,
    ) -> None:
        """The name of :meth:`register_class` in the documentation of 4.8."""
        cls.register_class(obj_class, check_annotations, overwrite)

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
        that both use convelo, this is an opaque object instead of a dict.

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
        """``obj`` with the wrapped objects in it restored. ``obj`` itself is unchanged.

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
                f"Expected a list or a dict, not {type(collection_obj).__name__}."
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
            use_pickle: unpickle what has no deserializer: the author of ``obj`` can then run code.
            option: ormsgpack's options.
            kwargs: handed to deserializers.

        Raises:
            ValueError: ``obj`` is not msgpack.
            KeyError: it has no id or no object.
            NotImplementedError: a type is not registered, and ``use_pickle`` is false.
        """
        with Budget(len(obj)) as budget:
            budget.pay_document(obj, option)
            body = ormsgpack.unpackb(obj, option=option)
            decoder = CompatibleDecoder(STATE, {**kwargs, "use_pickle": use_pickle})
            restored = decoder.restore(body["object"])
        return body["id"], restored


# Here rather than in the package's __init__, so that this module is complete on its own.
Serialization.clear_serialization_logic(reload_defaults=True)
