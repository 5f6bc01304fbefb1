"""Files that users write in YAML: values with line numbers, validation and error messages."""

from ratelab.documents.validation import validate
from ratelab.documents.yaml_document import Document, DocumentError, Kind, Place

__all__ = ["Document", "DocumentError", "Kind", "Place", "validate"]
