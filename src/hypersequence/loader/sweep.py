"""Records from all over the data, picked out in one pass over it: a shuffle of all records where memory is short."""

# The loader reads sequences from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..errors import HyperSequenceError
from ..schema import Array
from ..sequence.delivery import Delivery
from ..source.readahead import Loaded
from .legs import Leg
from .memory import allowed_nbytes, available_nbytes

#: A record by itself costs the disk as much as so many bytes in a row: a jump, and what shares its checksum, which is
#: 256 KiB the first time.
_JUMP_NBYTES = 128 << 10
#: A sweep takes such a part of the memory that is free. There are two, one in use while the other is filled.
_MEMORY_SHARE = 1 / 4
#: The number of a record, its place in the sweep, and what sorting them takes.
_PLACE_NBYTES = 32


class Sweep:
    """The records of consecutive positions, picked out of runs that hold them and many others while those are read.

    Args:
        delivery: What makes the batches.
        start: First position, of all ranks together.
        stop: Position after the last.
        take: Gives the memory for them.

    One thread fills it; when it is full, any may copy.
    """

    def __init__(self, delivery: Delivery, start: int, stop: int, take: Callable[[], list[Array]]) -> None:
        self.start, self.stop = start, stop
        self._delivery, self._take = delivery, take
        self.arrays: list[Array] = []
        #: Places whose records could not be read, rising; ``None`` until everything was tried.
        self._missing: Array | None = None

    def steps(self, loading: Iterator[Loaded], drop: Callable[[Array], None] | None) -> Iterator[int]:
        """Pick records out of what is loaded, step by step; ``drop`` is given runs that went by.

        Yields:
            The bytes of each step.
        """
        numbers = np.asarray(self._delivery.whole.span(self.start, self.stop))
        places = np.argsort(numbers)
        numbers = numbers[places]
        self.arrays = self._take()
        missing: list[Array] = []
        done, passed = 0, -1
        for nbytes, stop in loading:
            upto = int(np.searchsorted(numbers, stop))
            if upto > done:
                try:
                    self._pick(numbers[done:upto], places[done:upto])
                except (HyperSequenceError, OSError):  # the batch that needs one of them meets it again
                    missing.append(places[done:upto])
                done = upto
            if drop is not None and 0 <= passed < stop:
                drop(np.array([[passed, stop]]))
            passed = stop
            yield nbytes
        self._missing = np.sort(np.concatenate([*missing, places[done:]]))

    def _pick(self, numbers: Array, places: Array) -> None:
        source, chosen = self._delivery.source, self._delivery.chosen
        found = source.gather(source.plan(numbers), slice(0, len(numbers)), chosen)
        for array, records in zip(self.arrays, found, strict=True):
            if records.nbytes:
                _as_voids(array)[places] = _as_voids(records)

    def copy(self, start: int, stop: int, targets: Sequence[Array]) -> bool:
        """Copy the records of these positions into arrays; ``False`` if some are not here."""
        first, last, missing = start - self.start, stop - self.start, self._missing
        if missing is None or first < 0 or stop > self.stop:
            return False
        if np.searchsorted(missing, first) < np.searchsorted(missing, last):
            return False
        for array, target in zip(self.arrays, targets, strict=True):
            target[...] = array[first:last]
        return True


class Sweeps:
    """Which positions are worth a sweep, and memory for those, two at a time."""

    def __init__(self) -> None:
        self._spare: list[list[Array]] = []
        self._nbytes: int | None = None

    def n_records(self, leg: Leg) -> int:
        """How many records a sweep holds: whole batches."""
        if self._nbytes is None:
            available = available_nbytes()
            self._nbytes = int((allowed_nbytes() // 2 if available is None else available) * _MEMORY_SHARE)
        return self._nbytes // (leg.record_nbytes + _PLACE_NBYTES) // leg.step * leg.step

    def of(self, leg: Leg, start: int, end: int, n_read: int) -> Sweep | None:
        """A sweep from a position on, if that costs the disk less than to jump for each record.

        Args:
            leg: The epoch.
            start: The position.
            end: Up to where records lie in what would be read.
            n_read: How many records those are.
        """
        n_records = self.n_records(leg)
        stop = min(end, start + n_records)
        if stop <= start or n_read * leg.record_nbytes > (stop - start) * _JUMP_NBYTES:
            return None
        return Sweep(leg.delivery, start, stop, lambda: self._take(leg.delivery, n_records))

    def _take(self, delivery: Delivery, n_records: int) -> list[Array]:
        # Not leased: the pool would keep it when a pass ends, and the next one find less memory.
        return self._spare.pop() if self._spare else delivery.new_arrays(n_records, np.empty)

    def give_back(self, sweep: Sweep) -> None:
        """Have the next sweep use the memory of one that nobody needs any more."""
        if sweep.arrays:
            self._spare.append(sweep.arrays)


def _as_voids(array: Array) -> Array:
    """One item a record, which NumPy moves as one."""
    return np.ndarray((len(array),), np.dtype((np.void, array.nbytes // len(array))), array)
