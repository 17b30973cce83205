"""Open files: the mapping or descriptor, checksums, and the gather that turns record numbers into arrays."""

from .joined import JoinedSource
from .reader import FileSource, Numbers, Source, open_source

__all__ = ["FileSource", "JoinedSource", "Numbers", "Source", "open_source"]
