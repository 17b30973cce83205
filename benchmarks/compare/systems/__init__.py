"""The systems, a module each, which lists its ``CONTENDERS``.

Modules import their libraries inside functions: whoever lists the contenders has none of them.
"""

from __future__ import annotations

import importlib
import pkgutil

from ..contenders import Contender


def contenders() -> dict[str, Contender]:
    """All of them by name, in the order of modules' names."""
    found: dict[str, Contender] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        for contender in importlib.import_module(f"{__name__}.{module.name}").CONTENDERS:
            assert contender.name not in found, contender.name
            found[contender.name] = contender
    return found


def limits() -> set[str]:
    """Names of those that are the machine, not a system."""
    return {name for name, each in contenders().items() if each.is_limit}
