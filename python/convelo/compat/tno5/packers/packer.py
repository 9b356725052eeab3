"""Turns a message and its id into the body of the 5.x wire, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from convelo.compat.tno5.packers.serialization import (
    DefaultDeserializerOpts,
    DefaultSerializerOpts,
    DeserializerOpts,
    Serializer,
    SerializerOpts,
)

__all__ = ["DefaultPacker", "Packer"]


class Packer(ABC):
    """Turns messages into bytes and bytes into messages."""

    @abstractmethod
    def pack(self, content: Any, msg_id: str) -> bytes:
        """The bytes for ``content`` under ``msg_id``."""

    @abstractmethod
    def pack_multiple(self, content: Any, msg_ids: Iterable[str]) -> tuple[bytes, ...]:
        """The bytes for ``content`` under each of ``msg_ids``."""

    @abstractmethod
    def unpack(self, packet: bytes) -> tuple[str, Any]:
        """The id and the content of ``packet``."""


class DefaultPacker(Packer):
    """Packs with :class:`~convelo.compat.tno5.packers.serialization.Serializer`."""

    def __init__(
        self,
        serializer_opts: SerializerOpts = DefaultSerializerOpts,
        deserializer_opts: DeserializerOpts = DefaultDeserializerOpts,
    ) -> None:
        self.serializer_opts = serializer_opts
        self.deserializer_opts = deserializer_opts

    def pack(self, content: Any, msg_id: str) -> bytes:
        """The body of one message.

        Raises:
            TypeError: something in ``content`` cannot be packed.
        """
        return self.pack_multiple(content, (msg_id,))[0]

    def pack_multiple(self, content: Any, msg_ids: Iterable[str]) -> tuple[bytes, ...]:
        """The bodies of one message under several ids; ``content`` is packed once.

        Raises:
            TypeError: something in ``content`` cannot be packed.
        """
        packed = Serializer.serialize(content, self.serializer_opts)
        return tuple(
            Serializer.serialize({"object": packed, "id": msg_id}, self.serializer_opts)
            for msg_id in msg_ids
        )

    def unpack(self, packet: bytes) -> tuple[str, Any]:
        """The id and the content of the body of a message.

        Raises:
            ValueError: it is not msgpack, or has other keys than ``object`` and ``id``.
            NotImplementedError: a type is not registered.
        """
        body = Serializer.deserialize(packet, self.deserializer_opts)
        if not isinstance(body, dict) or body.keys() != {"id", "object"}:
            found = ", ".join(map(repr, body)) if isinstance(body, dict) else type(body).__name__
            raise ValueError(f"Expected a message with the keys 'id' and 'object', found {found}.")
        return body["id"], Serializer.deserialize(body["object"], self.deserializer_opts)
