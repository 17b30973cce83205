"""HyperSequenceWriter: records in, a file out."""

from __future__ import annotations

import os
import secrets
import time
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..errors import ArgumentError, ClosedError, FileError, RecordError
from ..layout import DEFAULT_BLOCK_NBYTES
from ..progress import RecordCounter
from ..schema import Array, Column, Schema
from ..values import check_value, check_values, infer_schema
from .blocks import FileBuilder, begin_file, plan_header
from .meta import check_meta
from .partfile import PartFile
from .resuming import take_up


class HyperSequenceWriter:
    """Writes records to an ``.hsq`` file.

    The file appears at ``path`` when :meth:`close` has made it complete, and not before; an existing file is replaced
    in that same instant. Used in a ``with`` statement, an exception in the body aborts: nothing changes at ``path``,
    and what was appended stays in a part file beside it, which the exception's notes name.

    Args:
        path: The file to write, usually ``*.hsq``. A symbolic link is followed.
        batch_size: Records of a native batch, the unit in which a reader sees the file at first. Any other size can be
            asked for when reading; one near to that of training keeps batches contiguous on disk.
        schema: The structure of the records. ``None`` (default) lets the first record fix it; give it to write an
            empty file, to widen text fields, or to have Python numbers stored in another type.
        overwrite: ``False`` refuses at once if ``path`` exists.
        progress: Show a progress line on a terminal; silent elsewhere.
        block_nbytes: Size that blocks should come near to. A writer holds one block in memory, and a block holds at
            least one batch. Smaller blocks make finer damage reports and more metadata; 8 MiB suit disks.
        file_id: 16 bytes that tell this file from others; ``None`` draws them. Given, together with ``created_ns``,
            the same records make the same bytes. Files that share it are not told apart by what stale blocks a disk
            may show of the one in place of the other.
        created_ns: Creation time in nanoseconds since 1970-01-01 UTC; ``None`` for now.

    Raises:
        FileError: The folder does not exist or cannot be written, or ``path`` exists and ``overwrite`` is false.
        ArgumentError: An argument makes no sense.

    Not thread-safe: use one writer a thread, each with a file of its own.

    >>> with HyperSequenceWriter(folder / "squares.hsq", batch_size=4) as writer:
    ...     for i in range(10):
    ...         writer.append(inputs=np.full((2, 3), i, np.float32), outputs=i * i)
    >>> HyperSequenceFile(folder / "squares.hsq")[2][1].tolist()
    [64, 81]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        batch_size: int = 16,
        *,
        schema: Schema | None = None,
        overwrite: bool = True,
        progress: bool = False,
        block_nbytes: int = DEFAULT_BLOCK_NBYTES,
        file_id: bytes | None = None,
        created_ns: int | None = None,
    ) -> None:
        self._part: PartFile | None = None  # first, for __del__
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"batch_size is a whole number from 1 on, not {batch_size!r}")
        if block_nbytes < 1:
            raise ArgumentError(f"block_nbytes is at least 1, not {block_nbytes}")
        if file_id is not None and (not isinstance(file_id, bytes) or len(file_id) != 16):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"file_id is 16 bytes, not {file_id!r}")
        if created_ns is not None and not -(2**63) <= created_ns < 2**63:
            raise ArgumentError(f"created_ns has 64 bits, {created_ns} has more")
        self._prepare(
            int(batch_size),
            int(block_nbytes),
            secrets.token_bytes(16) if file_id is None else bytes(file_id),
            time.time_ns() if created_ns is None else int(created_ns),
            RecordCounter(Path(path).name, progress),
        )
        self._part = PartFile.create(Path(path), overwrite=overwrite)
        if schema is not None:
            try:
                self._begin(schema)
            except BaseException:
                self.abort()
                raise

    def _prepare(
        self, batch_size: int, block_nbytes: int, file_id: bytes, created_ns: int, counter: RecordCounter
    ) -> None:
        self._batch_size, self._block_nbytes = batch_size, block_nbytes
        self._file_id, self._created_ns = file_id, created_ns
        self._meta: dict[str, Any] = {}
        self._builder: FileBuilder | None = None
        self._n = 0  # records; those that are in no block yet are in the builder's buffer
        self._last: list[Array] = []  # of the records that resume() found
        self._closing = False  # close() has begun, so that no record can come any more
        self._pid = os.getpid()
        self._counter = counter

    @classmethod
    def resume(cls, path: str | os.PathLike[str], *, overwrite: bool = True, progress: bool = False) -> Self:
        """Go on with a file whose writer was interrupted.

        Every block of what is left is checked. ``n_records`` of the new writer says how many records are safe: append
        those that come after. Schema, batch size and size of blocks are what they were; user metadata have to be given
        again, unless that writer had come as far as storing them in :meth:`close`.

        Args:
            path: The file that was being written; or, if several part files of it are there, the one to go on with.
            overwrite: As for a new writer.
            progress: As for a new writer; also while the blocks are checked.

        Raises:
            NothingToResumeError: There is no part file, or none with a sound header. Begin with a new writer.
            FileError: There are several part files, or it is being written right now, or cannot be written.
            FormatError: Its header is damaged.

        >>> writer = HyperSequenceWriter(folder / "long.hsq", batch_size=4)
        >>> writer.extend(np.arange(10.0))
        >>> _ = writer.abort()  # or the process was killed: then whole blocks are safe
        >>> with HyperSequenceWriter.resume(folder / "long.hsq") as writer:
        ...     n_safe = writer.n_records
        ...     writer.extend(np.arange(n_safe, 20.0))
        >>> n_safe, HyperSequenceFile(folder / "long.hsq").n_records
        (10, 20)
        """
        writer = cls.__new__(cls)
        writer._part = None  # first, for __del__
        taken = take_up(Path(path), overwrite=overwrite, progress=progress)
        try:
            header, counter = taken.header, RecordCounter(taken.part.target.name, progress)
            writer._prepare(header.batch_size, DEFAULT_BLOCK_NBYTES, header.file_id, header.created_ns, counter)
            writer._part = taken.part
            writer._go_on(taken.builder, header.schema)
            writer._n, writer._last = taken.n_records, taken.last
            writer._meta.update(taken.user_meta)
        except BaseException:
            writer._part = None
            taken.part.keep()
            raise
        return writer

    # --- records -------------------------------------------------------------------------------------------------

    def append(self, inputs: Any, outputs: Any = None, sample_weights: Any = None) -> None:
        """Append one record.

        Args:
            inputs: One field (an array or scalar), a tuple of fields, or a dict of named fields. Python numbers and
                text are taken where their conversion to the field's type is exact.
            outputs: The same; leave it out for unlabelled data.
            sample_weights: The same; weights that Keras multiplies losses with.

        Raises:
            RecordError: The record differs from the first one (or from ``schema``) in structure, shape or type, or its
                type cannot be stored. Nothing of it is stored; the writer goes on.
            FileError: The file system refused to take a block. ``n_kept`` says whether this record is kept (1) or has
                to be appended again (0), once there is room.
            ClosedError: After ``close()``.
        """
        if self._builder is None:
            self._begin(infer_schema((inputs, outputs, sample_weights), many=False))
        row = self._n - self._ending.known.n_records
        if row >= self._block_records:
            self._flush_keeping(0, "this record is not kept: make room, and append it again")  # it failed the last time
            row = 0
        targets = self._targets
        given: tuple[Any, Any, Any] = (inputs, outputs, sample_weights)
        plain = self._unstructured and not isinstance(given[0], tuple) and not isinstance(given[1], tuple)
        if not plain or sample_weights is not None or (outputs is None) is not (len(targets) == 1):
            values = self._schema.flatten(given)
        else:
            values = given
        # A row counts only when the line after this loop says so: a refused value leaves nothing behind.
        for target, value in zip(targets, values):  # noqa: B905 - the structure was checked; given may be longer
            kind = type(value)  # pyright: ignore[reportUnknownVariableType] - cast() costs time here
            if kind is np.ndarray:
                if value.dtype is not target.dtype or value.shape != target.shape:
                    value = check_value(target.column, value)
            elif kind not in target.exact_types or (kind is int and not -(2**63) <= value < 2**63):
                value = check_value(target.column, value)
            target.rows[row] = value
        self._n += 1
        if row + 1 == self._block_records:
            self._flush_keeping(1, "this record is kept: make room, and go on with the next")

    def extend(self, inputs: Any, outputs: Any = None, sample_weights: Any = None) -> None:
        """Append many records at once: the same as ``append`` for each, at the speed of the disk.

        Args:
            inputs: As for ``append``, with a leading axis of records on every array.
            outputs: The same.
            sample_weights: The same.

        Raises:
            RecordError: Structure, shape or type differ, or the arrays have different lengths. None of these records
                is stored.
            FileError: The file system refused to take a block. ``n_kept`` says how many of these records are kept: make
                room, and extend by the rest.
            ClosedError: After ``close()``.
        """
        given = (inputs, outputs, sample_weights)
        schema = infer_schema(given, many=True) if self._builder is None else self._schema
        values = schema.flatten(given)
        arrays = [check_values(column, value) for column, value in zip(schema.columns, values, strict=True)]
        lengths = {column.label: len(array) for column, array in zip(schema.columns, arrays, strict=True)}
        if len(set(lengths.values())) > 1:
            raise RecordError(f"extend: the fields have different numbers of records: {lengths}")
        if self._builder is None:
            self._begin(schema)
        self._ensure_open()
        done, n_records = 0, len(arrays[0])
        while done < n_records:
            row = self._n - self._ending.known.n_records
            count = min(n_records - done, self._block_records - row)
            for target, array in zip(self._targets, arrays, strict=True):
                if target.rows.itemsize:  # NumPy would go through those of no bytes one by one
                    target.rows[row : row + count] = array[done : done + count]
            self._n += count
            done += count
            if row + count == self._block_records:
                kept = f"the first {done} of these {n_records} records are kept: make room, and extend() by the rest"
                self._flush_keeping(done, kept)

    def _flush_keeping(self, n_kept: int, then: str) -> None:
        try:
            self._flush()
        except FileError as error:
            raise FileError(f"{error}; {then}", n_kept=n_kept) from error

    def user_meta(self) -> dict[str, Any]:
        """The dict of metadata that :meth:`close` stores: text, numbers, lists, dicts, ``True``, ``None``.

        Returns:
            The dict itself; change it in place.
        """
        return self._meta

    @property
    def n_records(self) -> int:
        """Records appended so far."""
        return self._n

    def batch_size(self) -> int:
        """Records of a native batch; a method, as that of a sequence is."""
        return self._batch_size

    @property
    def schema(self) -> Schema | None:
        """The structure of the records; ``None`` before the first, unless it was given."""
        return None if self._builder is None else self._schema

    def last_record(self) -> tuple[Any, ...]:
        """The last of the records that :meth:`resume` called safe, to see whether the source still is what it was.

        Returns:
            ``(inputs, outputs, sample_weights)`` as ``append`` takes them, without those at the end that the schema
            has not; owned arrays. ``()`` if there is none: nothing was safe, or this writer began anew.

        >>> with HyperSequenceWriter(folder / "new.hsq") as writer:
        ...     writer.append(1)
        ...     writer.last_record()
        ()
        """
        return self._schema.builder(range(len(self._last)))(self._last) if self._last else ()

    def _begin(self, schema: Schema) -> None:
        part = self._open_part()
        header, data = plan_header(schema, self._batch_size, self._block_nbytes, self._file_id, self._created_ns)
        self._go_on(begin_file(part, header, data), schema)

    def _go_on(self, builder: FileBuilder, schema: Schema) -> None:
        self._schema, self._builder, self._ending = schema, builder, builder.ending
        self._block_records = builder.buffer.geometry.block_records
        self._targets = [
            _Target(column, rows) for column, rows in zip(schema.columns, builder.buffer.columns, strict=True)
        ]
        roles = [column.role for column in schema.columns]
        self._unstructured = roles in (["inputs"], ["inputs", "outputs"]) and not any(c.name for c in schema.columns)

    def _flush(self) -> None:
        self._ensure_open()
        if self._builder is None:
            raise self._closed_error()
        self._builder.write_full_block()
        self._counter.show(self._builder.n_written)

    # --- ending --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write the last, possibly short block and the metadata, flush to disk, and put the file in place.

        Raises:
            RecordError: The user metadata cannot be stored, or there are neither records nor a schema. The writer
                stays open: mend it and close again.
            FileError: The file system refused. Nothing is lost: make room, and close again. Only after a failed flush
                that cannot help, and what the disk has has to be recovered.

        Closing twice does nothing.
        """
        if self._part is None:
            return
        if os.getpid() != self._pid:
            raise self._closed_error()
        if self._builder is None:
            raise RecordError(
                f"{self._part.target}: no record was appended, so its structure is unknown; give schema= to write an "
                "empty file"
            )
        if not self._part.placed:  # or an earlier call came as far as that, and readers have it
            check_meta(self._meta)
            self._closing, self._block_records = True, 0  # so that a record more is refused
            self._builder.write_last_block(self._n - self._builder.n_written)
            self._counter.show(self._builder.n_written)
            self._ending.write(self._part, self._meta)
        self._part.commit()
        self._forget()

    def abort(self) -> str:
        """Give up: leave the target as it was and keep what was appended in a part file.

        Returns:
            One sentence that says where the records are.
        """
        part = self._part
        if part is None or os.getpid() != self._pid:
            return "the writer was closed already, or belongs to another process"
        n_appended = n_records = self.n_records
        try:
            if part.placed:
                self._forget()
                part.keep()
                return f"{part.target} is complete, but perhaps its name is not on disk yet"
        except FileError as error:  # nothing may be written to what may be complete
            self._forget()
            part.keep()
            return f"{part.target} was perhaps written: {error}"
        try:
            if self._builder is not None and n_records > self._builder.n_written:
                self._builder.write_short_block(n_records - self._builder.n_written)
        except OSError:  # the disk that made us give up; what was written before is safe
            n_records = self._builder.n_safe if self._builder else 0
        self._forget()
        if not n_records and part.is_new:
            lost = f"none of the {n_appended:,} records appended" if n_appended else "no record had been appended"
            told = f"{part.target} was not written; {lost}{' had come to the disk' if n_appended else ''}"
            try:
                part.discard()
            except FileError as error:
                return f"{told}; {error}"
            return told
        doubt = "" if part.keep() else ", as far as the disk has taken them, "
        if not os.path.lexists(part.path):
            return f"{part.target} was not written; somebody removed {part.path}, where the records were"
        return (
            f"{part.target} was not written; the first {n_records:,} of the records appended are in {part.path}{doubt} "
            f"(`hsq recover {part.path}` makes a file of them, HyperSequenceWriter.resume goes on with it)"
        )

    def discard(self) -> None:
        """Give up, and keep nothing of what was appended: there is no part file afterwards.

        Raises:
            FileError: It could not be removed.
        """
        part = self._part
        try:
            placed = part is None or os.getpid() != self._pid or part.placed
        except FileError:  # nobody can tell: it may be complete
            placed = True
        if part is None or placed:
            self.abort()
            return
        self._forget()
        part.discard()

    def _forget(self) -> None:
        self._part = None
        self._builder = None
        self._block_records = 0
        self._targets = []
        self._counter.stop()

    def _open_part(self) -> PartFile:
        if self._part is None or os.getpid() != self._pid:
            raise self._closed_error()
        return self._part

    def _ensure_open(self) -> None:
        part = self._open_part()
        if self._closing:
            raise ClosedError(
                f"{part.target}: close() has begun with the end of the file; call it again, or abort(), but no record "
                "can be added"
            )

    def _closed_error(self) -> ClosedError:
        if os.getpid() != self._pid:
            return ClosedError(
                "this writer belongs to the process that made it; open another one, with a file of its own"
            )
        return ClosedError("the writer was closed; open a new one, a data set grows by adding files")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            error.add_note(self.abort())
            return
        try:
            self.close()
        except BaseException as failure:
            failure.add_note(self.abort())
            raise

    def __del__(self) -> None:
        if self._part is not None and os.getpid() == self._pid:
            target = self._part.target
            warnings.warn(f"writer of {target} was not closed: {self.abort()}", ResourceWarning, stacklevel=2)


class _Target:
    """Where a column's values go, and which of them need no closer look."""

    __slots__ = ("column", "dtype", "exact_types", "rows", "shape")

    def __init__(self, column: Column, rows: Array) -> None:
        self.column = column
        self.rows = rows
        self.dtype = rows.dtype
        self.shape = column.field.shape
        exact: set[type] = set()
        if self.shape == () and self.dtype.kind not in "SUmM":
            exact.add(self.dtype.type)
            python_type = {"int64": int, "float64": float, "bool": bool, "complex128": complex}.get(self.dtype.name)
            exact |= {python_type} if python_type else set()
        self.exact_types = frozenset(exact)
