"""Scattered records of several files in one gather, whose cost hardly depends on how many they are."""

# Files that are read together are read from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from ..layout import JOIN_LIMIT_NBYTES
from ..schema import Array
from .buffers import lease_of
from .columns import bytes_of
from .reader import FileSource

#: Records are copied in one go where all of their addresses are multiples of so much.
_MIN_UNIT_NBYTES = 64
#: What passes through memory of NumPy's own on the way: little enough to stay in the processor's cache.
_PIECE_NBYTES = 64 << 10
#: Where that costs more than a call for each record.
_MAX_PIECEWISE_NBYTES = 16 << 10


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

    Small records of mapped files are gathered as if the memory from the lowest mapping to the highest were one array,
    since a call for each file takes longer than copying its few records. Addresses come from numbers that ``plan`` has
    checked and geometry that was validated on opening, and whoever gathers holds the mappings.
    """

    def __init__(self, number: int, files: Sequence[FileSource]) -> None:
        field = files[0].schema.columns[number].field
        self.number = number
        self.dtype, self.shape, self.nbytes = field.dtype, field.shape, field.nbytes
        self._files = files
        #: Where records begin: in the file; or if there is a ``unit``, in memory, counted from the lowest of them.
        self.starts = np.array([f.stored.first_block + f.stored.column_offsets[number] for f in files], np.int64)
        #: What divides all places in memory; 0 where records are copied one by one.
        self.unit = 0
        self._interface: dict[str, Any] = {}
        swapped = [f.stored.stored_dtypes[number] != self.dtype for f in files]
        self._swapped = np.array(swapped) if any(swapped) else None
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
        self.unit = unit
        self.starts = np.array([starts.get(i, low) - low for i in range(len(self._files))], np.int64)
        high = max(address + self._files[i]._handle.nbytes for i, address in addresses.items())
        item_nbytes = self.nbytes if unit == 1 else unit
        self._interface = {
            "version": 3,
            "typestr": f"|V{item_nbytes}",
            "shape": ((high - low - item_nbytes) // unit + 1,),
            "strides": (unit,),
            "data": (low, True),
        }

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
            out = lease_of(n_rows * self.nbytes, (n_rows, *self.shape), self.dtype)
        if not n_rows or not self.nbytes:
            return out
        places = plan.places(self)[part]
        if self.unit:
            self._take(places, held, out)
        else:
            self._copy_each(places, plan.owners[part], held, np.ndarray((out.nbytes,), np.uint8, out))
        if self._swapped is not None:
            swapped = self._swapped[plan.owners[part]]
            out[swapped] = out[swapped].view(self.dtype.newbyteorder())
        return out

    def _take(self, places: Array, held: Mapping[int, Any], out: Array) -> None:
        memory = np.asarray(_Memory(self._interface, held))
        n_items = self.nbytes // memory.itemsize
        if n_items > 1:
            places = (places[:, None] + np.arange(n_items)).reshape(-1)
        target = np.ndarray(places.shape, memory.dtype, out)
        side_by_side = memory.flags.c_contiguous
        if side_by_side and not np.may_share_memory(memory, target):
            memory.take(places, 0, target, "clip")
            return
        # Of items that overlap each other, take() copies all there are before it begins; and it copies an ``out`` that
        # lies between mappings, since it holds that for a part of them. Small pieces stay in the processor's cache.
        step = max(1, _PIECE_NBYTES // memory.itemsize)
        for start in range(0, len(places), step):
            piece = slice(start, start + step)
            target[piece] = memory.take(places[piece], 0, None, "clip") if side_by_side else memory[places[piece]]

    def _copy_each(self, offsets: Array, owners: Array, held: Mapping[int, memoryview | None], target: Array) -> None:
        """One by one; neighbours together."""
        apart = (np.diff(offsets) != self.nbytes) | (np.diff(owners) != 0)
        starts = np.concatenate(([0], np.flatnonzero(apart) + 1))
        stops = [*(starts[1:] * self.nbytes).tolist(), len(target)]
        mapped = {owner: np.frombuffer(mapping, np.uint8) for owner, mapping in held.items() if mapping is not None}
        at = 0
        for owner, offset, stop in zip(owners[starts].tolist(), offsets[starts].tolist(), stops, strict=True):
            if owner in mapped:
                target[at:stop] = mapped[owner][offset : offset + stop - at]
            else:
                self._files[int(owner)]._handle.read_into(bytes_of(target[at:stop]), offset)
            at = stop


class _Memory:
    """What NumPy sees as an array over memory from one mapping to another; it keeps alive those that are read."""

    def __init__(self, interface: dict[str, Any], held: Mapping[int, Any]) -> None:
        self.__array_interface__ = interface
        self._held = held


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
        for owner in cast("list[int]", np.unique(owners[new]).tolist()):
            mine = new[owners[new] == owner]
            self._checkers[owner].check_scattered((self._number,), blocks[mine], rows[mine])
            flags, first = self._flags[owner], int(self._firsts[owner])
            self._checked[first : first + len(flags)] = flags
