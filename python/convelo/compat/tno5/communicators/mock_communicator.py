"""A transport without a network, for pools in one process."""

from __future__ import annotations

from convelo.compat.tno5.communicators.communicator import Communicator

__all__ = ["MockCommunicator", "MockConnection"]


class MockConnection:
    """Leads to another communicator of this process."""

    def __init__(self, remote: MockCommunicator) -> None:
        self.identifier = remote.identifier
        self.communicator = remote

    def __str__(self) -> str:
        return f"MockConnection(remote={self.communicator})"


class MockCommunicator(Communicator[MockConnection]):
    """Hands packets to other communicators in this process by calling them.

    Args:
        identifier: The name by which the others know the pool that it belongs to.
    """

    def __init__(self, identifier: str) -> None:
        super().__init__()
        self.identifier = identifier

    async def _initialize(self) -> None:
        pass

    async def _send(self, recipient: MockConnection, packet: bytes) -> None:
        await recipient.communicator.process_packet(self.identifier, packet)

    async def _shutdown(self) -> None:
        pass

    async def process_packet(self, sender_id: str, packet: bytes) -> None:
        """Takes a packet from another communicator."""
        await self.receive_handler(sender_id, packet)

    def __str__(self) -> str:
        return f"MockCommunicator(identifier={self.identifier})"
