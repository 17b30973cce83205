"""From record numbers to arrays: a view where rows are contiguous, one gather a column where they are not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..errors import ArgumentError, FileChangedError
from ..layout import JOIN_LIMIT_NBYTES, describe_file
from ..legacy import describe_legacy_file, looks_legacy
from ..schema import Array, Schema
from ..stored import StoredFile
from .buffers import lease
from .handle import FileHandle
from .verify import RunChecker, Verify

#: Record numbers: a range with step 1 where they are contiguous, else an int64 array.
Numbers: TypeAlias = "range | Array"

_V3_MAGIC = b"\x89HSQ"


class Source(Protocol):
    """What a sequence reads from: one file, or several in a row."""

    schema: Schema
    n_records: int
    batch_size: int

    def read(self, numbers: Numbers, chosen: Sequence[int]) -> list[Array]:
        """Arrays of the chosen columns for these records, leading axis = records."""
        ...

    def prefetch(self, numbers: Numbers) -> None:
        """Ask the system to read ahead what ``read`` will be asked for."""
        ...

    def user_meta(self) -> dict[str, Any]:
        """The user metadata."""
        ...

    def files(self) -> list[FileSource]:
        """The files behind this source, in order."""
        ...

    def close(self) -> None:
        """Close every file."""
        ...


class _StoredColumn:
    """A column as arrays over the mapping, whose gaps between blocks are never named."""

    __slots__ = ("blocks", "dtype", "flat", "gap", "nbytes", "shape", "stored_dtype", "void", "void_blocks", "void_flat")

    def __init__(self, stored: StoredFile, number: int, mapping: memoryview | None) -> None:
        field = stored.schema.columns[number].field
        self.dtype, self.shape, self.nbytes = field.dtype, field.shape, field.nbytes
        self.stored_dtype = stored.stored_dtypes[number]
        self.flat: Array | None = None  # typed records in one row over all blocks, where that can be viewed
        self.void_flat: Array | None = None  # the same as bytes, for np.take
        self.void_blocks: Array | None = None  # [block, row] as bytes, where the stride does not allow one row
        self.void = np.dtype((np.void, field.nbytes))
        self.gap = 0
        if mapping is None or not field.nbytes or not stored.n_blocks:
            return
        start = stored.first_block + stored.column_offsets[number]
        shape, strides = (stored.n_blocks, stored.block_records), (stored.stride, field.nbytes)
        row = np.ndarray(field.shape, self.stored_dtype, mapping, start)
        # A short last block makes these shapes end behind the file; rows past the records are never asked for.
        self.blocks = as_strided(row, (*shape, *field.shape), (*strides, *row.strides), writeable=False)
        if stored.n_blocks == 1 or stored.stride % field.nbytes == 0:
            rows_per_stride = stored.stride // field.nbytes if stored.n_blocks > 1 else 0
            self.gap = rows_per_stride - stored.block_records if stored.n_blocks > 1 else 0
            last_rows = stored.n_records - (stored.n_blocks - 1) * stored.block_records
            n_rows = (stored.n_blocks - 1) * rows_per_stride + last_rows
            # np.take copies an unaligned or byte-swapped array whole before it begins; bytes are never either.
            self.void_flat = np.ndarray((n_rows,), self.void, mapping, start)
            if self.viewable(stored, start):
                self.flat = np.ndarray((n_rows, *field.shape), self.stored_dtype, mapping, start)
        elif field.nbytes <= JOIN_LIMIT_NBYTES:
            self.void_blocks = as_strided(np.ndarray((), self.void, mapping, start), shape, strides, writeable=False)

    def viewable(self, stored: StoredFile, start: int) -> bool:
        """Whether rows can be handed out as they lie; legacy files may be unaligned or big-endian."""
        return self.stored_dtype == self.dtype and (start | stored.stride) % max(1, self.dtype.alignment) == 0


class FileSource:
    """One open file.

    Thread-safe, fork-safe, picklable (it is opened again by its path, and must then be the same file).
    """

    def __init__(self, path: str, *, use_mmap: bool, copy_buffer: bool, verify: Verify) -> None:
        if verify not in ("first", "always", "never"):
            raise ArgumentError(f"verify is 'first', 'always' or 'never', not {verify!r}")
        self.path = path
        self._options: dict[str, Any] = {"use_mmap": use_mmap, "copy_buffer": copy_buffer, "verify": verify}
        self._handle = FileHandle(path)
        try:
            self.stored = _describe(self._handle)
            mapping = self._handle.map() if use_mmap and self._handle.nbytes else None
        except BaseException:
            self._handle.close()
            raise
        self.schema = self.stored.schema
        self.n_records = self.stored.n_records
        self.batch_size = self.stored.batch_size
        self._block_records = self.stored.block_records
        self._views = mapping is not None and not copy_buffer
        self._columns = [_StoredColumn(self.stored, c.number, mapping) for c in self.schema.columns]
        self._checker = RunChecker(self.stored, self._handle, verify)
        self._meta: dict[str, Any] | None = None

    def read(self, numbers: Numbers, chosen: Sequence[int]) -> list[Array]:
        """Arrays of the chosen columns for these records.

        Args:
            numbers: Record numbers, all inside the file (the caller has checked): a range of step 1, or an int64 array
                of any shape, which becomes the leading axes of the result.
            chosen: Column numbers.

        Returns:
            For a range inside one block of a mapped file: read-only views. Otherwise owned, writable arrays.

        Raises:
            ChecksumError: A checksum run touched for the first time is damaged.
            ClosedError: After ``close()``.
            FileChangedError: The file was truncated.
        """
        self._handle.ensure_whole()
        if type(numbers) is not range:
            return self._gather(np.asarray(numbers), chosen)
        start = numbers.start
        n_rows = numbers.stop - start
        block, row = divmod(start, self._block_records)
        if row + n_rows > self._block_records:
            return self._gather(np.arange(start, numbers.stop), chosen)
        if self._checker.unchecked:
            self._checker.check_rows(chosen, block, row, n_rows)
        arrays: list[Array] = []
        for number in chosen:
            column = self._columns[number]
            if self._views and column.flat is not None:
                at = start + block * column.gap
                arrays.append(column.flat[at : at + n_rows])
            else:
                arrays.append(self._read_rows(number, block, row, n_rows))
        return arrays

    def _read_rows(self, number: int, block: int, row: int, n_rows: int) -> Array:
        """Consecutive rows of one block, the less common ways."""
        column, stored = self._columns[number], self.stored
        if not column.nbytes or not n_rows:
            return _empty(n_rows, column)
        if self._handle.mapping is None:
            out = lease((n_rows, *column.shape), column.stored_dtype)
            offset = stored.first_block + block * stored.stride + stored.column_offsets[number] + row * column.nbytes
            self._handle.read_into(_bytes_of(out), offset)
            return _native(out, column)
        view = column.blocks[block, row : row + n_rows]
        if self._views and column.viewable(stored, stored.first_block + stored.column_offsets[number]):
            return view
        out = lease(view.shape, column.dtype)
        out[...] = view
        return out

    def _gather(self, numbers: Array, chosen: Sequence[int]) -> list[Array]:
        shape = numbers.shape
        flat_numbers = numbers.reshape(-1)
        if self.stored.n_blocks > 1:
            blocks = flat_numbers // self._block_records
            rows = flat_numbers - blocks * self._block_records
        else:
            blocks, rows = np.zeros_like(flat_numbers), flat_numbers
        if self._checker.unchecked:
            self._checker.check_scattered(chosen, blocks, rows)
        return [self._gather_column(number, shape, flat_numbers, blocks, rows) for number in chosen]

    def _gather_column(
        self, number: int, shape: tuple[int, ...], numbers: Array, blocks: Array, rows: Array
    ) -> Array:
        column = self._columns[number]
        if not column.nbytes or not len(numbers):
            return _empty(len(numbers), column).reshape(*shape, *column.shape)
        out = lease((len(numbers), *column.shape), column.stored_dtype)
        if self._handle.mapping is None:
            self._pread_scattered(number, _bytes_of(out), blocks, rows)
        elif column.void_flat is not None and column.nbytes <= JOIN_LIMIT_NBYTES:
            # mode="clip" because the default would gather into a temporary first, to keep `out` whole on an error.
            at = numbers + blocks * column.gap if column.gap else numbers
            np.take(column.void_flat, at, out=np.ndarray((len(out),), column.void, out), mode="clip")
        elif column.void_blocks is not None:
            _gather_voids(column, column.void_blocks, out, blocks, rows)
        else:
            for i, (block, row) in enumerate(zip(blocks.tolist(), rows.tolist(), strict=True)):
                out[i] = column.blocks[block, row]
        out = _native(out, column)
        return out if len(shape) == 1 else out.reshape(*shape, *column.shape)

    def _pread_scattered(self, number: int, target: memoryview, blocks: Array, rows: Array) -> None:
        stored, nbytes = self.stored, self._columns[number].nbytes
        offsets = blocks * stored.stride + rows * nbytes + (stored.first_block + stored.column_offsets[number])
        # Neighbours are read together.
        starts = np.flatnonzero(np.diff(offsets, prepend=-1 - nbytes) != nbytes).tolist()
        for start, stop in zip(starts, [*starts[1:], len(offsets)], strict=True):
            self._handle.read_into(target[start * nbytes : stop * nbytes], int(offsets[start]))

    def prefetch(self, numbers: Numbers) -> None:
        """Ask the system to read the blocks of these records ahead; returns at once."""
        stored = self.stored
        if not len(numbers) or not stored.n_blocks:
            return
        if isinstance(numbers, range):
            blocks = range(numbers.start // self._block_records, (numbers.stop - 1) // self._block_records + 1)
        else:
            blocks = np.unique(numbers // self._block_records).tolist()
        for block in blocks:
            self._handle.will_need(stored.first_block + block * stored.stride, stored.stride)

    def user_meta(self) -> dict[str, Any]:
        """The user metadata, read once."""
        if self._meta is None:
            self._handle.ensure_whole()
            self._meta = self.stored.read_meta(self._handle.read)
        return self._meta

    def files(self) -> list[FileSource]:
        """This file alone."""
        return [self]

    @property
    def closed(self) -> bool:
        """Whether the file was closed."""
        return self._handle.closed

    def close(self) -> None:
        """Close the file; arrays stay valid."""
        self._handle.close()
        self._columns = [_StoredColumn(self.stored, c.number, None) for c in self.schema.columns]

    def __reduce__(self) -> Any:
        return _reopen, (self.path, self._options, self._same())

    def _same(self) -> tuple[Any, ...]:
        stored = self.stored
        return stored.file_id, stored.digest, stored.n_records, self._handle.nbytes


def _empty(n_rows: int, column: _StoredColumn) -> Array:
    return np.ndarray((n_rows, *column.shape), column.dtype)


def _native(out: Array, column: _StoredColumn) -> Array:
    """Legacy files may hold big-endian numbers."""
    return out if column.stored_dtype == column.dtype else out.astype(column.dtype)


def _bytes_of(array: Array) -> memoryview:
    return memoryview(np.ndarray((array.nbytes,), np.uint8, array))


def _gather_voids(column: _StoredColumn, voids: Array, out: Array, blocks: Array, rows: Array) -> None:
    """Columns whose records do not divide the block stride: NumPy's indexing has no ``out``, so by small pieces."""
    target = np.ndarray((len(out),), column.void, out)
    step = max(1, (256 << 10) // column.nbytes)
    for start in range(0, len(target), step):
        part = slice(start, start + step)
        target[part] = voids[blocks[part], rows[part]]


def _describe(handle: FileHandle) -> StoredFile:
    if handle.read(0, len(_V3_MAGIC)) != _V3_MAGIC and handle.nbytes and looks_legacy(handle.read, handle.nbytes):
        return describe_legacy_file(handle.read, handle.nbytes, handle.path)
    return describe_file(handle.read, handle.nbytes, handle.path)


def open_source(path: str | os.PathLike[str], *, use_mmap: bool, copy_buffer: bool, verify: Verify) -> FileSource:
    """Open one file of version 3, or of hypersequence 0.9 or 0.10."""
    return FileSource(str(Path(path).absolute()), use_mmap=use_mmap, copy_buffer=copy_buffer, verify=verify)


def _reopen(path: str, options: dict[str, Any], same: tuple[Any, ...]) -> FileSource:
    source = FileSource(path, **options)
    if source._same() != same:
        source.close()
        raise FileChangedError(
            f"{path}: the file was replaced since this sequence was made; make the sequence again", path=path
        )
    return source
