"""Libraries that may not be installed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from convelo.exceptions import OptionalImportError

__all__ = ["available", "redirect_importerror_oserror_to_optionalimporterror", "require"]


def available(library: str) -> bool:
    """Whether ``library`` is installed. Does not import it."""
    try:
        return find_spec(library) is not None
    except (ImportError, ValueError):
        return False


def require(library: str) -> None:
    """Checks that ``library`` is installed; does not import it.

    Raises:
        OptionalImportError: it is not.
    """
    if not available(library):
        raise OptionalImportError(
            f"{library} is not installed; pip install 'convelo[{library}]' installs it."
        )


@contextmanager
def redirect_importerror_oserror_to_optionalimporterror() -> Iterator[None]:
    """Turns an ``ImportError``, or an ``OSError`` from a broken library, into its own kind.

    Raises:
        OptionalImportError: one of them was raised inside.
    """
    try:
        yield
    except OSError as error:
        warnings.warn(f"An optional library cannot be loaded: {error}", stacklevel=3)
        raise OptionalImportError(str(error)) from error
    except ImportError as error:
        raise OptionalImportError(str(error)) from error
