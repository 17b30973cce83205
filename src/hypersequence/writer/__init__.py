"""Writing files: block after block into a part file beside the target, which is put in place when it is complete."""

from .api import HyperSequenceWriter
from .partfile import StalePart, list_parts, remove_part

__all__ = ["HyperSequenceWriter", "StalePart", "list_parts", "remove_part"]
