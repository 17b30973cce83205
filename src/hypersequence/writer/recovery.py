"""Making a file of what an interrupted writer left, or of a file whose end was lost."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FileError, FormatError
from ..layout import DEFAULT_BLOCK_NBYTES, UNREADABLE
from ..progress import ByteProgress
from .api import HyperSequenceWriter
from .partfile import PartFile
from .parts import target_of
from .remains import Found, Remains, all_readable

#: A writer holds one block in memory. Larger ones, which a damaged or hostile header may ask for, are not made again.
_MOST_HELD_NBYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was recovered.

    Args:
        path: The file that holds it.
        n_records: Its records.
        n_blocks: The blocks that they came in.
        broken: What is wrong with what is missing. Where the end of the file is sound, with every block that it counts;
            else with those that lie before a whole one, and with the one behind the
            last whole one if something of it is there (a writer that was killed leaves one, as a rule); and with all
            that the disk does not give, and user metadata that are damaged. Blocks in a row of which nothing is there
            are told as one: from ``block`` to ``last_block``.
        user_meta: The user metadata; empty where they are lost or had not been written.
    """

    path: Path
    n_records: int
    n_blocks: int
    broken: tuple[FormatError, ...]
    user_meta: dict[str, Any]


def recover(
    part: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> Recovered:
    """Make a readable file of every whole block of a file whose writer was interrupted, or whose end was lost.

    Every block is checked against its checksums; none is taken that is not as it was written. User metadata are kept
    if they were written, which a writer does at the end, and are not damaged. Blocks stay as large as they were.

    Args:
        part: The part file that an interrupted writer left beside its target (``hsq recover --list`` shows those), or a
            file whose end is missing.
        out: Where to write the records; ``part`` stays as it is, and of one that is still being written come the blocks
            that it has by now. ``None`` (default) completes ``part`` itself, which
            takes no more space and writes nothing but the missing end, and gives it the name that it was to have;
            bytes behind the last whole block go. That is refused where a broken block lies before a whole one, since
            a file cannot leave out a block, or more comes behind the last whole one than a killed writer leaves: give
            ``out``, and the others are put together.
        overwrite: Replace a file that exists under the new name.
        progress: Show a progress bar on a terminal.

    Returns:
        What was recovered, and what is missing.

    Raises:
        FormatError: There is no sound header, so that the structure of the records is unknown.
        FileError: In place, the file has its end, is being written right now, has a block but no whole one, or a whole
            one behind a broken one, or the disk does not give all of it; or the new file exists or cannot be written.
            Of a new file that could not be finished nothing is left.
        FileNotFoundError: ``part`` is not there.

    Thread-safe: a lock on the part file keeps others out, who get a FileError.

    >>> writer = HyperSequenceWriter(folder / "killed.hsq", batch_size=4, block_nbytes=1)
    >>> writer.extend(np.arange(10.0))
    >>> _ = writer.abort()  # or the process was killed
    >>> part = next(folder.glob("killed.hsq.*.part"))
    >>> recover(part).n_records
    10
    >>> HyperSequenceFile(folder / "killed.hsq").n_records
    10
    """
    path = Path(part)
    if out is None:
        return _complete(path, overwrite=overwrite, progress=progress)
    if Path(os.path.realpath(out)) == Path(os.path.realpath(path)):
        raise FileError(f"{path}: is what is recovered from; give another name, or none to complete it in place")
    with Remains(path) as remains, ByteProgress(f"recovering {path.name}", remains.nbytes, progress) as bar:
        try:
            return _copy(remains, Path(out), bar, overwrite=overwrite)
        except MemoryError as error:
            nbytes = remains.header.schema.record_nbytes
            raise FileError(
                f"{path}: there is too little memory for three times one of its records, of {nbytes:,} bytes",
                path=str(path),
            ) from error


def _complete(path: Path, *, overwrite: bool, progress: bool) -> Recovered:
    target = target_of(path)
    file = PartFile.take_up(path, target, overwrite=overwrite)  # first, so that nothing changes any more
    try:
        file.settle()  # or the file could be completed around blocks that never reached the disk
        with all_readable(path), Remains(path) as remains:
            if target == path and remains.has_end():
                raise FileError(f"{path}: has its end; `hsq verify` tells whether it is sound", path=str(path))
            with ByteProgress(f"checking {path.name}", remains.nbytes, progress) as bar:
                found = remains.look(bar.advance)
            _ensure_nothing_is_lost(path, remains, found)
            ending, meta = remains.ending(found.heads), _meta_in_place(remains, found.heads)
            is_complete = remains.is_complete(found)
            dirty = list(remains.dirty_gaps(found.heads))
        for number in found.torn:
            file.write_over(found.heads[number], remains.walk.place(number))
        if found.torn:
            file.flush()  # the copy goes next
        for offset, nbytes in dirty:
            file.write_over(bytes(nbytes), offset)
        if not is_complete:
            ending.write(file, meta)
        file.commit()
    except BaseException:
        file.keep()
        raise
    known = ending.known
    return Recovered(file.target, known.n_records, known.n_blocks, tuple(found.broken), meta)


def _meta_in_place(remains: Remains, heads: list[bytes]) -> dict[str, Any]:
    """The user metadata; damaged ones are not written over."""
    try:
        return remains.user_meta(heads)
    except FormatError as error:
        if error.rule == UNREADABLE:
            raise
        raise FileError(f"{error}; {_elsewhere(remains.path)}", path=str(remains.path)) from error


def _elsewhere(path: Path) -> str:
    return f"nothing was changed: have all whole blocks written to another file, `hsq recover {path} -o OUT`"


def _ensure_nothing_is_lost(path: Path, remains: Remains, found: Found) -> None:
    """Refuse to cut off whole blocks, what the disk may give another time, or much else; or to make an empty file."""
    if found.unreadable is not None:
        raise found.unreadable
    if found.behind:
        raise FileError(
            f"{path}: {found.n_broken} {'block is' if found.n_broken == 1 else 'blocks are'} broken, and "
            f"{len(found.behind)} whole ones lie behind the first "
            f"({found.broken[0]}); {_elsewhere(path)}",
            path=str(path),
        )
    if remains.goes_on_for_long(found.heads):
        raise FileError(
            f"{path}: behind the first {found.n_records} records comes more than a writer leaves that was killed, and "
            f"would be cut off; {_elsewhere(path)}",
            path=str(path),
        )
    if found.broken and not found.heads:
        raise FileError(f"{path}: has no whole block, and is left as it is ({found.broken[0]})", path=str(path))


def _copy(remains: Remains, out: Path, bar: ByteProgress, *, overwrite: bool) -> Recovered:
    header = remains.header
    # Blocks stay as large as they were, or a shuffle would give another order; unless no memory could hold one.
    block_nbytes = header.block_records * max(1, header.schema.record_nbytes)
    if header.schema.record_nbytes and block_nbytes > _MOST_HELD_NBYTES:
        block_nbytes = DEFAULT_BLOCK_NBYTES
    writer = HyperSequenceWriter(
        out, header.batch_size, schema=header.schema, overwrite=overwrite, block_nbytes=block_nbytes
    )
    try:
        found = _copy_into(writer, remains, bar)
        writer.close()
    except BaseException as error:
        with suppress(FileError):  # it tells the disk's trouble once more
            writer.discard()  # what it was copied from is still there
        if isinstance(error, FileError) and "n_kept" in error.facts:  # which is advice for somebody who goes on
            raise FileError(
                f"{error.__cause__}; nothing was kept of it, recover once more when there is room"
            ) from error
        raise
    return Recovered(out, found.n_records, found.n_blocks, found.broken, found.user_meta)


def _copy_into(writer: HyperSequenceWriter, remains: Remains, bar: ByteProgress) -> Recovered:
    header, heads, broken = remains.header, list[bytes](), list[FormatError]()
    build = header.schema.builder(range(len(header.schema.columns)))
    n_missing = 0
    for number, whole in remains.blocks(bar.advance, hold=True):
        if isinstance(whole, FormatError):
            broken.append(whole)
            continue
        frame, head, _ = whole
        heads.append(head)
        n_missing = number + 1 - len(heads)
        for arrays in remains.rows(frame):
            writer.extend(*build(arrays))
    try:
        writer.user_meta().update(remains.user_meta(heads, n_missing if heads else len(broken)))
    except FormatError as error:  # they are damaged, or the disk does not give them
        broken.append(error.with_traceback(None))
    meta = dict(writer.user_meta())
    return Recovered(remains.path, writer.n_records, len(heads), tuple(broken), meta)
