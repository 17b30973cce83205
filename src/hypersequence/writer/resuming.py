"""Going on where an interrupted writer stopped."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FileError, FormatError, NothingToResumeError
from ..layout import UNREADABLE, Frame, Header, block_geometry, run_records
from ..progress import ByteProgress
from ..schema import Array
from .blocks import FileBuilder, begin_file
from .partfile import PartFile
from .parts import parts_of, target_of
from .remains import Found, Remains, all_readable


@dataclass(frozen=True, slots=True)
class TakenUp:
    """A file to go on with.

    ``n_records`` are in the file, those of a short block in the builder's buffer too; ``last`` is the last of them, if
    there is one; ``user_meta`` is empty unless it was stored.
    """

    part: PartFile
    builder: FileBuilder
    header: Header
    n_records: int
    last: list[Array]
    user_meta: dict[str, Any]


def take_up(path: Path, *, overwrite: bool, progress: bool) -> TakenUp:
    """Everything that a writer needs to go on. ``HyperSequenceWriter.resume`` says what is raised."""
    path = path if target_of(path) != path else _part_of(path)
    part = PartFile.take_up(path, target_of(path), overwrite=overwrite)  # first, so that nothing changes any more
    try:
        part.settle()  # what is found is called safe from now on
        with all_readable(path), Remains(path) as remains:
            with ByteProgress(f"checking {path.name}", remains.nbytes, progress) as bar:
                found = remains.look(bar.advance)
            if found.unreadable is not None:
                raise found.unreadable
            if found.behind or (found.broken and remains.trailer is not None):
                warnings.warn(
                    f"{found.broken[0]}; what came behind the first {found.n_records} records has to be appended again"
                    f"{f', {len(found.behind)} whole blocks too' if found.behind else ''}",
                    RuntimeWarning,
                    stacklevel=3,
                )
            taken = _go_on(remains, found, part, overwrite=overwrite)
    except BaseException:
        part.keep()
        raise
    if taken.part is not part:  # it is no longer open, or some systems would not remove it
        try:
            part.discard()
        except BaseException:
            taken.part.discard()
            raise
    return taken


def _part_of(target: Path) -> Path:
    """The one part file of a target."""
    found = parts_of(target)
    known = [(part, header) for part in found if (header := _header(part.path))]
    if not known:
        useless = f" ({', '.join(str(part.path) for part in found)}: without a sound header)" if found else ""
        raise NothingToResumeError(
            f"{target}: has no part file to go on with{useless}; begin with HyperSequenceWriter(...)", path=str(target)
        )
    begun = [(part, header) for part, header in known if part.nbytes > len(header)] or known[:1]
    parts = [part for part, _ in begun]
    if len({header for _, header in begun}) == 1:
        # Of one file there are two while an only short block is written once more: one of them has all of it.
        parts = [max(parts, key=lambda part: _n_records(part.path))] if len(parts) > 1 else parts
    if len(parts) > 1:
        listed = ", ".join(f"{part.path} ({part.nbytes:,} bytes)" for part in parts)
        raise FileError(
            f"{target}: has several part files, {listed}; give the path of the one to go on with", path=str(target)
        )
    return parts[0].path


def _header(path: Path) -> bytes:
    """What a part file says about itself; nothing if it is damaged there, or has nothing yet."""
    try:
        with Remains(path) as remains:
            return remains.header_data
    except (FormatError, OSError):
        return b""


def _n_records(path: Path) -> int:
    with Remains(path) as remains:
        return remains.look(lambda nbytes: None).n_records


def _go_on(remains: Remains, found: Found, part: PartFile, *, overwrite: bool) -> TakenUp:
    header, heads = remains.header, found.heads
    meta = _meta(remains, heads)
    first, last = (remains.frame(heads[0]), remains.frame(heads[-1])) if heads else (None, None)
    short = last if last is not None and last.n_records < header.block_records else None
    if short is not None and short.number == 0 and not _fits(short, header):
        return _begin_again(remains, short, meta, part.target, overwrite=overwrite)
    if not _fits(first, header):
        raise FileError(
            f"{part.path}: its blocks are not laid out as this release does it, so it cannot go on with them; "
            f"`hsq recover {part.path}` makes a file of them",
            path=str(part.path),
        )
    builder = FileBuilder(part, header, remains.ending(heads if short is None else heads[:-1]))
    for number in found.torn:
        part.write_over(found.heads[number], remains.walk.place(number))
    if found.torn:
        part.flush()
    if short is not None:
        builder.keep_short(found.heads[-1], short.n_records)
        _fill(builder, remains, short)
    return TakenUp(part, builder, header, found.n_records, _last_of(remains, last), meta)


def _meta(remains: Remains, heads: list[bytes]) -> dict[str, Any]:
    """The user metadata; none, with a warning, if they were stored and are damaged, as they can be given again."""
    try:
        return remains.user_meta(heads)
    except FormatError as error:
        if error.rule == UNREADABLE:
            raise
        warnings.warn(f"{error}; user metadata have to be given again", RuntimeWarning, stacklevel=4)
        return {}


def _begin_again(remains: Remains, short: Frame, meta: dict[str, Any], target: Path, *, overwrite: bool) -> TakenUp:
    """An only block that was made as small as it can be has no room for more records, so it is written once more.

    The old part file stays until the new one is on disk.
    """
    part = PartFile.create(target, overwrite=overwrite)
    try:
        builder = begin_file(part, remains.header, remains.header_data)
        _fill(builder, remains, short)
        builder.write_short_block(short.n_records)
        part.flush()
        part.flush_folder()  # or both could be gone after a power failure
    except BaseException:
        part.discard()
        raise
    return TakenUp(part, builder, remains.header, short.n_records, _last_of(remains, short), meta)


def _fits(frame: Frame | None, header: Header) -> bool:
    """Whether the stride, and a block's places if there is one, are those that we give full blocks."""
    sizes = [column.field.nbytes for column in header.schema.columns]
    geometry = block_geometry(sizes, header.block_records)
    chunks = frame.chunks if frame is not None else ()
    return geometry.stride == header.stride and all(
        (chunk.offset, chunk.run_nbytes) == (offset, run_records(size) * size)
        for chunk, offset, size in zip(chunks, geometry.offsets, sizes, strict=False)
        if size
    )


def _last_of(remains: Remains, frame: Frame | None) -> list[Array]:
    """The last record of a block."""
    last: list[Array] = []
    for arrays in remains.rows(frame) if frame is not None else ():
        last = [array[-1:].copy()[0, ...] for array in arrays]
    return last


def _fill(builder: FileBuilder, remains: Remains, frame: Frame) -> None:
    """Put the records of a block into the builder's buffer."""
    at = 0
    for arrays in remains.rows(frame):
        for target, array in zip(builder.buffer.columns, arrays, strict=True):
            if target.itemsize:  # NumPy would go through values of no bytes one by one
                target[at : at + len(array)] = array
        at += len(arrays[0])
