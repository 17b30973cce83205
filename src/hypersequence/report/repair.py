"""Mending a damaged file from a good copy of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from ..errors import FileError, FormatError
from ..layout import TRAILER_NBYTES, Header, open_parts, parse_header, parse_trailer
from ..progress import ByteProgress
from ..source.handle import FileHandle
from .integrity import verify

_PIECE_NBYTES = 1 << 20


def repair(path: str | os.PathLike[str], good: str | os.PathLike[str], *, progress: bool = False) -> int:
    """Make a damaged file what it was, by copying what differs from a good copy, in place.

    The copy is verified first, and nothing is written unless it is whole and a copy of this very file: the ids in both
    agree, which two writings of the same records do not. Interrupted, it can be done again.

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
            if not _is_copy(file, nbytes, header, str(path)):
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


def _is_copy(file: IO[bytes], nbytes: int, header: Header, path: str) -> bool:
    """Whether the header, or else the trailer, has the same id."""
    file.seek(0)
    try:
        return parse_header(file.read(header.nbytes), path).file_id == header.file_id
    except FormatError:
        file.seek(max(0, nbytes - TRAILER_NBYTES))
        try:
            return parse_trailer(file.read(TRAILER_NBYTES), path, nbytes, header).file_id == header.file_id
        except FormatError:
            return False


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
