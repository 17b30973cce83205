"""From a reader into an ``.hsq`` file: in pieces, a few of them ahead, and on from where an earlier try stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, NothingToResumeError, RecordError, SourceError
from ..progress import RecordProgress
from ..schema import Array, Schema
from ..writer import HyperSequenceWriter
from .ahead import in_order
from .base import PIECE_NBYTES, Piece, Reader
from .roles import Choice

#: What may be read ahead, all pieces together.
_AHEAD_NBYTES = 128 << 20


def begin(
    target: Path,
    schema: Schema | None,
    *,
    batch_size: int | None,
    usual: int,
    overwrite: bool,
    resume: bool,
    progress: bool,
) -> HyperSequenceWriter:
    """A new writer; or one that goes on, if that was asked for and there is something to go on with.

    Args:
        target: The file to write.
        schema: Its records' structure; ``None`` if the first record, or what is left, is to tell.
        batch_size: Records of a batch, if somebody said so.
        usual: The same if nobody did: of a new one.
        overwrite: Whether the target may exist.
        resume: Whether to go on.
        progress: Whether to show a bar while what was left is checked.

    Raises:
        SourceError: What was left has other fields.
        ArgumentError: What was left has batches of another size.
    """
    if resume:
        try:
            writer = HyperSequenceWriter.resume(target, overwrite=overwrite, progress=progress)
        except NothingToResumeError:
            pass
        else:
            if schema is not None and writer.schema != schema:
                other, kept = writer.schema, writer.abort()
                raise SourceError(f"{target}: what is left of an earlier try has other fields ({other}); {kept}")
            if batch_size not in (None, writer.batch_size()):
                size, kept = writer.batch_size(), writer.abort()
                raise ArgumentError(f"{target}: an earlier try began with batch_size {size}, not {batch_size}; {kept}")
            return writer
    return HyperSequenceWriter(target, usual if batch_size is None else batch_size, schema=schema, overwrite=overwrite)


def read_into(
    target: Path,
    reader: Reader,
    choice: Choice,
    *,
    begin_writer: Callable[[], HyperSequenceWriter],
    meta: dict[str, Any],
    threads: int,
    progress: bool,
) -> int:
    """Write what a reader gives; returns how many records the file has.

    Raises:
        SourceError: Something in the source cannot be read, or is not what it was when a first part was converted.
        FileError: The target cannot be written.

    In both cases what was complete stays in a part file, which the exception's notes name.
    """
    step = max(1, PIECE_NBYTES // max(1, choice.schema.record_nbytes))
    with begin_writer() as writer:
        writer.user_meta().update(meta)
        n_safe = writer.n_records
        with RecordProgress(target.name, reader.n_records, progress, done=n_safe) as bar:
            jobs = reader.jobs(max(0, n_safe - 1), choice.names, step)
            with closing(in_order(jobs, _n_ahead(threads, step * choice.schema.record_nbytes))) as pieces:
                for piece in _unseen(pieces, choice, writer) if n_safe else pieces:
                    n_before = writer.n_records
                    try:
                        writer.extend(*choice.arrange(piece))
                    except RecordError as error:
                        raise SourceError(f"records from {n_before:,} on: {error}") from error
                    bar.advance(writer.n_records - n_before)
                    del piece  # or it would take its memory until the next one is there
        return writer.n_records


def _n_ahead(threads: int, piece_nbytes: int) -> int:
    """How many threads read ahead: as many as were asked for, fewer or none where a piece is a record that is large."""
    return min(threads, max(0, _AHEAD_NBYTES // max(1, piece_nbytes) - 1))


def _unseen(pieces: Iterator[Piece], choice: Choice, writer: HyperSequenceWriter) -> Iterator[Piece]:
    """What comes after the last record that is safe, which is looked at: the source must be the same."""
    first = next(pieces, None)
    check_last(writer, None if first is None else choice.schema.flatten(choice.arrange(first)))
    assert first is not None
    rest = {name: array[1:] for name, array in first.items()}
    first = None  # so that its memory is not taken until the end
    if len(next(iter(rest.values()))):
        yield rest
    del rest
    yield from pieces


def check_last(writer: HyperSequenceWriter, columns: Sequence[Array] | None) -> None:
    """See whether the source still has the last record that is safe, bit for bit.

    Args:
        writer: One that goes on.
        columns: What the source has now from that record on: for each column an array whose leading axis is the
            records'. ``None`` if it ends before.

    Raises:
        SourceError: It has another one.
    """
    schema = writer.schema
    assert schema is not None
    inputs, outputs, weights = (*writer.last_record(), None, None)[:3]
    stored = schema.flatten((inputs, outputs, weights))
    if columns is None or not all(
        # By way of the stored type: text may be narrower in the source than in the file.
        array[:1].astype(column.field.dtype).tobytes() == value.tobytes()
        for column, array, value in zip(schema.columns, columns, stored, strict=True)
    ):
        raise SourceError(
            f"record {writer.n_records - 1:,} of the source is not the one that was stored before, so this is another "
            "source, or its records come in another order; begin again without resume"
        )
