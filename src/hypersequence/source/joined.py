"""Several files of one schema, read as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
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

    def gather(self, plan: Array, part: slice, chosen: Sequence[int]) -> list[Array]:
        """Owned arrays of the chosen columns for a part of a plan's records."""
        flat_numbers = plan[part]
        owners = np.searchsorted(self._starts, flat_numbers, side="right") - 1
        fields = [self.schema.columns[number].field for number in chosen]
        arrays = [lease((len(flat_numbers), *field.shape), field.dtype) for field in fields]
        for owner in cast("list[int]", np.unique(owners).tolist()):
            where = np.flatnonzero(owners == owner)
            found = self._parts[owner].read(flat_numbers[where] - self._starts[owner], chosen)
            for array, values in zip(arrays, found, strict=True):
                array[where] = values
        return arrays

    def prefetch(self, numbers: range, chosen: Sequence[int]) -> None:
        """Ask the system to read these records ahead; returns at once."""
        for start, part in zip(self._starts, self._parts, strict=True):
            first, stop = max(numbers.start, start), min(numbers.stop, start + part.n_records)
            if first < stop:
                part.prefetch(range(first - start, stop - start), chosen)

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
