"""Scattered records of several files in one gather, which costs the same for two files and for two hundred."""

# Files that are read together are read from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..layout import JOIN_LIMIT_NBYTES
from ..schema import Array
from .buffers import lease
from .reader import FileSource

#: Records are copied in one go where all of their addresses are multiples of so much.
_MIN_UNIT_NBYTES = 64
#: What passes through memory of NumPy's own on the way: little enough to stay in the processor's cache.
_PIECE_NBYTES = 64 << 10
#: Where that costs more than a call for each record.
_MAX_PIECEWISE_NBYTES = 8 << 10


class AcrossPlan:
    """Where scattered records of several files lie, worked out once for many batches.

    Args:
        numbers: Record numbers within their files.
        owners: The files that they are in.
        block_records: Records a block, of each file.
        strides: Bytes from one block to the next, of each file.

    Nothing here changes but for what is worked out later, so threads can share it.
    """

    __slots__ = ("_places", "block_offsets", "blocks", "numbers", "owners", "rows")

    def __init__(self, numbers: Array, owners: Array, block_records: Array, strides: Array) -> None:
        self.numbers, self.owners = numbers, owners
        same = block_records.min() == block_records.max()  # as it is mostly: dividing by one number is much quicker
        sizes = block_records[0] if same else block_records[owners]
        self.blocks = numbers // sizes
        self.rows = numbers - self.blocks * sizes
        self.block_offsets = self.blocks * strides[owners]
        self._places: dict[int, Array] = {}  # by column number

    def places(self, column: AcrossColumn) -> Array:
        """Where they lie in a column."""
        found = self._places.get(column.number)
        if found is None:
            found = self.rows * column.nbytes
            found += self.block_offsets
            found += column.starts[self.owners]
            found //= max(1, column.unit)
            self._places[column.number] = found
        return found


class AcrossColumn:
    """A column of several files.

    Small records of mapped files are gathered as if the memory from the lowest mapping to the highest were one array.
    """

    def __init__(self, number: int, files: Sequence[FileSource]) -> None:
        field = files[0].schema.columns[number].field
        self.number = number
        self.dtype, self.shape, self.nbytes = field.dtype, field.shape, field.nbytes
        self._files = files
        #: Where records begin: in the file, or if there is a ``unit``, in memory from ``_low`` on.
        self.starts = np.array([f.stored.first_block + f.stored.column_offsets[number] for f in files], np.int64)
        #: What divides all places in memory; 0 where records are copied one by one.
        self.unit = 0
        self._low = self._high = 0
        self._swapped = np.array([f.stored.stored_dtypes[number] != self.dtype for f in files], np.bool_)
        mappings = {i: file._handle.mapping for i, file in enumerate(files) if file.n_records}
        addresses = {i: _address(mapping) for i, mapping in mappings.items() if mapping is not None}
        if addresses and len(addresses) == len(mappings) and 0 < self.nbytes <= JOIN_LIMIT_NBYTES:
            self._find_unit(addresses)

    def _find_unit(self, addresses: dict[int, int]) -> None:
        starts = {i: address + int(self.starts[i]) for i, address in addresses.items()}
        low = min(starts.values())
        strides = [self._files[i].stored.stride for i in starts if self._files[i].stored.n_blocks > 1]
        unit = int(np.gcd.reduce([self.nbytes, *strides, *(start - low for start in starts.values())]))
        if unit < min(_MIN_UNIT_NBYTES, self.nbytes):
            if self.nbytes > _MAX_PIECEWISE_NBYTES:
                return
            unit = 1
        self.unit, self._low = unit, low
        self._high = max(address + self._files[i]._handle.nbytes for i, address in addresses.items())
        self.starts = np.array([starts.get(i, low) - low for i in range(len(self._files))], np.int64)

    def gather(self, plan: AcrossPlan, part: slice, held: Mapping[int, memoryview | None], out: Array | None) -> Array:
        """The records of a part of a plan, into ``out`` or memory of their own.

        Args:
            plan: Of valid numbers; addresses come from it.
            part: A slice of it, with both ends.
            held: The mappings of all files with records in that part, which are there for as long as this is.
            out: As ``Source.gather`` has it.
        """
        n_rows = part.stop - part.start
        if out is None:
            out = lease((n_rows, *self.shape), self.dtype)
        if not n_rows or not self.nbytes:
            return out
        places = plan.places(self)[part]
        if not self.unit:
            self._copy_each(places, plan.owners[part], held, np.ndarray((out.nbytes,), np.uint8, out))
        elif self.unit == 1 < self.nbytes:
            self._take_pieces(places, held, np.ndarray((n_rows,), (np.void, self.nbytes), out))
        else:
            self._take_units(places, held, out)
        swapped = np.flatnonzero(self._swapped[plan.owners[part]])
        if len(swapped):  # in this machine's byte order
            out[swapped] = out[swapped].view(self.dtype.newbyteorder())
        return out

    def _take_units(self, places: Array, held: Mapping[int, Any], out: Array) -> None:
        """Straight into place, each record as so many units."""
        n_units = self.nbytes // self.unit
        if n_units > 1:
            places = (places[:, None] + np.arange(n_units)).reshape(-1)
        memory = self._memory(self.unit, held)
        memory.take(places, 0, np.ndarray(places.shape, memory.dtype, out), "clip")

    def _take_pieces(self, places: Array, held: Mapping[int, Any], out: Array) -> None:
        """Records at odd addresses: NumPy's take() wants items side by side, and its indexing has no ``out``."""
        memory = self._memory(self.nbytes, held)
        step = _PIECE_NBYTES // self.nbytes
        for start in range(0, len(out), step):
            piece = slice(start, start + step)
            out[piece] = memory[places[piece]]

    def _memory(self, item_nbytes: int, held: Mapping[int, Any]) -> Array:
        """Items at every multiple of the unit, from the first mapping to the last and all that lies between."""
        return np.asarray(_Memory(self._low, self._high, item_nbytes, self.unit, held))

    def _copy_each(self, offsets: Array, owners: Array, held: Mapping[int, memoryview | None], target: Array) -> None:
        """One by one; neighbours together."""
        apart = (np.diff(offsets) != self.nbytes) | (np.diff(owners) != 0)
        starts = [0, *(np.flatnonzero(apart) + 1).tolist()]
        for start, stop in zip(starts, [*starts[1:], len(offsets)], strict=True):
            owner, offset = int(owners[start]), int(offsets[start])
            mapping, room = held[owner], target[start * self.nbytes : stop * self.nbytes]
            if mapping is None:
                self._files[owner]._handle.read_into(memoryview(room), offset)
            else:
                room[:] = np.ndarray(room.shape, np.uint8, mapping, offset)


class _Memory:
    """What NumPy sees as an array of items over a stretch of memory; it keeps alive what is read of that."""

    def __init__(self, low: int, high: int, item_nbytes: int, stride: int, held: Mapping[int, Any]) -> None:
        self._held = held
        self.__array_interface__ = {
            "version": 3,
            "typestr": f"|V{item_nbytes}",
            "shape": ((high - low - item_nbytes) // stride + 1,),
            "strides": (stride,),
            "data": (low, True),
        }


def _address(mapping: memoryview) -> int:
    return np.frombuffer(mapping, np.uint8).ctypes.data


class AcrossChecks:
    """The checksums of a column of several files, checked file by file where that was not done yet.

    What the files know of their runs is repeated here, so that one look tells it for a whole batch.
    """

    def __init__(self, number: int, files: Sequence[FileSource]) -> None:
        self._number = number
        self._checkers = [file._checker for file in files]
        #: Flags of each file that has anything to check; before them one of a run that never needs it.
        self._flags = {i: c._arrays[number] for i, c in enumerate(self._checkers) if number in c.unchecked}
        n_runs = [len(self._flags.get(i, ())) for i in range(len(files))]
        self._firsts = np.cumsum([1, *n_runs[:-1]]) * (np.array(n_runs) > 0)
        self._checked = np.arange(1 + sum(n_runs)) == 0
        geometry = [
            (c._runs_per_block[number], c._run_records[number]) if n else (0, 1 << 62)
            for c, n in zip(self._checkers, n_runs, strict=True)
        ]
        self._runs_per_block, self._run_records = np.array(geometry, np.int64).T

    def check(self, plan: AcrossPlan, part: slice) -> None:
        """Check what was not checked yet of the records in a part of a plan.

        Raises:
            ChecksumError: Stored data changed after they were written.
        """
        owners, blocks, rows = plan.owners[part], plan.blocks[part], plan.rows[part]
        runs = self._firsts[owners] + blocks * self._runs_per_block[owners] + rows // self._run_records[owners]
        new = np.flatnonzero(~self._checked[runs])
        for owner in np.unique(owners[new]).tolist():
            mine = new[owners[new] == owner]
            self._checkers[owner].check_scattered((self._number,), blocks[mine], rows[mine])
            flags, first = self._flags[owner], int(self._firsts[owner])
            self._checked[first : first + len(flags)] = flags
