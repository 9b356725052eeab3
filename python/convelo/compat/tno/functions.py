"""Helpers for modules that need a library that may not be installed."""

from __future__ import annotations

import logging

from convelo.wire.optional import (
    redirect_importerror_oserror_to_optionalimporterror as redirect_importerror_oserror_to_optionalimporterror,
)
from convelo.wire.optional import require as require

redirect_importerror_to_optionalimporterror = redirect_importerror_oserror_to_optionalimporterror


def init(name: str, logger_level: int = logging.INFO) -> logging.Logger:
    """The logger called ``name``, at ``logger_level``.

    The genuine package also installs a handler for SIGTERM and configures logging; this does not:
    both are the program's business.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logger_level)
    return logger
