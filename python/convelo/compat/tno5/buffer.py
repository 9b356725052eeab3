"""Messages that have arrived but have not been received yet, by client."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Buffer"]

T = TypeVar("T")


class Buffer(Generic[T]):
    """Messages by client and id."""

    def __init__(self) -> None:
        self._buffer_per_client: dict[str, dict[str, T]] = {}

    def add_client(self, client_name: str) -> None:
        """Makes an empty buffer for a client.

        Raises:
            ValueError: It already has one.
        """
        if client_name in self._buffer_per_client:
            raise ValueError(f"A buffer already exists for client with name '{client_name}'")
        self._buffer_per_client[client_name] = {}

    def push(self, client_name: str, msg_id: str, content: T) -> None:
        """Adds a message.

        Raises:
            KeyError: The client has no buffer.
            AttributeError: There is a message with that id.
        """
        messages = self.get_client(client_name)
        if msg_id in messages:
            raise AttributeError("A message with this id is already present in the buffer.")
        messages[msg_id] = content

    def has_buffer(self, client_name: str) -> bool:
        """Whether the client has a buffer."""
        return client_name in self._buffer_per_client

    def has_message(self, client_name: str, msg_id: str | None = None) -> bool:
        """Whether a message with that id is there; without an id, whether any is.

        Raises:
            KeyError: The client has no buffer.
        """
        messages = self.get_client(client_name)
        return msg_id in messages if msg_id else bool(messages)

    def pop(self, client_name: str, msg_id: str) -> T:
        """Takes a message out.

        Raises:
            KeyError: The client has no buffer, or there is no message with that id.
        """
        return self.get_client(client_name).pop(msg_id)

    def get_client(self, client_name: str) -> dict[str, T]:
        """The messages of a client by id.

        Raises:
            KeyError: The client has no buffer.
        """
        if client_name not in self._buffer_per_client:
            raise KeyError("No buffer exists for the given client.")
        return self._buffer_per_client[client_name]

    def empty(self, client_name: str | None = None) -> None:
        """Drops a client's messages, leaving it an empty buffer; without a name, drops everything."""
        names = list(self._buffer_per_client) if client_name is None else [client_name]
        for name in names:
            self._buffer_per_client[name] = {}
