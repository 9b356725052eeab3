"""What a pool of the 5.0 API expects of a transport."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from enum import IntEnum, auto
from typing import Any, Generic, TypeVar

__all__ = [
    "Communicator",
    "CommunicatorState",
    "IllegalStateAction",
    "ReceiveHandlerType",
    "require",
    "state_of",
    "stop",
]

Connection = TypeVar("Connection")
ReceiveHandlerType = Callable[[str, bytes], Awaitable[None]]
"""Called with the name of the connection and the packet that arrived on it."""


class CommunicatorState(IntEnum):
    """The life of a communicator, in order."""

    UNINITIALIZED = auto()
    """Made; connections may be added."""
    STARTED = auto()
    """Packets may be sent."""
    STOPPED = auto()
    """Over."""


class IllegalStateAction(Exception):
    """A communicator was asked to do something too early or too late."""

    def __init__(self, action: str, curr_state: CommunicatorState) -> None:
        super().__init__(f"Illegal: Cannot perform '{action}' while state is {curr_state.name}.")
        self.action = action
        self.curr_state = curr_state


class Communicator(Generic[Connection], ABC):
    """Sends packets of bytes to named connections, and hands on what arrives from them.

    A custom transport implements ``_initialize``, ``_send`` and ``_shutdown``, and awaits
    ``self.receive_handler(name, packet)`` for each packet that arrives.
    """

    def __init__(self) -> None:
        self._receive_handler: ReceiveHandlerType | None = None
        self._connections: dict[str, Connection] = {}
        self._state = CommunicatorState.UNINITIALIZED

    def set_receive_handler(self, receive_handler: ReceiveHandlerType) -> None:
        """Sets what is called for each packet that arrives. A pool sets itself."""
        self._receive_handler = receive_handler

    @property
    def receive_handler(self) -> ReceiveHandlerType:
        """What is called for each packet that arrives.

        Raises:
            AttributeError: It is not set.
        """
        if self._receive_handler is None:
            raise AttributeError("The receive handler is not set.")
        return self._receive_handler

    def add_connection(self, name: str, connection: Connection) -> None:
        """Adds a connection under a name.

        Raises:
            IllegalStateAction: The communicator was already started.
            KeyError: The name is taken.
        """
        require(self, CommunicatorState.UNINITIALIZED, "add_connection")
        if name in self._connections:
            raise KeyError(f"Connection with name '{name}' already registered!")
        self._connections[name] = connection

    async def initialize(self) -> None:
        """Starts the communicator.

        Raises:
            IllegalStateAction: It was already started.
        """
        require(self, CommunicatorState.UNINITIALIZED, "start")
        self._state = CommunicatorState.STARTED
        try:
            await self._initialize()
        except BaseException:
            self._state = CommunicatorState.UNINITIALIZED
            raise

    async def send(self, recipient: str, packet: bytes) -> None:
        """Sends a packet to the connection of that name.

        Raises:
            IllegalStateAction: The communicator is not running.
            KeyError: There is no such connection.
        """
        require(self, CommunicatorState.STARTED, "send")
        if recipient not in self._connections:
            raise KeyError(f"No connection registered with name '{recipient}'")
        await self._send(self._connections[recipient], packet)

    async def shutdown(self) -> None:
        """Ends the communicator.

        Raises:
            IllegalStateAction: It is not running.
        """
        require(self, CommunicatorState.STARTED, "shutdown")
        self._state = CommunicatorState.STOPPED
        await self._shutdown()

    @abstractmethod
    async def _initialize(self) -> None: ...

    @abstractmethod
    async def _send(self, recipient: Connection, packet: bytes) -> None: ...

    @abstractmethod
    async def _shutdown(self) -> None: ...


# Functions, because a name in the class could clash with one in a user's subclass.


def state_of(communicator: Communicator[Any]) -> CommunicatorState:
    """Which stage of its life a communicator is in."""
    return communicator._state


def require(communicator: Communicator[Any], state: CommunicatorState, action: str) -> None:
    """Checks that a communicator is in the state that an action needs.

    Raises:
        IllegalStateAction: It is not.
    """
    if communicator._state != state:
        raise IllegalStateAction(action, communicator._state)


def stop(communicator: Communicator[Any]) -> None:
    """Ends a communicator at once, from outside any loop."""
    communicator._state = CommunicatorState.STOPPED
