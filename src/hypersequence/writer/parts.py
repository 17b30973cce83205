"""The part files that interrupted writers left: which there are, what they were to become, and removing them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError
from ..layout import MAGIC
from .locks import is_locked

_NAME = re.compile(r"(.+)\.[0-9a-f]{8}\.part", re.DOTALL)


@dataclass(frozen=True, slots=True)
class StalePart:
    """A part file that some writer left. ``in_use`` is whether a writer still holds it."""

    path: Path
    nbytes: int
    age_s: float
    in_use: bool


def list_parts(folder: Path) -> list[StalePart]:
    """The part files in a folder, oldest first; only files that begin as ours do, or are empty.

    Raises:
        FileError: There is no such folder.
    """
    if not folder.is_dir():
        raise FileError(f"{folder} is no folder; give the folder in which the file was being written")
    return sorted(_parts(folder), key=lambda part: -part.age_s)


def _parts(folder: Path) -> Iterator[StalePart]:
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name) and (part := _look_at(path)) is not None:
            yield part


def _look_at(path: Path) -> StalePart | None:
    """What is known of a part file; nothing if it is none of ours, or has gone in this moment."""
    try:
        if path.is_symlink() or not path.is_file():
            return None
        with path.open("rb") as file:
            if file.read(len(MAGIC)) not in (MAGIC, b""):
                return None
            status, in_use = os.fstat(file.fileno()), is_locked(file.fileno())
    except (FileNotFoundError, PermissionError):
        return None
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error}", path=str(path)) from error
    return StalePart(path, status.st_size, time.time() - status.st_mtime, in_use)


def remove_part(part: StalePart) -> None:
    """Remove a part file that no writer holds; nothing happens if it has gone meanwhile.

    Raises:
        FileError: Somebody is writing it, by now if not before; or the file system refused.
    """
    try:
        with part.path.open("rb") as file:
            if part.in_use or is_locked(file.fileno()):
                raise FileError(f"{part.path} is being written right now; it was not removed", path=str(part.path))
            if os.name == "posix":
                part.path.unlink()  # while it is held
        if os.name != "posix":  # where no open file can be removed, neither by us nor while a writer has it
            part.path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{part.path}: could not be removed: {error}", path=str(part.path)) from error


def target_of(path: Path) -> Path:
    """The file that a part file was to become; any other file is its own target."""
    match = _NAME.fullmatch(path.name)
    return path.with_name(match[1]) if match else path


def parts_of(target: Path) -> list[StalePart]:
    """The part files of a target, oldest first."""
    try:
        target = Path(os.path.realpath(target))
        mine = [path for path in target.parent.iterdir() if path != target and target_of(path) == target]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise FileError(f"{target}: its folder cannot be listed ({error}); give the part file's path") from error
    return sorted((part for path in mine if (part := _look_at(path)) is not None), key=lambda part: -part.age_s)
