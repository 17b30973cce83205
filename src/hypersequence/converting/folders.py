"""Sources that are folders of files of one format."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import SourceError

#: Whether a file's name, in lower case, is that of a file of some format.
IsNamed: TypeAlias = Callable[[str], bool]


def files_in(sources: Sequence[Any], is_named: IsNamed, kind: str) -> list[Path]:
    """The files among sources, and those in folders among them, in the order of their names.

    Args:
        sources: Paths.
        is_named: Which of a folder's files are meant.
        kind: What messages call these; begins with a pattern.

    Raises:
        SourceError: A folder has none, or there are such files in folders within it.
    """
    found: list[Path] = []
    for source in map(Path, sources):
        if not source.is_dir():
            found.append(source)
            continue
        below = _first_below(source, is_named)
        if below is not None:
            pattern = kind.split()[0].strip(",")
            raise SourceError(
                f"{source}: has a folder with {below}, and whether that is meant is not clear; "
                f"'{source}/**/{pattern}' takes the files in all folders, '{source}/{pattern}' those in this one alone"
            )
        inside = sorted(path for path in source.iterdir() if _is_data(path, is_named))
        if not inside:
            raise SourceError(f"{source}: no file in this folder is called {kind}")
        found += inside
    return found


def _is_data(path: Path, is_named: IsNamed) -> bool:
    return is_named(path.name.lower()) and path.name[0] not in "._" and path.is_file()


def _first_below(folder: Path, is_named: IsNamed) -> Path | None:
    """A file of some format in the folders within a folder; ``None`` if none is there."""
    seen = {folder.resolve()}  # links may lead back, and there is no end then
    for parent, folders, names in os.walk(folder, followlinks=True):
        files = (Path(parent, name) for name in sorted(names))
        found = next((path for path in files if _is_data(path, is_named)), None)
        if found is not None and Path(parent) != folder:
            return found
        targets = {name: Path(parent, name).resolve() for name in sorted(folders) if name[0] not in "._"}
        folders[:] = [name for name, target in targets.items() if target not in seen]
        seen.update(targets.values())
    return None


def is_folder_of(is_named: IsNamed, path: Path) -> bool:
    """Whether a path is a folder with such files, and nothing that ``datasets`` saved."""
    saved = any((path / name).exists() for name in ("dataset_dict.json", "state.json"))
    return path.is_dir() and not saved and any(_is_data(each, is_named) for each in path.iterdir())


def ends_in(*endings: str) -> IsNamed:
    """Names with one of these endings."""
    return lambda name: name.endswith(endings)
