"""From a sequence to another format: written beside the target under another name, and put in place when complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, FileError, RecordError
from ..progress import RecordProgress
from ..schema import ROLES, Column
from ..sequence import HyperSequence
from .base import Export, Format, Piece
from .copying import in_pieces


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
        RecordError: A text is not valid Unicode, which this format has to have.
        FileError: The target exists or cannot be written.
    """
    if format.writes is None:
        raise ArgumentError(f"{format.title} are read, not written")
    if sequence.has_map:
        raise ArgumentError("a sequence with map() is no stored data; save() it to an .hsq file, and convert that")
    told = format.parse(options)
    if not overwrite and target.exists():
        raise FileError(f"{target}: exists already; choose another name, or say overwrite", path=str(target))
    if target.is_dir() and not format.recognises(target):
        raise FileError(f"{target}: is a folder that this format did not make, and is not replaced", path=str(target))
    if not target.parent.is_dir():
        raise FileError(f"{target}: the folder {target.parent} does not exist", path=str(target))
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with RecordProgress(target.name, sequence.n_records, progress) as bar:
            format.writes(_export(sequence, bar, roles), part, told)
        _flush(part)
        _put_in_place(part, target)
    except UnicodeEncodeError as error:
        raise RecordError(
            f"{target}: a text has {error.object[error.start : error.end]!r}, which is half a character and cannot be "
            "written as UTF-8; put something else in its place (map() and save()), or leave that field out"
        ) from error
    finally:
        _remove(part)


def _export(sequence: HyperSequence, bar: RecordProgress, roles: Mapping[str, Sequence[Column]] | None) -> Export:
    columns = sequence.columns
    names = names_of(columns)
    roles = roles or {role: [column for column in columns if column.role == role] for role in ROLES}
    named_roles = {role: [names[column.number] for column in members] for role, members in roles.items()}

    def pieces(*wanted: str) -> Iterator[Piece]:
        numbers = [column.number for column in columns if not wanted or names[column.number] in wanted]
        chosen = sequence.fields(*(address(sequence.schema.columns[number]) for number in numbers))
        done = 0
        for batch in in_pieces(chosen):
            arrays = _leaves(batch)
            yield {names[number]: array for number, array in zip(numbers, arrays, strict=True)}
            seen = (done + len(arrays[0])) * len(numbers) // len(columns) - done * len(numbers) // len(columns)
            bar.advance(seen)  # who asks for some fields at a time comes several times
            done += len(arrays[0])

    fields = {names[column.number]: column.field for column in columns}
    return Export(fields, sequence.n_records, named_roles, sequence.user_meta(), pieces)


def address(column: Column) -> str:
    """What ``fields()`` calls it."""
    return f"{column.role}.{column.position if column.name is None else column.name}"


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


def _flush(part: Path) -> None:
    """Have the disk take everything, before it gets the name under which people look for it."""
    for path in [part] if part.is_file() else [each for each in part.rglob("*") if each.is_file()]:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put_in_place(part: Path, target: Path) -> None:
    """Rename; a folder in the way is moved aside before, and removed after."""
    if not target.is_dir():
        part.replace(target)
        return
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    target.rename(aside)
    try:
        part.rename(target)
    except OSError:
        aside.rename(target)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
