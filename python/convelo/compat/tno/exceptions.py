"""Exceptions about serializers."""

from __future__ import annotations

__all__ = ["AnnotationError", "OptionalImportError", "RepetitionError"]


class AnnotationError(Exception):
    """The annotations of a serializer and its deserializer are missing or do not fit together."""


class RepetitionError(Exception):
    """Something that can be done once was done again, such as registering a type."""


class OptionalImportError(ImportError):
    """A library is not installed that this part of the package needs."""
