"""From the columns of Arrow's tables to arrays of one shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np

from .. import strictjson
from ..elements import dtype_from_name
from ..errors import SourceError
from ..schema import Array, Field
from ..source.buffers import lease
from .arrowtypes import Place, element, inside, layers, lengths_of, padded_text, plain
from .base import require

#: The key of our metadata, of a table and of a field; a field's says the type that it had here.
KEY = b"hypersequence"
#: What else can be done about a column that cannot be converted, for messages.
ADVICE = "or choose other fields with inputs= and outputs="
#: Columns are looked through in so many rows at a time, or fewer if they are large, to find the longest text.
SCAN_ROWS = 1 << 14
_NAT = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Rows:
    """Some rows of a table that follow each other.

    Args:
        where: What messages call the table.
        first: The number of the first one there.
        batches: Arrow's record batches of them.
        release: Called when arrays have been made of them, which are copies then: for rows in a mapped file, whose
            pages would be read by the wrong thread, and stay in memory. ``None`` if arrays may be views.
    """

    where: str
    first: int
    batches: list[Any]
    release: Callable[[], object] | None = None


#: What the rows of one job should take in the source, where their number is free: images are much larger when decoded,
#: or much smaller if they are resized.
ROWS_NBYTES = 16 << 20
#: Gives rows; run in any thread.
RowsJob: TypeAlias = Callable[[], Rows]


class Column(ABC):
    """What makes an array of a column.

    Args:
        name: The column's name.
    """

    #: What records have of it; known from :meth:`settle` on.
    field: Field

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def settle(self, scan: Callable[[int], Iterator[Rows]]) -> None:
        """Find out type and shape, as far as the column's type does not tell.

        Args:
            scan: Gives all rows from the first on, about so many at a time.
        """

    @abstractmethod
    def values(self, array: Any, place: Place) -> Array:
        """The records of one Arrow array; a view where it can be one."""

    def read(self, rows: Rows) -> Array:
        """The records of some rows."""
        parts: list[Array] = []
        first = rows.first
        for batch in rows.batches:
            parts.append(self.values(batch.column(self.name), partial(self.place, rows.where, first)))
            first += len(batch)
        if len(parts) == 1 and rows.release is None:
            return parts[0]
        out = lease((sum(map(len, parts)), *self.field.shape), self.field.dtype)
        return np.concatenate(parts, out=out) if out.nbytes else out

    def place(self, where: str, first: int, number: int) -> str:
        """Where a record is, for messages."""
        return f"{where}, row {first + number:,}, column {self.name!r}"

    def first(self, scan: Callable[[int], Iterator[Rows]]) -> tuple[Any, Place] | None:
        """An array of the first value alone, if there is one."""
        for rows in scan(1):
            for batch in rows.batches:
                if len(batch):
                    return batch.column(self.name).slice(0, 1), partial(self.place, rows.where, rows.first)
        return None


class ValueColumn(Column):
    """A column of numbers, text or times, or of lists of them that all have one shape."""

    def __init__(self, field: Any, where: str) -> None:
        super().__init__(field.name)
        self._where = where
        self._tensor = field.type if isinstance(field.type, require("pyarrow").FixedShapeTensorType) else None
        try:
            self._sizes, leaf = layers(field.type)
            self._dtype = element(leaf)
        except ValueError as error:
            raise SourceError(f"{where}: the column {self.name!r} is {field.type}: {error}; {ADVICE}") from None
        declared = _declared_shape(field)
        if self._tensor is None and len(declared) == len(self._sizes):
            self._sizes = declared
        ours = type_here(field)
        self._has_nat = ours is not None and ours.kind in "mM"  # written here, where NaT becomes null
        if ours is not None and ours.kind == self._dtype.kind and ours.kind in "SU":
            self._dtype = ours

    def settle(self, scan: Callable[[int], Iterator[Rows]]) -> None:
        """Look at the first list, and for the longest text."""
        if None in self._sizes:
            self._sizes = self._measured(scan)
        if self._dtype.kind in "SU":  # may have become wider than it was here, if somebody changed it
            longest = np.dtype(f"<{self._dtype.kind}{self._longest(scan)}")
            self._dtype = max(longest, self._dtype, key=lambda dtype: dtype.itemsize)
        self._stored = tuple(self._tensor.shape) if self._tensor is not None else tuple(cast("list[int]", self._sizes))
        self._order = tuple(self._tensor.permutation or range(len(self._stored))) if self._tensor is not None else None
        shape = self._stored if self._order is None else tuple(self._stored[axis] for axis in self._order)
        self.field = Field(self._dtype, shape)

    def _measured(self, scan: Callable[[int], Iterator[Rows]]) -> list[int | None]:
        """How long lists are, in the first row, which all others have to be like."""
        found = self.first(scan)
        if found is None:
            raise SourceError(
                f"{self._where}: has no rows, so that nothing tells how long the lists of the column {self.name!r} "
                f"are; give it a type with a fixed length, {ADVICE}"
            )
        array, place = found
        sizes: list[int | None] = []
        for size in self._sizes:
            array = plain(array)
            _refuse_nulls(array, 1, place)
            length = size if size is not None else lengths_of(array)[0] if len(array) else 0
            sizes.append(length)
            array = inside(array)
        return sizes

    def _longest(self, scan: Callable[[int], Iterator[Rows]]) -> int:
        """Characters, or bytes, of the longest text in the whole column."""
        pc, longest = require("pyarrow.compute"), 0
        measure = pc.utf8_length if self._dtype.kind == "U" else pc.binary_length
        for rows in scan(SCAN_ROWS):
            for batch in rows.batches:
                array = plain(batch.column(self.name))
                for _ in self._sizes:
                    array = plain(inside(array))
                longest = max(longest, pc.max(measure(array)).as_py() or 0)
        return longest

    def values(self, array: Any, place: Place) -> Array:
        """The records of an array; raises if a list has another length, or something is missing."""
        n, per_row = len(array), 1
        for size in cast("list[int]", self._sizes):
            array = plain(array)
            _refuse_nulls(array, per_row, place)
            wrong = np.flatnonzero(lengths_of(array) != size)
            if wrong.size:
                found = lengths_of(array)[wrong[0]]
                raise SourceError(
                    f"{place(wrong[0] // per_row)}: a list has {found:,} values, where {size:,} are expected; "
                    f"all records need one shape: pad or cut the lists, {ADVICE}"
                )
            array = inside(array)
            per_row *= size
        leaves = self._leaves(plain(array), lambda number: place(number // per_row))
        shaped = leaves.reshape(n, *self._stored)
        return shaped if self._order is None else shaped.transpose(0, *(axis + 1 for axis in self._order))

    def _leaves(self, array: Any, place: Place) -> Array:
        """All values in a row."""
        pa = require("pyarrow")
        kind = self._dtype.kind
        if not (self._has_nat and kind in "mM"):
            _refuse_nulls(array, 1, place)
        if kind in "SU":
            return padded_text(array, self._dtype, place)
        if kind in "mM":
            numbers = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64()).cast(pa.int64())
            numbers = numbers.fill_null(_NAT) if numbers.null_count else numbers
            return numbers.to_numpy().view(self._dtype)
        return array.to_numpy(zero_copy_only=kind != "b")


def type_here(field: Any) -> np.dtype[Any] | None:
    """The type that a column had before it was exported, if its metadata says so."""
    told: dict[bytes, bytes] = field.metadata or {}
    return dtype_from_name(told.get(KEY, b"").decode("ascii", "replace"))


def _declared_shape(field: Any) -> list[int | None]:
    """What ``datasets`` says of a column of arrays, whether or not it is there to say so; ``[]`` if nothing."""
    shape: Any = getattr(field.type, "shape", None)
    told: dict[bytes, bytes] = field.metadata or {}
    if told.get(b"ARROW:extension:name", b"").startswith(b"datasets."):
        both: Any = json_of(told, b"ARROW:extension:metadata")  # shape and type
        shape = cast("list[Any]", both)[0] if isinstance(both, list) and both else None
    dims = cast("Sequence[Any]", shape) if isinstance(shape, list | tuple) else ()
    return [size if isinstance(size, int) else None for size in dims]


def _refuse_nulls(array: Any, per_row: int, place: Place) -> None:
    if array.null_count:
        number = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise SourceError(
            f"{place(number // max(1, per_row))}: a value is missing (null); fill it, or leave its row out, before "
            f"converting; {ADVICE}"
        )


def json_of(metadata: Mapping[bytes, bytes], key: bytes) -> Any:
    """What stands under a key, if it is JSON."""
    try:
        return strictjson.decode(metadata[key])
    except (KeyError, ValueError):
        return None
