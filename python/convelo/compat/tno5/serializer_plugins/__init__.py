"""The types that the package knows beside those of msgpack, one module for each library.

No module imports its library before a value of that library is met; importing one whose library is
not installed raises :class:`~convelo.compat.tno5.exceptions.OptionalImportError`.
"""

from convelo.compat.tno5.serializer_plugins._register import PLUGINS as PLUGINS
from convelo.compat.tno5.serializer_plugins._register import PLUGINS_STR as PLUGINS_STR
from convelo.compat.tno5.serializer_plugins._register import register_defaults as register_defaults
