"""Names of a package whose modules are imported when somebody asks for one of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str], unlisted: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` for a package (PEP 562).

    Args:
        package: Its ``__name__``.
        homes: For each name the module that has it, relative to the package, and after a colon what it is called
            there; without a colon the module itself is meant.
        unlisted: Names that ``dir`` leaves out, as ``help`` and others look up all that it has.

    A name becomes an attribute of the package when it was looked up once, so that the next look costs nothing.
    """

    def getattr_(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module_name, _, attribute = home.partition(":")
        module = import_module(f".{module_name}", package)
        found = getattr(module, attribute) if attribute else module
        setattr(sys.modules[package], name, found)
        return found

    def dir_() -> list[str]:
        special = {name for name in vars(sys.modules[package]) if name.startswith("__")}
        return sorted(special | (homes.keys() - unlisted))

    return getattr_, dir_
