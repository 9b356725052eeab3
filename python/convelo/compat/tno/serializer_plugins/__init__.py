"""The types that the package knows in addition to msgpack's, one module per library.

No module imports its library before a value of that library is met; importing one whose library is
not installed raises :class:`~convelo.compat.tno.exceptions.OptionalImportError`.
"""

from functools import partial

from convelo.compat.tno.serialization import STATE
from convelo.wire import faces

__all__ = ["PLUGINS", "PLUGINS_STR", "register_defaults"]

PLUGINS_STR, PLUGINS = faces.modules_of(STATE)
"""The names of all modules; and those modules whose libraries are installed."""

register_defaults = partial(faces.register_defaults, STATE)
"""Registers the types of every library that is installed."""
