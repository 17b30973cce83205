"""Reads fields that are arrays: in pieces that are cut along the arrays' chunks, of one source or of several."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, cast

import numpy as np

from .. import strictjson
from ..errors import SourceError
from ..schema import Array, Field
from .arrays import Arrays, StoredArray, Unreadable
from .base import Job, Option, Piece, Reader, from_one
from .description import Description
from .roles import LABELS

#: MiB; twice as much may be held for a moment. A row of the chunks that h5py chooses for 1 GiB, a sixteenth, has room.
_MEMORY = 72


#: How much may be read at one go where chunks are longer than a piece.
MEMORY = Option(
    "memory", from_one, f"MiB that may be read at one go, where chunks are long; {_MEMORY} by default", _MEMORY
)


class ArraysReader(Reader):
    """Fields that are arrays, of one source or of several with the same fields, whose records follow each other.

    Args:
        sources: The name and the arrays of each.
        memory: How many MiB may be read at one go.
        attributes: What else the source knows, by names; what of it JSON can hold becomes metadata.
        description: What an export left, if the source is one; it may be anything by now.
        close: Gives back what is open beside the arrays.
    """

    def __init__(
        self,
        sources: list[tuple[str, Arrays]],
        *,
        memory: int,
        attributes: Mapping[str, Any] | None = None,
        description: Any = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._sources, self._memory, self._close = sources, memory << 20, close
        found: dict[str, Field] = {}
        for _, arrays in sources:
            for name, array in arrays.items():
                found.setdefault(name, array.field)
        if not found:
            raise SourceError(f"{', '.join(name for name, _ in sources)}: no arrays with an axis of records are there")
        self.described = Description.of(description)
        order = {name: number for number, name in enumerate(self.described.fields)}
        self.fields = dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))
        self.labels = self.described.outputs or tuple(
            name for name in found if name.rpartition("/")[2].lower() in LABELS
        )
        kept = self.described.user_meta
        self.meta = _plain(attributes or {} if kept is None else kept)

    def choose(self, wanted: Sequence[str]) -> None:
        """See whether these can be converted, and what was left open of their types."""
        chosen = [[self._array(source, arrays, name) for name in wanted] for source, arrays in self._sources]
        for arrays in chosen:
            _one_count(arrays)
        for array in chain(*chosen):
            array.look_closer()
        for name, same in zip(wanted, zip(*chosen, strict=True), strict=True):
            self.fields[name] = _common_field(same)
        self.n_records = sum(arrays[0].n_records for arrays in chosen)

    def _array(self, source: str, arrays: Arrays, name: str) -> StoredArray:
        if name not in arrays:
            other = next(other for other, members in self._sources if name in members)
            raise SourceError(
                f"{source}: has no {name!r}, which {other} has; convert them one by one, or choose fields that all "
                "have with inputs= and outputs="
            )
        array = arrays[name]
        if isinstance(array, Unreadable):
            raise SourceError(f"{array.error}; or choose other fields with inputs= and outputs=")
        return array

    def jobs(self, start: int, wanted: Sequence[str], n_records: int) -> Iterator[Job]:
        """Jobs for the records of one source after the other."""
        for _, arrays in self._sources:
            chosen = {name: arrays[name] for name in wanted}
            n_here = chosen[wanted[0]].n_records
            if start < n_here:
                yield from _jobs(chosen, start, n_here, n_records, self._memory)
            start = max(0, start - n_here)

    def close(self) -> None:
        """Give back what is open."""
        for _, arrays in self._sources:
            for array in arrays.values():
                array.close()
        self._close()


def _jobs(arrays: Arrays, start: int, n: int, n_records: int, memory: int) -> Iterator[Job]:
    """Jobs for the records of one source.

    What a piece has in whole chunks is read in the job. What has longer chunks, which would be read again for every
    piece, and what is a stream is read here, many pieces at one go.
    """
    step = _step(arrays.values(), n_records)
    beside = {name: array for name, array in arrays.items() if not array.in_turn and step % array.chunk == 0}
    others = {name: array for name, array in arrays.items() if name not in beside}
    rows = _rows(others, step, memory)
    turns = {name: _InTurn(array, start, rows[name]) for name, array in others.items()}
    while start < n:
        stop = min(start - start % step + step, n)
        ready = {name: turn.take(stop - start) for name, turn in turns.items()}
        yield partial(_piece, beside, ready, start, stop)
        start = stop


def _piece(beside: Arrays, ready: Piece, start: int, stop: int) -> Piece:
    piece = {name: array.read(start, stop) for name, array in beside.items()}
    return piece | {name: np.ascontiguousarray(array) for name, array in ready.items()}


def _step(arrays: Iterable[StoredArray], n_records: int) -> int:
    """Records of a piece: near to what is asked for, in whole chunks of as many arrays as can be, large ones first."""
    unit = 1
    for array in sorted(arrays, key=lambda array: -array.field.nbytes):
        both = math.lcm(unit, array.chunk)
        if both <= n_records and not array.in_turn:
            unit = both
    return n_records // unit * unit


def _rows(arrays: Arrays, step: int, memory: int) -> dict[str, int]:
    """How many records of each are read at one go: whole chunks, unless that takes more memory than there is for it."""
    wanted = {name: max(1, step // array.chunk) * array.chunk for name, array in arrays.items()}
    rows: dict[str, int] = {}
    for name in sorted(arrays, key=lambda name: wanted[name] * arrays[name].field.nbytes):  # the small ones first
        nbytes = max(1, arrays[name].field.nbytes)
        rows[name] = max(1, min(wanted[name], memory // (len(arrays) - len(rows)) // nbytes))
        memory -= rows[name] * nbytes
    return rows


class _InTurn:
    """Hands out the records of an array from one on, and reads them so many at one go."""

    def __init__(self, array: StoredArray, start: int, rows: int) -> None:
        self._array, self._next, self._rows = array, start, rows
        self._held: Array | None = None

    def take(self, count: int) -> Array:
        """The next ones; a view, if they were read together."""
        parts: list[Array] = []
        while count:
            held = self._read() if self._held is None else self._held
            parts.append(held[:count])
            self._held = held[count:] if len(held) > count else None
            count -= len(parts[-1])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read(self) -> Array:
        start, array = self._next, self._array
        stop = min(start + self._rows, array.n_records)
        past = stop % array.chunk  # records of a chunk that would be read again
        if stop < array.n_records and stop - past > start:
            stop -= past
        self._next = stop
        return array.read(start, stop)


def _one_count(arrays: Sequence[StoredArray]) -> None:
    if len({array.n_records for array in arrays}) > 1:
        listed = ", ".join(f"{array.where}: {array.n_records:,}" for array in arrays)
        raise SourceError(
            f"the fields have different numbers of records: {listed}; choose those that belong together with inputs= "
            "and outputs="
        )


def _common_field(arrays: Sequence[StoredArray]) -> Field:
    """The field that has room for the values of all sources."""
    first = arrays[0]
    widest = max((array.field for array in arrays), key=lambda field: field.dtype.itemsize)
    for array in arrays:
        alike = array.field == first.field
        if not alike and array.field.dtype.kind == first.field.dtype.kind and widest.dtype.kind in "SU":
            alike = array.field.shape == first.field.shape  # narrower text fits
        if not alike:
            raise SourceError(
                f"{array.where}: is {array.field}, but {first.where} is {first.field}; sources of one conversion need "
                "the same types and shapes"
            )
    return widest


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """What of some values JSON can hold."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        with suppress(ValueError, TypeError, RecursionError):
            plain = cast("Any", value.tolist() if isinstance(value, np.ndarray | np.generic) else value)
            plain = cast("Any", plain.decode() if isinstance(plain, bytes) else plain)
            found[name] = strictjson.decode(strictjson.encode(plain))
    return found
