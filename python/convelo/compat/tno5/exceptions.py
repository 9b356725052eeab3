"""Exceptions of the 5.0 API."""

from __future__ import annotations

from convelo.exceptions import AnnotationError as AnnotationError
from convelo.exceptions import OptionalImportError as OptionalImportError
from convelo.exceptions import RepetitionError as RepetitionError

__all__ = [
    "AnnotationError",
    "CommunicationError",
    "NumpySerializationWarning",
    "OptionalImportError",
    "RepetitionError",
]


class CommunicationError(Exception):
    """A message could not be sent or received."""


class NumpySerializationWarning(Warning):
    """A numpy array is packed for the compatible wire, where it may arrive as nested lists."""
