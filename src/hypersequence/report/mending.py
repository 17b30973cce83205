"""Mending a damaged file from a good copy of it."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from ..errors import FileError, FormatError
from ..layout import (
    MAX_HEADER_NBYTES,
    TRAILER_NBYTES,
    BlockWalk,
    Frame,
    Header,
    Parts,
    open_parts,
    parse_header,
    parse_trailer,
)
from ..progress import ByteProgress
from ..source.handle import FileHandle
from .integrity import verify

_PIECE_NBYTES = 1 << 20
_PAGE_NBYTES = 4096


def repair(path: str | os.PathLike[str], good: str | os.PathLike[str], *, progress: bool = False) -> int:
    """Make a damaged file what it was, by copying what differs from a good copy, in place.

    The copy is verified first, and nothing is written unless it is whole and a copy of this very file: header, trailer
    and the frames of blocks must be the same in both, as far as they are sound. Interrupted, it can be done again.

    Args:
        path: The damaged file; it may have been cut off, too.
        good: Its copy.
        progress: Show progress bars on a terminal. ``False`` (default) is silent.

    Returns:
        How many bytes were different.

    Raises:
        FileError: ``good`` is damaged itself, or is no copy of ``path``; or the file system refused.
        UnsupportedError: ``good`` is of a version that this release does not know.

    Not thread-safe: nobody else may read or write ``path`` meanwhile.

    >>> import shutil
    >>> copy = shutil.copy(example_path, folder / "copy.hsq")
    >>> with open(copy, "r+b") as file:
    ...     _ = file.seek(5000), file.write(b"damage")
    >>> verify(copy).ok, repair(copy, example_path), verify(copy).ok
    (False, 6, True)
    """
    try:
        found = verify(good, progress=progress)
    except OSError as error:
        raise FileError(f"{good}: cannot be repaired from: {error}", path=str(good)) from error
    if not found.ok or not found.has_checksums:
        reason = f"it is damaged itself, {found.problems[0]}" if found.problems else "it has no checksums"
        raise FileError(f"{found.path}: cannot be repaired from: {reason}", path=found.path)
    source = FileHandle(found.path)
    try:
        return _make_equal(Path(path), source, progress=progress)
    except FileError:
        raise
    except OSError as error:
        raise FileError(
            f"{path}: could not be repaired: {error}; what was begun can be done again", path=str(path)
        ) from error
    finally:
        source.close()


def _make_equal(path: Path, source: FileHandle, *, progress: bool) -> int:
    """Copy what differs; how many bytes did."""
    with path.open("r+b", buffering=0) as file:
        nbytes = file.seek(0, os.SEEK_END)
        parts = open_parts(source.read, source.nbytes, source.path)
        is_copy = _is_copy(file, nbytes, source, parts.header, str(path))
        # A trailer, which has a digest of everything, settles it.
        settled = is_copy and _same_trailer(file, nbytes, source, parts.header, str(path))
        if not is_copy or not (settled or _same_frames(file, nbytes, source, parts, str(path))):
            raise FileError(
                f"{path}: {source.path} is no copy of this file but another one (or both ends of this one are "
                "damaged, so that nobody can tell): replace the file as a whole",
                path=str(path),
            )
        with ByteProgress(f"repairing {path.name}", source.nbytes, progress) as bar:
            n_different = sum(_mend(file, source, start, bar) for start in range(0, source.nbytes, _PIECE_NBYTES))
        file.truncate(source.nbytes)
        os.fsync(file.fileno())
    return n_different + max(0, nbytes - source.nbytes)


def _is_copy(file: IO[bytes], nbytes: int, source: FileHandle, header: Header, path: str) -> bool:
    """Whether header and trailer are those of the source, as far as each is sound; one of them at least."""
    return {True} == {_same_header(file, source, header, path), _same_trailer(file, nbytes, source, header, path)} - {
        None
    }


def _same_header(file: IO[bytes], source: FileHandle, header: Header, path: str) -> bool | None:
    """``None`` where it is damaged."""
    try:
        parse_header(data := _read(file, 0, MAX_HEADER_NBYTES), path)
    except FormatError:
        return None
    return data[: header.nbytes] == source.read(0, header.nbytes)


def _same_trailer(file: IO[bytes], nbytes: int, source: FileHandle, header: Header, path: str) -> bool | None:
    """``None`` where it is damaged, or not there."""
    data = _read(file, max(0, nbytes - TRAILER_NBYTES), TRAILER_NBYTES)
    try:
        parse_trailer(data, path, nbytes, header)
    except FormatError as error:
        if error.rule in ("T1", "T2"):
            return None
    return data == source.read(source.nbytes - TRAILER_NBYTES, TRAILER_NBYTES)


def _same_frames(file: IO[bytes], nbytes: int, source: FileHandle, parts: Parts, path: str) -> bool:
    """Whether no sound block is another one than the source's: files may have been given one id.

    A frame that is damaged says nothing, nor does one of another place. A block of fewer records is what the disk still
    shows where a write was lost, if those are the source's.
    """
    walk = BlockWalk(partial(_read, file), nbytes, parts.header, path)
    n_same = n_older = 0
    for number in range(parts.trailer.n_blocks):
        frame, head = parts.index.entry(source.read, number, parts.first if number else None)
        if _read(file, frame.offset, len(head)) == head:
            n_same += 1
            continue
        with suppress(FormatError):
            found, _ = walk.frame(number)
            if found.n_records >= frame.n_records:
                return False
            if any(walk.problem(found, run) for run in walk.runs(found)):
                n_older += 1
            elif _same_records(file, source, found, frame):
                n_same += 1
            else:
                return False
    for number in range(parts.trailer.n_blocks, walk.n_places):  # it may have gone on
        with suppress(FormatError):
            walk.frame(number, parts.first)
            return False
    return n_same > 0 or n_older == 0


def _same_records(file: IO[bytes], source: FileHandle, found: Frame, frame: Frame) -> bool:
    """Whether a block begins with the records of another, in whose place it is."""
    for mine, theirs in zip(found.chunks, frame.chunks, strict=True):
        for at in range(0, mine.nbytes, _PIECE_NBYTES):
            nbytes = min(_PIECE_NBYTES, mine.nbytes - at)
            have = _read(file, found.offset + mine.offset + at, nbytes)
            if have != source.read(frame.offset + theirs.offset + at, nbytes):
                return False
    return True


def _mend(file: IO[bytes], source: FileHandle, start: int, bar: ByteProgress) -> int:
    """Make a piece of the file what it should be; how many bytes were not."""
    should = source.read(start, _PIECE_NBYTES)
    have = _read(file, start, len(should))
    bar.advance(len(should))
    if have == should:
        return 0
    if len(have) < len(should):
        return _replace_pages(file, start, should)
    _write(file, start, should)
    return len(should) - sum(map(int.__eq__, have, should))


def _replace_pages(file: IO[bytes], start: int, should: bytes) -> int:
    """The same where the disk does not give all of it, or the file ends; page by page, so that few are written anew."""
    n_different = 0
    for at in range(0, len(should), _PAGE_NBYTES):
        page = should[at : at + _PAGE_NBYTES]
        have = _read(file, start + at, len(page))
        if have != page:
            # Whole pages, or the system would have to read the rest of one; what is too much is cut off in the end.
            _write(file, start + at, page.ljust(_PAGE_NBYTES, b"\0"))
            n_different += len(page) - sum(map(int.__eq__, have, page))
    return n_different


def _write(file: IO[bytes], offset: int, data: bytes) -> None:
    file.seek(offset)
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _read(file: IO[bytes], offset: int, nbytes: int) -> bytes:
    """What the file has there; less if the disk does not give it, which writing over it often mends."""
    file.seek(offset)
    data = b""
    with suppress(OSError):
        while len(data) < nbytes and (more := file.read(nbytes - len(data))):
            data += more
    return data
