"""Other data in and out of ``.hsq`` files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .api import Converted, convert
    from .base import Format
    from .copying import save
    from .upgrading import upgrade
    from .writing import write

__all__ = ["Converted", "Format", "convert", "save", "upgrade", "write"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Converted": "api:Converted",
        "Format": "base:Format",
        "convert": "api:convert",
        "save": "copying:save",
        "upgrade": "upgrading:upgrade",
        "write": "writing:write",
    },
)
