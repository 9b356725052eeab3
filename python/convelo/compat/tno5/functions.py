"""Helpers for modules that need a library which may not be installed."""

from convelo.compat.tno.functions import (
    redirect_importerror_oserror_to_optionalimporterror as redirect_importerror_oserror_to_optionalimporterror,
)
from convelo.compat.tno.functions import require as require
