"""One column of a file: arrays over the mapping, and the gather."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..layout import JOIN_LIMIT_NBYTES
from ..schema import Array
from ..stored import StoredFile
from .buffers import lease, lease_of
from .handle import FileHandle

_PIECE_NBYTES = 256 << 10


class Plan:
    """Where scattered records lie, worked out once for many batches."""

    __slots__ = ("_positions", "blocks", "numbers", "rows")

    def __init__(self, numbers: Array, block_records: int, n_blocks: int) -> None:
        self.numbers = numbers
        self.blocks = numbers // block_records if n_blocks > 1 else np.zeros_like(numbers)
        self.rows = numbers - self.blocks * block_records if n_blocks > 1 else numbers
        self._positions: dict[int, Array] = {0: numbers}  # by gap: place in the row of all records

    def at_gap(self, gap: int) -> Array:
        """Places in a column whose blocks are ``gap`` records apart."""
        found = self._positions.get(gap)
        if found is None:
            found = self._positions[gap] = self.numbers + self.blocks * gap
        return found


class StoredColumn:
    """A column as arrays over the mapping, whose gaps between blocks are never named.

    ``rows`` is every record in one row, where the block stride allows that and the data are aligned and little-endian.
    """

    def __init__(self, stored: StoredFile, number: int, handle: FileHandle) -> None:
        field = stored.schema.columns[number].field
        self.dtype, self.shape, self.nbytes = field.dtype, field.shape, field.nbytes
        self._handle = handle
        self._mapped = handle.mapping is not None  # decided once: close() may come in the middle of a batch
        self._stride = stored.stride
        self._start = stored.first_block + stored.column_offsets[number]
        self._stored_dtype = stored.stored_dtypes[number]
        self._native = self._stored_dtype == self.dtype
        self.viewable = self._native and (self._start | self._stride) % max(1, self.dtype.alignment) == 0
        self.rows: Array | None = None
        self.gap = 0
        self._in_row: Array | None = None  # the same, if records are small enough for np.take
        self._bytes_in_row: Array | None = None  # the same as bytes, where they cannot be viewed
        self._bytes_by_block: Array | None = None  # [block, row], where the stride does not allow one row
        # Larger records are copied one by one, and NumPy has no void above 2 GiB.
        self._small = self.nbytes <= JOIN_LIMIT_NBYTES
        self._void = np.dtype((np.void, self.nbytes if self._small else 1))
        mapping = handle.mapping
        if mapping is not None and self.nbytes and stored.n_blocks:
            self._view(stored, mapping)

    def _view(self, stored: StoredFile, mapping: memoryview) -> None:
        shape, strides = (stored.n_blocks, stored.block_records), (stored.stride, self.nbytes)
        first = np.ndarray((self.nbytes,), np.uint8, mapping, self._start)
        # A short last block makes these shapes end behind the file; rows past the records are never asked for.
        # As bytes at first, because as_strided() does not know all types.
        raw = as_strided(first, (*shape, self.nbytes), (*strides, 1), writeable=False)
        self._blocks = raw.view(self._stored_dtype).reshape(*shape, *self.shape)
        if stored.n_blocks == 1 or stored.stride % self.nbytes == 0:
            per_stride = stored.stride // self.nbytes if stored.n_blocks > 1 else stored.block_records
            self.gap = per_stride - stored.block_records
            last_rows = stored.n_records - (stored.n_blocks - 1) * stored.block_records
            n_rows = (stored.n_blocks - 1) * per_stride + last_rows
            if self.viewable:
                self.rows = np.ndarray((n_rows, *self.shape), self.dtype, mapping, self._start)
                self._in_row = self.rows if self._small else None
            elif self._small:
                # np.take copies an unaligned or byte-swapped array whole before it begins; bytes are never either.
                self._bytes_in_row = np.ndarray((n_rows,), self._void, mapping, self._start)
        elif self._small:
            void = np.ndarray((), self._void, mapping, self._start)
            self._bytes_by_block = as_strided(void, shape, strides, writeable=False)

    def read_rows(self, block: int, row: int, n_rows: int, *, view: bool, out: Array | None = None) -> Array:
        """Consecutive rows of a block, as a view if that is wanted and possible, or in ``out``."""
        if not self.nbytes or not n_rows:
            return self._empty(n_rows) if out is None else out
        if self._mapped:
            found = self._blocks[block, row : row + n_rows]
            if view and self.viewable:
                return found
            out = self.lease(n_rows) if out is None else out
            out[...] = found
            return out
        out = self.lease(n_rows) if out is None else out
        raw = out if self._native else lease(out.shape, self._stored_dtype)
        self._handle.read_into(bytes_of(raw), self._start + block * self._stride + row * self.nbytes)
        return self._finish(raw, out)

    def views(self, places: Array, n_rows: int) -> Iterator[Array]:
        """Views of so many rows from each of these places in the row of all records on."""
        assert self.rows is not None
        # Without a step in Python, since this is all that a small batch costs.
        return map(self.rows.__getitem__, map(slice, places.tolist(), (places + n_rows).tolist()))

    def fill(self, pieces: Sequence[tuple[int, int, int]], out: Array) -> None:
        """Rows of several places (block, first row, number of rows), one behind the other, into ``out``."""
        if self._mapped and self.viewable and self.nbytes and len(pieces) > 1:
            # In one call, since threads would wait for the interpreter's lock at every piece: docs/decisions.md.
            np.concatenate([self._blocks[block, row : row + n_rows] for block, row, n_rows in pieces], out=out)
            return
        done = 0
        for block, row, n_rows in pieces:
            self.read_rows(block, row, n_rows, view=False, out=out[done : done + n_rows])
            done += n_rows

    def lease(self, n_rows: int) -> Array:
        """Memory for that many records."""
        return lease_of(n_rows * self.nbytes, (n_rows, *self.shape), self.dtype)

    def extent(self, block: int, row: int, n_rows: int) -> tuple[int, int]:
        """Where consecutive rows of a block lie: offset and number of bytes."""
        return self._start + block * self._stride + row * self.nbytes, n_rows * self.nbytes

    def gather(self, plan: Plan, part: slice, out: Array | None = None) -> Array:
        """Scattered rows, into ``out`` or memory of their own."""
        n_rows = part.stop - part.start
        if out is None:
            out = lease_of(n_rows * self.nbytes, (n_rows, *self.shape), self.dtype)
        if self._in_row is not None and n_rows:  # the usual case, in the fewest steps
            # mode="clip" because the default would gather into a temporary first, to keep `out` whole on an error.
            self._in_row.take(plan.at_gap(self.gap)[part], 0, out, "clip")
            return out
        if not self.nbytes or not n_rows:
            return out
        raw = out if self._native else lease(out.shape, self._stored_dtype)
        if not self._mapped:
            self._read_scattered(bytes_of(raw), plan.blocks[part], plan.rows[part])
        elif self._bytes_in_row is not None:
            target = np.ndarray((n_rows,), self._void, raw)
            self._bytes_in_row.take(plan.at_gap(self.gap)[part], 0, target, "clip")
        elif self._bytes_by_block is not None:
            self._gather_pieces(self._bytes_by_block, raw, plan.blocks[part], plan.rows[part])
        else:
            for i, (block, row) in enumerate(zip(plan.blocks[part].tolist(), plan.rows[part].tolist(), strict=True)):
                raw[i] = self._blocks[block, row]
        return self._finish(raw, out)

    def _gather_pieces(self, source: Array, out: Array, blocks: Array, rows: Array) -> None:
        """Records that do not divide the block stride: NumPy's indexing has no ``out``, so by small pieces."""
        target = np.ndarray((len(out),), self._void, out)
        step = max(1, _PIECE_NBYTES // self.nbytes)
        for start in range(0, len(target), step):
            piece = slice(start, start + step)
            target[piece] = source[blocks[piece], rows[piece]]

    def _read_scattered(self, target: memoryview, blocks: Array, rows: Array) -> None:
        offsets = blocks * self._stride + rows * self.nbytes + self._start
        # Neighbours are read together.
        starts = np.flatnonzero(np.diff(offsets, prepend=-1 - self.nbytes) != self.nbytes).tolist()
        for start, stop in zip(starts, [*starts[1:], len(offsets)], strict=True):
            self._handle.read_into(target[start * self.nbytes : stop * self.nbytes], int(offsets[start]))

    def _empty(self, n_rows: int) -> Array:
        return np.ndarray((n_rows, *self.shape), self.dtype)

    def _finish(self, raw: Array, out: Array) -> Array:
        if not self._native:
            out[...] = raw  # in this machine's byte order
        return out


def bytes_of(array: Any) -> memoryview:
    """The memory of a C-contiguous array."""
    flat: Any = np.ndarray((array.nbytes,), np.uint8, array)
    return memoryview(flat)
