"""Writing files: block after block into a part file beside the target, which is put in place when it is complete."""

from .api import HyperSequenceWriter
from .meta import check_meta
from .parts import StalePart, list_parts, remove_part
from .recovery import Recovered, recover

__all__ = ["HyperSequenceWriter", "Recovered", "StalePart", "check_meta", "list_parts", "recover", "remove_part"]
