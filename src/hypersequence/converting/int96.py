"""Parquet's old timestamps of twelve bytes, as Spark and Impala wrote them: a day, and nanoseconds within it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import SourceError
from ..schema import Array
from .arrowtypes import inside, layers, plain
from .base import require
from .columns import ADVICE, Rows

#: In which columns have to be read for :meth:`Int96.look`.
UNITS = ("s", "us", "ns")


class Int96:
    """What some columns have of them, and so in which unit they can be read.

    Arrow reads them in any unit, in 64 bits, and takes what does not fit modulo 2**64 without a word. In seconds all
    of them fit, so that each reading can be compared with that one.
    """

    def __init__(self) -> None:
        self._far: str | None = None  # the place of a value too far away for nanoseconds
        self._fine: str | None = None  # the place of one that microseconds would round

    def look(self, name: str, readings: Sequence[Rows]) -> None:
        """Look at some rows of a column, read in each of ``UNITS``.

        Raises:
            SourceError: A value does not fit into 64 bits of microseconds.
        """
        first = readings[0].first
        for batches in zip(*(rows.batches for rows in readings), strict=True):
            arrays = [batch.column(name) for batch in batches]
            seconds, micros, nanos = map(_numbers, arrays)
            beyond = _place(readings[0], first, name, arrays[0], micros // 10**6 != seconds)
            if beyond is not None:
                raise SourceError(f"{beyond}: is no time within 290,000 years, and perhaps damaged; {ADVICE}")
            self._far = self._far or _place(readings[0], first, name, arrays[0], nanos // 10**9 != seconds)
            # Both sides modulo 2**64, so that this is right also where nanoseconds do not fit.
            self._fine = self._fine or _place(readings[0], first, name, arrays[0], nanos - micros * 1000 != 0)
            first += len(arrays[0])

    @property
    def unit(self) -> str:
        """``"ns"`` if nanoseconds have room for all values, else ``"us"``.

        Raises:
            SourceError: Neither keeps all values as they are.
        """
        if self._far is None:
            return "ns"
        if self._fine is not None:
            raise SourceError(
                f"{self._far}: lies outside of the years 1678 to 2261, which nanoseconds reach, and microseconds would "
                f"round others ({self._fine}); convert these columns one by one, or store them in microseconds"
            )
        return "us"


def _numbers(array: Any) -> Array:
    """All values within the lists of an array."""
    for _ in layers(array.type)[0]:
        array = inside(plain(array))
    return plain(array).view(require("pyarrow").int64()).fill_null(0).to_numpy()


def _place(rows: Rows, first: int, name: str, array: Any, odd: Array) -> str | None:
    """Where the first odd value is; ``None`` if there is none.

    Args:
        rows: Where the array comes from.
        first: The row of its first record.
        name: The column.
        array: Some of its records.
        odd: For each value in them whether it is odd.
    """
    found = np.flatnonzero(odd)
    if not found.size:
        return None
    row = bisect_right(range(len(array)), found[0], key=lambda row: len(_numbers(array.slice(0, row + 1))))
    return f"{rows.where}, row {first + row:,}, column {name!r}"
