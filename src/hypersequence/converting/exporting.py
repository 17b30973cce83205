"""From a sequence to another format: written beside the target under another name, and put in place when complete."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, FileError, HyperSequenceError, RecordError
from ..progress import RecordProgress
from ..schema import ROLES, Column
from ..sequence import HyperSequence
from .base import Export, Format, Options, Piece
from .copying import in_pieces
from .description import Description
from .placing import PartFolder, no_folder

#: The upper bits of the code points from U+D800 to U+DFFF.
_SURROGATE = 0xD800 >> 11


def write_out(
    sequence: HyperSequence,
    target: Path,
    format: Format,
    options: Mapping[str, Any],
    *,
    roles: Mapping[str, Sequence[Column]] | None = None,
    overwrite: bool,
    progress: bool,
) -> None:
    """Write all records of a sequence in another format.

    Args:
        sequence: What to write.
        target: The new file or folder.
        format: Its format.
        options: What the format is told.
        roles: The columns of each role; ``None`` for what they are in the sequence.
        overwrite: Whether the target may exist.
        progress: Whether to show a bar.

    Raises:
        ArgumentError: The format cannot be written, or not with these options; or the sequence has a ``map``.
        FileError: The target exists or cannot be written, or its disk has not enough room.
        RecordError: A text is none in UTF-8, which the format has.
    """
    if format.writes is None:
        raise ArgumentError(f"{format.title} are read, not written")
    if sequence.has_map:
        raise ArgumentError("a sequence with map() is no stored data; save() it to an .hsq file, and convert that")
    told = format.parse(options)
    may_replace = format.recognises if format.makes_folders else no_folder
    with (
        PartFolder(target, overwrite=overwrite, may_replace=may_replace) as part,
        RecordProgress(target.name, sequence.n_records, progress) as bar,
    ):
        export = _export(sequence, bar, roles)
        _check_room(target, export, format, told)
        with _explained(target, export):
            _write(format, export, part.path, told)
            part.put_in_place()


def _write(format: Format, export: Export, path: Path, told: Options) -> None:
    """Have a format write, and say what becomes of it where Ctrl-C ends that."""
    assert format.writes is not None
    try:
        format.writes(export, path, told)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"{path.name}: is not written, and what was begun of it is removed")
        raise


def _check_room(target: Path, export: Export, format: Format, told: Options) -> None:
    """See that the disk has room for what will surely be written.

    Raises:
        FileError: It has not.
    """
    needed = export.n_records * sum(format.needs(field, told) for field in export.fields.values())
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError:  # a file system that does not tell
        return
    if needed > free:
        raise FileError(
            f"{target}: takes {needed:,} bytes at least, and its disk has {free:,} free; make room, or choose another "
            "disk",
            path=str(target),
        ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _explained(target: Path, export: Export) -> Generator[None]:
    """Make whatever a library raises while it writes an error that says what could not be written."""
    try:
        yield
    except (HyperSequenceError, MemoryError):
        raise
    except UnicodeEncodeError as error:
        raise RecordError(f"{target}: {_no_utf8(export) or error}") from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise FileError(
            f"{target}: could not be written, and nothing of it is left: {reason}", path=str(target)
        ) from error


def _no_utf8(export: Export) -> str | None:
    """Which text is none in UTF-8; looked for afterwards, so that nothing is slower where all are."""
    for name in (name for name, field in export.fields.items() if field.dtype.kind == "U"):
        n_before = 0
        for piece in export.pieces(name):
            codes = np.ascontiguousarray(piece[name]).reshape(len(piece[name]), -1).view("<u4")
            found = np.flatnonzero(((codes >> 11) == _SURROGATE).any(axis=1))
            if found.size:
                return (
                    f"the field {name!r} of record {n_before + found[0]:,} has half of a UTF-16 pair, which is no text "
                    "in UTF-8; make other text of it with map() and save() that first, or write .npz or .zarr, which "
                    "keep it"
                )
            n_before += len(codes)
    return None


def _export(sequence: HyperSequence, bar: RecordProgress, roles: Mapping[str, Sequence[Column]] | None) -> Export:
    columns = sequence.columns
    names = names_of(columns)

    def pieces(*wanted: str) -> Iterator[Piece]:
        numbers = [column.number for column in columns if not wanted or names[column.number] in wanted]
        chosen = sequence.fields(*(sequence.schema.columns[number].address for number in numbers))
        done = 0
        for batch in in_pieces(chosen):
            arrays = _leaves(batch)
            yield {names[number]: array for number, array in zip(numbers, arrays, strict=True)}
            seen = (done + len(arrays[0])) * len(numbers) // len(columns) - done * len(numbers) // len(columns)
            bar.advance(seen)  # who asks for some fields at a time comes several times
            done += len(arrays[0])

    fields = {names[column.number]: column.field for column in columns}
    return Export(fields, sequence.n_records, description_of(sequence, roles), pieces)


def description_of(sequence: HyperSequence, roles: Mapping[str, Sequence[Column]] | None = None) -> Description:
    """What there is to say of a sequence's fields, as they are called elsewhere, and its metadata.

    Args:
        sequence: The sequence.
        roles: The columns of each role; ``None`` for what they are.
    """
    names = names_of(sequence.columns)
    roles = roles or {role: [column for column in sequence.columns if column.role == role] for role in ROLES}
    return Description(
        {role: [names[column.number] for column in members] for role, members in roles.items()},
        {names[column.number]: column.name for column in sequence.columns if names[column.number] != column.name},
        sequence.user_meta(),
    )


def _leaves(value: Any) -> list[Any]:
    """The arrays of a batch, in column order."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        value = tuple(value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, tuple):
        return [leaf for member in value for leaf in _leaves(member)]  # pyright: ignore[reportUnknownVariableType]
    return [value]


def names_of(columns: tuple[Column, ...]) -> dict[int, str]:
    """A name for each column, by its number: its own, or that of its role; with the role where two have the same."""
    own = {column.number: column.name or _unnamed(column) for column in columns}
    counts = Counter(own.values())
    names = {c.number: own[c.number] if counts[own[c.number]] == 1 else f"{c.role}.{own[c.number]}" for c in columns}
    if len(set(names.values())) < len(names):
        raise ArgumentError(f"two fields would have one name: {', '.join(names.values())}; choose some with fields()")
    return names


def _unnamed(column: Column) -> str:
    return f"{column.role}_{column.position}" if column.of_several else column.role
