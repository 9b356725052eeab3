"""Messages between the parties of a multi-party computation.

The API is the one of ``tno.mpc.communication`` 4.8; :mod:`convelo.compat.tno5` has the one of 5.0,
and :mod:`convelo.sync` has one without ``async``. The transport is compiled
(:mod:`convelo._convelo`).
"""

from __future__ import annotations

from convelo.compat.tno import Pool as Pool
from convelo.compat.tno import Serialization as Serialization
from convelo.compat.tno import SupportsSerialization as SupportsSerialization
from convelo.exceptions import AmbiguousDict as AmbiguousDict
from convelo.exceptions import AnnotationError as AnnotationError
from convelo.exceptions import BodyError as BodyError
from convelo.exceptions import MessageTooLarge as MessageTooLarge
from convelo.exceptions import OptionalImportError as OptionalImportError
from convelo.exceptions import PeerDowngraded as PeerDowngraded
from convelo.exceptions import PeerLost as PeerLost
from convelo.exceptions import PeerNotAuthenticated as PeerNotAuthenticated
from convelo.exceptions import PeerRefused as PeerRefused
from convelo.exceptions import PeerRestarted as PeerRestarted
from convelo.exceptions import PeerUnreachable as PeerUnreachable
from convelo.exceptions import PoolClosed as PoolClosed
from convelo.exceptions import PoolError as PoolError
from convelo.exceptions import QueueFull as QueueFull
from convelo.exceptions import ReceiveError as ReceiveError
from convelo.exceptions import ReceiveTimeout as ReceiveTimeout
from convelo.exceptions import RepetitionError as RepetitionError
from convelo.exceptions import SendError as SendError
from convelo.exceptions import SendTimeout as SendTimeout
from convelo.exceptions import ShutdownError as ShutdownError
from convelo.wire.extras import register_extras as register_extras


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("convelo")
        except PackageNotFoundError:
            raise AttributeError("convelo is not installed, so it has no version") from None
    raise AttributeError(f"module 'convelo' has no attribute '{name}'")
