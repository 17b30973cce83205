"""What a person holds: sequences of batches, and the files they come from."""

from .core import HyperSequence, rebatch
from .joining import concat, mix
from .opening import FetchingHyperSequence, HyperSequenceFile, HyperSequenceView, open_files
from .records import Records

__all__ = [
    "FetchingHyperSequence",
    "HyperSequence",
    "HyperSequenceFile",
    "HyperSequenceView",
    "Records",
    "concat",
    "mix",
    "open_files",
    "rebatch",
]
