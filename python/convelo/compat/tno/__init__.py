"""The API of ``tno.mpc.communication`` 4.8, with its module names.

Change ``tno.mpc.communication`` to ``convelo.compat.tno`` in imports, or import the names from
:mod:`convelo`.
"""

from convelo.compat.tno import serializer_plugins as serializer_plugins
from convelo.compat.tno.exceptions import AnnotationError as AnnotationError
from convelo.compat.tno.exceptions import OptionalImportError as OptionalImportError
from convelo.compat.tno.exceptions import RepetitionError as RepetitionError
from convelo.compat.tno.pool import Pool as Pool
from convelo.compat.tno.serialization import Serialization as Serialization
from convelo.compat.tno.serialization import SupportsSerialization as SupportsSerialization

__version__ = "4.8.1"
"""The version of the API that this follows, not of convelo."""
