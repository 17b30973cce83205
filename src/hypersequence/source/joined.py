"""Several files of one schema, read as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, cast

import numpy as np

from ..errors import ArgumentError
from ..schema import Array
from .buffers import lease
from .reader import FileSource, Numbers, Source


class JoinedSource:
    """The records of several sources, one after the other. Thread-safe, fork-safe and picklable as its parts are."""

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
        self._parts: list[Source] = list(parts)
        self._starts = [0, *accumulate(part.n_records for part in parts)]
        self.n_records = self._starts.pop()

    def read(self, numbers: Numbers, chosen: Sequence[int]) -> list[Array]:
        """Arrays of the chosen columns for these records; views where they lie together in one file."""
        if isinstance(numbers, range):
            part = max(0, bisect_right(self._starts, numbers.start) - 1)
            start = self._starts[part]
            if numbers.stop - start <= self._parts[part].n_records:
                return self._parts[part].read(range(numbers.start - start, numbers.stop - start), chosen)
            numbers = np.arange(numbers.start, numbers.stop)
        found = self.gather(numbers.reshape(-1), slice(0, numbers.size), chosen)
        return found if numbers.ndim == 1 else [a.reshape(*numbers.shape, *a.shape[1:]) for a in found]

    def plan(self, numbers: Array) -> Array:
        """The numbers themselves: which file they belong to is found batch by batch."""
        return numbers

    def gather(
        self, plan: Array, part: slice, chosen: Sequence[int], out: Sequence[Array | None] | None = None
    ) -> list[Array]:
        """The chosen columns of a part of a plan's records, in ``out`` or owned memory."""
        flat_numbers = plan[part]
        owners = np.searchsorted(self._starts, flat_numbers, side="right") - 1
        fields = [self.schema.columns[number].field for number in chosen]
        arrays = [
            lease((len(flat_numbers), *field.shape), field.dtype) if target is None else target
            for field, target in zip(fields, out or [None] * len(fields), strict=True)
        ]
        for owner in cast("list[int]", np.unique(owners).tolist()):
            where = np.flatnonzero(owners == owner)
            found = self._parts[owner].read(flat_numbers[where] - self._starts[owner], chosen)
            for array, values in zip(arrays, found, strict=True):
                array[where] = values
        return arrays

    def fill(self, numbers: range, chosen: Sequence[int], out: Sequence[Array]) -> None:
        """Copy consecutive records into these arrays."""
        for part, start, stop in self._overlaps(numbers.start, numbers.stop):
            first = self._starts[part] + start - numbers.start
            targets = [target[first : first + stop - start] for target in out]
            self._parts[part].fill(range(start, stop), chosen, targets)

    def prefetch(self, numbers: range, chosen: Sequence[int]) -> None:
        """Ask the system to read these records ahead; returns at once."""
        for part, start, stop in self._overlaps(numbers.start, numbers.stop):
            self._parts[part].prefetch(range(start, stop), chosen)

    def load(self, runs: Array, chosen: Sequence[int]) -> Iterator[int]:
        """Bring runs of records into memory, checked, file by file."""
        for part, own in self._by_part(runs):
            yield from self._parts[part].load(own, chosen)

    def evict(self, runs: Array, chosen: Sequence[int]) -> None:
        """Drop runs of records from the page cache."""
        for part, own in self._by_part(runs):
            self._parts[part].evict(own, chosen)

    def _overlaps(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The parts that hold consecutive records, with the range of their own numbers."""
        part = max(0, bisect_right(self._starts, start) - 1)
        while part < len(self._parts) and self._starts[part] < stop:
            first = max(start, self._starts[part]) - self._starts[part]
            last = min(stop - self._starts[part], self._parts[part].n_records)
            if first < last:
                yield part, first, last
            part += 1

    def _by_part(self, runs: Array) -> Iterator[tuple[int, Array]]:
        """The parts that hold these runs, with the runs of their own numbers."""
        found: dict[int, list[tuple[int, int]]] = {}
        for start, stop in runs.tolist():
            for part, first, last in self._overlaps(start, stop):
                found.setdefault(part, []).append((first, last))
        for part, own in found.items():
            yield part, np.array(own, np.int64)

    def user_meta(self) -> dict[str, Any]:
        """The user metadata of the first file."""
        return self._parts[0].user_meta()

    def files(self) -> list[FileSource]:
        """The files behind this source, in order."""
        return [file for part in self._parts for file in part.files()]

    def close(self) -> None:
        """Close every file."""
        for part in self._parts:
            part.close()
