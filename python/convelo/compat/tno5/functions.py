"""Helpers for modules that need a library that may not be installed."""

from convelo.wire.optional import (
    redirect_importerror_oserror_to_optionalimporterror as redirect_importerror_oserror_to_optionalimporterror,
)
from convelo.wire.optional import require as require
