"""From a sequence to a new ``.hsq`` file: what merging, splitting, sampling and upgrading come down to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..progress import RecordProgress
from ..schema import ROLES, Batch, Column, Schema
from ..sequence import HyperSequence
from ..writer import HyperSequenceWriter
from .base import PIECE_NBYTES


def save(
    sequence: HyperSequence,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> None:
    """Write the records of a sequence, in its order, to a file of their own.

    What was chosen stays chosen: the records of ``split``, ``select``, ``take`` and ``concat``, the order of
    ``shuffled``, the fields of ``fields``, what ``map`` makes of its batches. Batch size and user metadata come with
    them (of several files, those of the first). A shard has the records that pad it.

    Args:
        sequence: What to write.
        path: The file; a file that ``sequence`` reads may be replaced.
        overwrite: Replace a file that exists. ``False`` (default) refuses.
        progress: Show a progress bar on a terminal.

    Raises:
        FileError: ``path`` exists or cannot be written.
        ChecksumError: A record is damaged. What was complete stays in a part file.
        RecordError: What ``map`` gives has not the same shape and type throughout.

    Thread-safe: ``sequence`` is only read, and every call has a part file of its own.

    >>> save(example.shuffled(seed=1).take(2), folder / "few.hsq")
    >>> HyperSequenceFile(folder / "few.hsq").n_records
    32
    """
    copy(sequence, Path(path), sequence.user_meta(), sequence.batch_size(), overwrite=overwrite, progress=progress)


def copy(
    sequence: HyperSequence,
    path: Path,
    user_meta: dict[str, Any],
    batch_size: int,
    *,
    overwrite: bool,
    progress: bool,
) -> None:
    """The same with other metadata, and perhaps batches of another size."""
    schema = None if sequence.has_map else schema_of(sequence.columns)
    with (
        HyperSequenceWriter(path, batch_size, schema=schema, overwrite=overwrite) as writer,
        RecordProgress(path.name, sequence.n_records, progress) as bar,
    ):
        writer.user_meta().update(user_meta)
        for batch in sequence if sequence.has_map else in_pieces(sequence):
            n_before = writer.n_records
            writer.extend(*batch)
            bar.advance(writer.n_records - n_before)


def in_pieces(sequence: HyperSequence) -> Iterator[Batch]:
    """All stored records of a sequence, in its order, some megabytes at a time."""
    step = max(1, PIECE_NBYTES // max(1, sum(column.field.nbytes for column in sequence.columns)))
    for start in range(0, sequence.n_records, step):
        yield sequence.records[start : start + step]


def schema_of(columns: tuple[Column, ...]) -> Schema:
    """The schema of some columns of another one."""
    roles: list[Any] = []
    for role in ROLES:
        members = [column for column in columns if column.role == role]
        names = [column.name for column in members if column.name is not None]
        fields = tuple(column.field for column in members)
        roles.append(dict(zip(names, fields, strict=True)) if names else fields or None)
    return Schema(*roles)
