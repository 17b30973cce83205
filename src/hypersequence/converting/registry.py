"""All formats, one module each in ``formats/``, and which of them a source or a target is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, cast

from ..errors import ArgumentError, FileError
from .base import Format


@cache
def formats() -> dict[str, Format]:
    """Every format by its name: whatever stands as ``FORMATS`` in a module of ``converting/formats``."""
    package = import_module(f"{__package__}.formats")
    modules = sorted(module.name for module in iter_modules(package.__path__))
    found: list[Format] = [each for name in modules for each in import_module(f"{package.__name__}.{name}").FORMATS]
    return {each.name: each for each in found}


def format_named(name: str) -> Format:
    """The format of this name.

    Raises:
        ArgumentError: There is none.
    """
    try:
        return formats()[name]
    except KeyError:
        raise ArgumentError(f"no format is called {name!r}; there are: {', '.join(formats())}") from None


def format_of_sources(sources: Sequence[Any]) -> Format:
    """The format of what is to be read, by its kind, its ending, or a look at it.

    Raises:
        FileError: A path at which there is nothing.
        ArgumentError: No format has it, or several sources are of several formats.
    """
    found = {_format_of_source(source).name for source in sources}
    if len(found) > 1:
        raise ArgumentError(f"the sources are of several formats ({', '.join(sorted(found))}); convert them one by one")
    return formats()[found.pop()]


def _format_of_source(source: Any) -> Format:
    readable = [each for each in formats().values() if each.opens is not None]
    if not isinstance(source, str | os.PathLike):
        for each in readable:
            if each.takes(source):
                return each
        raise ArgumentError(
            f"a {type(source).__name__} is no source that convert knows; write() takes iterables and data sets of "
            "PyTorch and TensorFlow"
        )
    path = Path(cast("str", source))
    if not path.exists():
        raise FileError(f"{path}: there is no such file or folder", path=str(path))
    found = _by_ending(path, readable) or next((each for each in readable if each.recognises(path)), None)
    if found is None:
        raise ArgumentError(
            f"{path}: its name does not tell the format; say it (from_=, --from), one of: "
            f"{', '.join(each.name for each in readable)}"
        )
    return found


def format_of_target(path: Path) -> Format:
    """The format that a target's ending asks for.

    Raises:
        ArgumentError: None.
    """
    writable = [each for each in formats().values() if each.writes is not None]
    found = _by_ending(path, writable)
    if found is None:
        known = _by_ending(path, list(formats().values()))
        if known is not None:
            raise ArgumentError(f"{path}: {known.title} are read, not written; convert to Parquet or another format")
        raise ArgumentError(
            f"{path}: its name does not tell the format; say it (to=, --to), one of: "
            f"hsq, {', '.join(each.name for each in writable)}"
        )
    return found


def _by_ending(path: Path, among: list[Format]) -> Format | None:
    """By the longest ending that fits."""
    name = path.name.lower()
    fitting = [(len(ending), each) for each in among for ending in each.endings if name.endswith(ending)]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None
