"""The API of ``tno.mpc.communication`` 5.0, with its module names.

Change ``tno.mpc.communication`` to ``convelo.compat.tno5`` in imports. If the program makes its own
``ssl.SSLContext`` objects, see :mod:`convelo.compat.tno5.contexts`.
"""

from convelo.compat.tno5 import serializer_plugins as serializer_plugins
from convelo.compat.tno5.communicators import Communicator as Communicator
from convelo.compat.tno5.communicators import HttpCommunicator as HttpCommunicator
from convelo.compat.tno5.communicators import HttpConnection as HttpConnection
from convelo.compat.tno5.communicators import MockCommunicator as MockCommunicator
from convelo.compat.tno5.communicators import MockConnection as MockConnection
from convelo.compat.tno5.contexts import create_ssl_context as create_ssl_context
from convelo.compat.tno5.contexts import remember_ssl_files as remember_ssl_files
from convelo.compat.tno5.exceptions import AnnotationError as AnnotationError
from convelo.compat.tno5.exceptions import CommunicationError as CommunicationError
from convelo.compat.tno5.exceptions import OptionalImportError as OptionalImportError
from convelo.compat.tno5.exceptions import RepetitionError as RepetitionError
from convelo.compat.tno5.packers import DefaultPacker as DefaultPacker
from convelo.compat.tno5.packers import Packer as Packer
from convelo.compat.tno5.packers import Serializer as Serializer
from convelo.compat.tno5.packers.serialization import (
    SupportsSerialization as SupportsSerialization,
)
from convelo.compat.tno5.pool import Pool as Pool

__version__ = "5.0.4"
"""The version of the API that this follows, not of convelo."""
