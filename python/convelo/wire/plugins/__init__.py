"""How values of known types are written into a message and read from it.

Each module has ``serialize(value, encoder)`` and ``deserialize(data, decoder)`` for the compatible
wire's form of a type; no module imports its library before a value of that library is met.
:data:`PLUGINS` says which type names they serve.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

__all__ = ["PLUGINS", "Plugin", "available"]


class Plugin(NamedTuple):
    """A module of this package."""

    module: str
    library: str | None
    """What has to be installed for it."""
    names: tuple[str, ...]
    """The ``__name__`` of each class that it serves."""


PLUGINS: tuple[Plugin, ...] = (
    Plugin("bitarray", "bitarray", ("bitarray",)),
    Plugin("gmpy", "gmpy2", ("xmpz", "mpz", "mpfr", "mpq", "mpc")),
    Plugin("int", None, ("int",)),
    Plugin("numpy", "numpy", ("ndarray",)),
    Plugin("pandas", "pandas", ("DataFrame", "Series", "Timestamp")),
    Plugin("torch", "torch", ("Tensor",)),
    Plugin("tuple", None, ("tuple",)),
)


def available(library: str) -> bool:
    """Whether ``library`` is installed. Does not import it."""
    try:
        return find_spec(library) is not None
    except (ImportError, ValueError):
        return False
