"""Mending a damaged file from a good copy of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from ..errors import FileError, FormatError
from ..layout import MAX_HEADER_NBYTES, TRAILER_NBYTES, Header, open_parts, parse_header, parse_trailer
from ..progress import ByteProgress
from ..source.handle import FileHandle
from .integrity import verify

_PIECE_NBYTES = 1 << 20


def repair(path: str | os.PathLike[str], good: str | os.PathLike[str], *, progress: bool = False) -> int:
    """Make a damaged file what it was, by copying what differs from a good copy, in place.

    The copy is verified first, and nothing is written unless it is whole and a copy of this very file: header and
    trailer must be the same in both, as far as they are sound. Interrupted, it can be done again.

    Args:
        path: The damaged file; it may have been cut off, too.
        good: Its copy.
        progress: Show progress bars on a terminal.

    Returns:
        How many bytes were different.

    Raises:
        FileError: ``good`` is damaged itself or of another version, or is no copy of ``path``; or the file system
            refused.

    >>> import shutil
    >>> copy = shutil.copy(example_path, folder / "copy.hsq")
    >>> with open(copy, "r+b") as file:
    ...     _ = file.seek(5000), file.write(b"damage")
    >>> verify(copy).ok, repair(copy, example_path), verify(copy).ok
    (False, 6, True)
    """
    found = verify(good, progress=progress)
    if not found.ok or not found.has_checksums:
        reason = f"it is damaged itself, {found.problems[0]}" if found.problems else "it has no checksums"
        raise FileError(f"{found.path}: cannot be repaired from: {reason}", path=found.path)
    source = FileHandle(found.path)
    try:
        with Path(path).open("r+b", buffering=0) as file:
            nbytes = file.seek(0, os.SEEK_END)
            header = open_parts(source.read, source.nbytes, source.path).header
            if not _is_copy(file, nbytes, source, header, str(path)):
                raise FileError(
                    f"{path}: {found.path} is no copy of this file but another one (or both ends of this one are "
                    "damaged, so that nobody can tell): replace the file as a whole",
                    path=str(path),
                )
            with ByteProgress(f"repairing {Path(path).name}", source.nbytes, progress) as bar:
                n_different = sum(_mend(file, source, start, bar) for start in range(0, source.nbytes, _PIECE_NBYTES))
            file.truncate(source.nbytes)
            os.fsync(file.fileno())
    finally:
        source.close()
    return n_different + max(0, nbytes - source.nbytes)


def _is_copy(file: IO[bytes], nbytes: int, source: FileHandle, header: Header, path: str) -> bool:
    """Whether header and trailer are those of the source, as far as each is sound; one of them at least."""
    return {True} == {_same_header(file, source, header, path), _same_trailer(file, nbytes, source, header, path)} - {
        None
    }


def _same_header(file: IO[bytes], source: FileHandle, header: Header, path: str) -> bool | None:
    """``None`` where it is damaged."""
    file.seek(0)
    try:
        parse_header(data := file.read(MAX_HEADER_NBYTES), path)
    except FormatError:
        return None
    return data[: header.nbytes] == source.read(0, header.nbytes)


def _same_trailer(file: IO[bytes], nbytes: int, source: FileHandle, header: Header, path: str) -> bool | None:
    """``None`` where it is damaged, or not there."""
    file.seek(max(0, nbytes - TRAILER_NBYTES))
    data = file.read(TRAILER_NBYTES)
    try:
        parse_trailer(data, path, nbytes, header)
    except FormatError as error:
        if error.rule in ("T1", "T2"):
            return None
    return data == source.read(source.nbytes - TRAILER_NBYTES, TRAILER_NBYTES)


def _mend(file: IO[bytes], source: FileHandle, start: int, bar: ByteProgress) -> int:
    """Make a piece of the file what it should be; how many bytes were not."""
    should = source.read(start, _PIECE_NBYTES)
    file.seek(start)
    have = file.read(len(should))
    bar.advance(len(should))
    if have == should:
        return 0
    file.seek(start)
    view = memoryview(should)
    while view:
        view = view[file.write(view) :]
    return len(should) - sum(map(int.__eq__, have, should))
