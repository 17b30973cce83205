"""Several files of one schema, read as one."""

# Files that are read together are read from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..errors import ArgumentError, PositionError
from ..schema import Array
from .across import AcrossChecks, AcrossColumn, AcrossPlan
from .buffers import lease
from .readahead import Loaded, Way
from .reader import FileSource, Numbers, Source

#: How finely the table goes that finds the file of a record, and how large it gets at most.
_STRETCHES_A_FILE = 64
_MAX_STRETCHES = 1 << 16


class JoinedSource:
    """The records of several sources, one after the other: their files in a row.

    Thread-safe, fork-safe and picklable as they are.
    """

    def __init__(self, parts: Sequence[Source]) -> None:
        self.schema = parts[0].schema
        for part in parts[1:]:
            if part.schema != self.schema:
                first, other = parts[0].files()[0].path, part.files()[0].path
                raise ArgumentError(
                    f"{other} has another schema than {first}: {part.schema} instead of {self.schema}; open files of "
                    "one schema together"
                )
        self.batch_size = parts[0].batch_size
        self.block_records = parts[0].block_records
        self._files = [file for part in parts for file in part.files()]
        self._starts = [0, *accumulate(file.n_records for file in self._files)]
        self.n_records = self._starts.pop()
        if self.n_records >= 1 << 63:
            raise ArgumentError(f"{self.n_records} records together are more than can be numbered")
        self._first_records = np.array(self._starts, np.int64)
        self._block_records = np.array([file.block_records for file in self._files], np.int64)
        self._strides = np.array([file.stored.stride for file in self._files], np.int64)
        self._owner_table, self._shift = self._tabulate()
        self._handles = [file._handle for file in self._files]
        self._unchecked = self._files  # files that may have checksums that were never checked
        self._columns: dict[int, AcrossColumn] = {}
        self._checks: dict[int, AcrossChecks] = {}

    def __reduce__(self) -> Any:
        return JoinedSource, (self._files,)  # without addresses

    def read(self, numbers: Numbers, chosen: Sequence[int]) -> list[Array]:
        """Arrays of the chosen columns for these records; views where they lie together in one file."""
        if not isinstance(numbers, range):
            found = self.gather(self.plan(numbers.reshape(-1)), slice(0, numbers.size), chosen)
            return found if numbers.ndim == 1 else [a.reshape(*numbers.shape, *a.shape[1:]) for a in found]
        owner = max(0, bisect_right(self._starts, numbers.start) - 1)
        file, start = self._files[owner], self._starts[owner]
        if numbers.stop - start <= file.n_records:
            return file.read(range(numbers.start - start, numbers.stop - start), chosen)
        fields = [self.schema.columns[number].field for number in chosen]
        out = [lease((len(numbers), *field.shape), field.dtype) for field in fields]
        self.fill([numbers], chosen, out)
        return out

    def runs(self, starts: Array, n_rows: int, chosen: Sequence[int]) -> Iterator[Sequence[Array]]:
        """What ``read`` gives for so many records from each of these on, one after the other."""
        return (self.read(range(start, start + n_rows), chosen) for start in starts.tolist())

    def plan(self, numbers: Array) -> AcrossPlan:
        """Work out where these records lie, for several calls of ``gather``.

        Raises:
            PositionError: There is no such record. Addresses are made of these numbers, so this is the place to look.
        """
        if len(numbers) and not (int(numbers.min()) >= 0 and int(numbers.max()) < self.n_records):
            raise PositionError(f"records {numbers.min()} to {numbers.max()} of files with {self.n_records} together")
        owners = self._owners(numbers)
        return AcrossPlan(numbers - self._first_records[owners], owners, self._block_records, self._strides)

    def _tabulate(self) -> tuple[Array, int]:
        """For every stretch of ``1 << shift`` records the file that they are in; -1 where they are in several."""
        n_stretches = min(_MAX_STRETCHES, _STRETCHES_A_FILE * len(self._files))
        shift = max(0, (max(1, self.n_records) - 1).bit_length() - n_stretches.bit_length() + 1)
        begins = np.arange(((self.n_records - 1) >> shift) + 1) << shift
        first, last = (
            np.searchsorted(self._first_records, n, "right") - 1 for n in (begins, begins + (1 << shift) - 1)
        )
        return np.where(first == last, first, -1), shift

    def _owners(self, numbers: Array) -> Array:
        """The files of records. Looked up in a table, which takes a tenth of a binary search for each."""
        owners: Array = self._owner_table[numbers >> self._shift]
        unsure = np.flatnonzero(owners < 0)
        owners[unsure] = np.searchsorted(self._first_records, numbers[unsure], "right") - 1
        return owners

    def gather(
        self, plan: AcrossPlan, part: slice, chosen: Sequence[int], out: Sequence[Array | None] | None = None
    ) -> list[Array]:
        """The chosen columns of a part of a plan's records, in ``out`` or owned memory."""
        owners = np.bincount(plan.owners[part]).nonzero()[0].tolist()
        if len(owners) == 1:
            file, numbers = self._files[owners[0]], plan.numbers[part]
            return file.gather(file.plan(numbers), slice(0, len(numbers)), chosen, out)
        held: dict[int, memoryview | None] = {}
        for owner in owners:
            handle = self._handles[owner]
            held[owner] = handle.mapping  # taken before the question whether the file is still open
            handle.ensure_whole()
        if self._unchecked:
            self._unchecked = [file for file in self._unchecked if file._checker.unchecked]
            for number in chosen:
                checks = self._checks.get(number) or self._checks.setdefault(number, AcrossChecks(number, self._files))
                checks.check(plan, part)
        # Whoever puts a column there first: all threads must see the same addresses.
        columns = [
            self._columns.get(number) or self._columns.setdefault(number, AcrossColumn(number, self._files))
            for number in chosen
        ]
        targets = out or [None] * len(columns)
        return [column.gather(plan, part, held, target) for column, target in zip(columns, targets, strict=True)]

    def fill(self, runs: Sequence[range], chosen: Sequence[int], out: Sequence[Array]) -> None:
        """Copy runs of consecutive records, one behind the other, into these arrays."""
        done = 0
        for run in runs:
            for owner, start, stop in self._overlaps(run.start, run.stop):
                targets = [target[done : done + stop - start] for target in out]
                self._files[owner].fill([range(start, stop)], chosen, targets)
                done += stop - start

    def prefetch(self, numbers: range, chosen: Sequence[int]) -> None:
        """Ask the system to read these records ahead; returns at once."""
        for owner, start, stop in self._overlaps(numbers.start, numbers.stop):
            self._files[owner].prefetch(range(start, stop), chosen)

    def load(self, runs: Array, chosen: Sequence[int], way: Way) -> Iterator[Loaded]:
        """Bring runs of records into memory, file by file."""
        for owner, own in self._by_file(runs):
            for nbytes, stop in self._files[owner].load(own, chosen, way):
                yield Loaded(nbytes, self._starts[owner] + stop)

    def resident(self, runs: Array, chosen: Sequence[int]) -> bool:
        """Whether runs of records are in memory already, as far as samples tell."""
        return all(self._files[owner].resident(own, chosen) for owner, own in self._by_file(runs))

    def evict(self, runs: Array, chosen: Sequence[int]) -> None:
        """Drop runs of records from the page cache."""
        for owner, own in self._by_file(runs):
            self._files[owner].evict(own, chosen)

    def _overlaps(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The files that hold consecutive records, with the range of their own numbers."""
        owner = max(0, bisect_right(self._starts, start) - 1)
        while owner < len(self._files) and self._starts[owner] < stop:
            first = max(start, self._starts[owner]) - self._starts[owner]
            last = min(stop - self._starts[owner], self._files[owner].n_records)
            if first < last:
                yield owner, first, last
            owner += 1

    def _by_file(self, runs: Array) -> Iterator[tuple[int, Array]]:
        """The files that hold these runs, with the runs of their own numbers."""
        found: dict[int, list[tuple[int, int]]] = {}
        for start, stop in runs.tolist():
            for owner, first, last in self._overlaps(start, stop):
                found.setdefault(owner, []).append((first, last))
        for owner, own in found.items():
            yield owner, np.array(own, np.int64)

    def user_meta(self) -> dict[str, Any]:
        """The user metadata of the first file."""
        return self._files[0].user_meta()

    def files(self) -> list[FileSource]:
        """The files behind this source, in order."""
        return list(self._files)

    def close(self) -> None:
        """Close every file."""
        for file in self._files:
            file.close()
