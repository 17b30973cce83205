"""Other data in and out of ``.hsq`` files."""

from .api import Converted, convert
from .base import Format
from .copying import save
from .registry import formats
from .upgrade import upgrade

__all__ = ["Converted", "Format", "convert", "formats", "save", "upgrade"]
