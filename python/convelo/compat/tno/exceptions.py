"""Exceptions about serializers."""

from convelo.exceptions import AnnotationError as AnnotationError
from convelo.exceptions import OptionalImportError as OptionalImportError
from convelo.exceptions import RepetitionError as RepetitionError
