"""Reading on in spite of damage: the records of a damaged block are replaced by those of the next sound one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, cast

import numpy as np

from ..errors import ArgumentError, ChecksumError
from ..schema import Array
from .readahead import Loaded, Way
from .reader import FileSource, Numbers, Source

#: Of each 100 blocks of a file, so many may be damaged (and one in any case).
MAX_DAMAGED_PERCENT = 1


class SalvagingSource:
    """A source whose damaged blocks are stood in for.

    Blocks are checked as a whole, with all columns, when a record of them is first planned or read, so that which are
    damaged depends on the files alone: not on the order, the fields or the rank. A record of a damaged block is
    replaced by the record in the same row of the next sound block of its file (counted on from the beginning if that
    one has fewer rows). Every damaged block gives a warning.

    Thread-safe.

    Raises:
        ChecksumError: On reading, where more blocks of a file are damaged than is bearable.
        ArgumentError: A file is read without verification.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.schema = source.schema
        self.n_records, self.batch_size = source.n_records, source.batch_size
        self.block_records = source.block_records
        self._files = [_CheckedFile(file) for file in source.files()]
        self._starts = np.array([0, *accumulate(file.source.n_records for file in self._files)], np.int64)

    def __reduce__(self) -> Any:
        return SalvagingSource, (self._source,)

    @property
    def n_damaged(self) -> int:
        """Damaged blocks met so far."""
        return sum(len(file.stand_ins) for file in self._files)

    def _sound(self, numbers: Array) -> Array:
        """The numbers of sound records to read instead, most of them the same."""
        owners = np.searchsorted(self._starts, numbers, side="right") - 1
        result = numbers
        for owner in cast("list[int]", np.unique(owners).tolist()):
            file, start = self._files[owner], int(self._starts[owner])
            mine = np.flatnonzero(owners == owner)
            found = file.sound(numbers[mine] - start)
            if found is not None:
                result = result.copy() if result is numbers else result
                result[mine] = found + start
        return result

    def read(self, numbers: Numbers, chosen: Sequence[int]) -> list[Array]:
        """As the source does, with sound records."""
        wanted = np.asarray(numbers).reshape(-1)
        found = self._sound(wanted)
        if found is wanted:
            return self._source.read(numbers, chosen)
        return self._source.read(found.reshape(np.shape(np.asarray(numbers))), chosen)

    def runs(self, starts: Array, n_rows: int, chosen: Sequence[int]) -> Iterator[Sequence[Array]]:
        """As the source does, with sound records."""
        return (self.read(range(start, start + n_rows), chosen) for start in starts.tolist())

    def fill(self, runs: Sequence[range], chosen: Sequence[int], out: Sequence[Array]) -> None:
        """As the source does, with sound records."""
        wanted = np.concatenate([np.asarray(run) for run in runs])
        found = self._sound(wanted)
        if found is wanted:
            self._source.fill(runs, chosen, out)
        else:
            self._source.gather(self._source.plan(found), slice(0, len(found)), chosen, out)

    def plan(self, numbers: Array) -> Array:
        """The numbers themselves: looking for sound ones here would read a plan's blocks before its first batch."""
        return numbers

    def gather(
        self, plan: Array, part: slice, chosen: Sequence[int], out: Sequence[Array | None] | None = None
    ) -> list[Array]:
        """As the source does, with sound records."""
        found = self._sound(plan[part])
        return self._source.gather(self._source.plan(found), slice(0, len(found)), chosen, out)

    def prefetch(self, numbers: range, chosen: Sequence[int]) -> None:
        """As the source does."""
        self._source.prefetch(numbers, chosen)

    def load(self, runs: Array, chosen: Sequence[int], way: Way) -> Iterator[Loaded]:
        """As the source does; blocks are checked when they are read."""
        return self._source.load(runs, chosen, way._replace(check=False))

    def resident(self, runs: Array, chosen: Sequence[int]) -> bool:
        """As the source does."""
        return self._source.resident(runs, chosen)

    def evict(self, runs: Array, chosen: Sequence[int]) -> None:
        """As the source does."""
        self._source.evict(runs, chosen)

    def user_meta(self) -> dict[str, Any]:
        """As the source does."""
        return self._source.user_meta()

    def files(self) -> list[FileSource]:
        """As the source does."""
        return self._source.files()

    def close(self) -> None:
        """As the source does."""
        self._source.close()


class _CheckedFile:
    """Which blocks of a file were checked, and what stands in for the damaged ones.

    Without a lock, which a fork could leave locked: two threads that check the same block find the same.
    """

    def __init__(self, source: FileSource) -> None:
        if not source.verifies:
            raise ArgumentError(
                f"{source.path} is read with verify='never', so that damage goes unnoticed; on_corrupt='skip_block' "
                "needs verify='first'"
            )
        self.source = source
        self._n_blocks = source.stored.n_blocks
        self._columns = range(len(source.schema.columns))
        self._checked = np.zeros(self._n_blocks, np.bool_)
        self._damaged = np.zeros(self._n_blocks, np.bool_)
        self._first_error: ChecksumError | None = None
        self.stand_ins: dict[int, int] = {}

    def sound(self, numbers: Array) -> Array | None:
        """The records to read for these; ``None`` if they are the same."""
        blocks = numbers // self.source.block_records
        unchecked = np.unique(blocks[~self._checked[blocks]])
        if len(unchecked):
            for block in cast("list[int]", unchecked.tolist()):
                self._check(block)
        hit = self._damaged[blocks]
        if not bool(hit.any()):
            return None
        result = numbers.copy()
        for block in cast("list[int]", np.unique(blocks[hit]).tolist()):
            other = self._stand_in(block)
            mine = np.flatnonzero(blocks == block)
            rows = numbers[mine] - block * self.source.block_records
            first, stop = self._bounds(other)
            result[mine] = first + rows % (stop - first)
        return result

    def _bounds(self, block: int) -> tuple[int, int]:
        size = self.source.block_records
        return block * size, min(block * size + size, self.source.n_records)

    def _check(self, block: int) -> None:
        """Whether a block is sound, found out once."""
        if self._checked[block]:
            return
        try:
            self.source.check(*self._bounds(block), self._columns)
        except ChecksumError as error:
            self._first_error = self._first_error or error
            limit = max(1, self._n_blocks * MAX_DAMAGED_PERCENT // 100)
            if int(self._damaged.sum()) + 1 > limit:
                error.add_note(
                    f"on_corrupt='skip_block' bears {limit} damaged of the {self._n_blocks} blocks in this file"
                )
                raise
            warnings.warn(f"{error}; other records stand in for those of the block", RuntimeWarning, stacklevel=2)
            self._damaged[block] = True
        self._checked[block] = True

    def _stand_in(self, block: int) -> int:
        """The next sound block, from the beginning again behind the last."""
        if block not in self.stand_ins:
            for step in range(1, self._n_blocks):
                other = (block + step) % self._n_blocks
                self._check(other)
                if not self._damaged[other]:
                    self.stand_ins[block] = other
                    break
            else:
                assert self._first_error is not None
                raise self._first_error
        return self.stand_ins[block]
