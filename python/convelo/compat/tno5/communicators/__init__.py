"""Transports of the 5.0 API."""

from convelo.compat.tno5.communicators.communicator import Communicator as Communicator
from convelo.compat.tno5.communicators.http_communicator import (
    HttpCommunicator as HttpCommunicator,
)
from convelo.compat.tno5.communicators.http_communicator import HttpConnection as HttpConnection
from convelo.compat.tno5.communicators.mock_communicator import (
    MockCommunicator as MockCommunicator,
)
from convelo.compat.tno5.communicators.mock_communicator import MockConnection as MockConnection
