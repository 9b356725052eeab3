"""Helpers for modules that need a library which may not be installed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from convelo.compat.tno.exceptions import OptionalImportError
from convelo.wire.plugins import available

__all__ = [
    "init",
    "redirect_importerror_oserror_to_optionalimporterror",
    "redirect_importerror_to_optionalimporterror",
    "require",
]


def init(name: str, logger_level: int = logging.INFO) -> logging.Logger:
    """The logger called ``name``, at ``logger_level``.

    Where the genuine package also installs a handler for SIGTERM and configures logging, this does
    not: both belong to the program.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logger_level)
    return logger


@contextmanager
def redirect_importerror_oserror_to_optionalimporterror() -> Iterator[None]:
    """Turns an ``ImportError``, or an ``OSError`` of a library that is broken, into its own kind.

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


redirect_importerror_to_optionalimporterror = redirect_importerror_oserror_to_optionalimporterror


def require(library: str) -> None:
    """Checks that ``library`` is installed; does not import it.

    Raises:
        OptionalImportError: it is not.
    """
    if not available(library):
        raise OptionalImportError(
            f"{library} is not installed; pip install 'convelo[{library}]' brings it."
        )
