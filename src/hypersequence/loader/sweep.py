"""Records from all over the data, picked out in one pass over it: a shuffle of all records where memory is short."""

# The loader reads sequences from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from ..errors import HyperSequenceError
from ..schema import Array
from ..sequence.delivery import Delivery
from ..source.readahead import Loaded
from .legs import Leg
from .memory import allowed_nbytes, available_nbytes

#: A record by itself costs the disk as much as so many bytes in a row: a jump, and what shares its checksum, which is
#: 256 KiB the first time.
JUMP_NBYTES = 128 << 10
#: A sweep takes such a part of the memory that is free. There are two, one in use while the other is filled.
_MEMORY_SHARE = 1 / 4
#: What may be filled of the memory that is free, with batches in flight and what the system needs beside that; and what
#: two sweeps and the part of the data that stays leave of it.
_ROOM_SHARE, _ROOM_BESIDE = 7 / 8, 1 / 8
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
        self._scratch: list[Array] = []
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
                missing += self._pick(numbers[done:upto], places[done:upto])
                done = upto
            if drop is not None and 0 <= passed < stop:
                drop(np.array([[passed, stop]]))
            passed = stop
            yield nbytes
        self._scratch = []
        self._missing = np.sort(np.concatenate([*missing, places[done:]]))

    def _pick(self, numbers: Array, places: Array) -> list[Array]:
        """Put records into their places; gives the places of those that cannot be read."""
        delivery = self._delivery
        if not self._scratch or len(self._scratch[0]) < len(numbers):
            # Not leased, as each time there are a few more or less of them, and the pool keeps memory by its size.
            self._scratch = delivery.new_arrays(len(numbers) * 5 // 4, np.empty)
        out = [array[: len(numbers)] for array in self._scratch]
        try:
            delivery.source.gather(delivery.source.plan(numbers), slice(0, len(numbers)), delivery.chosen, out)
        except (HyperSequenceError, OSError):
            if len(numbers) == 1:  # the batch that needs it meets it again
                return [places]
            middle = len(numbers) // 2
            return self._pick(numbers[:middle], places[:middle]) + self._pick(numbers[middle:], places[middle:])
        for array, records in zip(self.arrays, out, strict=True):
            if records.nbytes:
                _as_voids(array)[places] = _as_voids(records)
        return []

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

    def empty(self) -> list[Array]:
        """Give the memory away."""
        self._missing, arrays = None, self.arrays
        self.arrays = []
        return arrays


class Sweeps:
    """Which positions are worth a sweep, and memory for those, two at a time."""

    def __init__(self) -> None:
        self._spare: list[list[Array]] = []
        self._free: int | None = None
        #: What is still to be taken of the memory that was free.
        self.coming_nbytes = 0

    @property
    def room_nbytes(self) -> int:
        """What may be in memory together beside everything else."""
        return int(self._free_nbytes * (_ROOM_BESIDE if id(self) in _alive else _ROOM_SHARE))

    @property
    def _nbytes(self) -> int:
        return int(self._free_nbytes * _MEMORY_SHARE)

    @property
    def _free_nbytes(self) -> int:
        """What was free when this was first asked, but for what others are about to take."""
        if self._free is None:
            available = available_nbytes()
            free = allowed_nbytes() // 2 if available is None else available
            others = (reference() for reference in _alive.valuerefs())
            self._free = max(0, free - sum(other.coming_nbytes for other in others if other is not None))
        return self._free

    def stop(self, leg: Leg, start: int) -> int:
        """Up to where a sweep from a position on may reach, which is the end of a batch."""
        stop = start + self._nbytes // (leg.record_nbytes + _PLACE_NBYTES)
        return leg.total if stop >= leg.total else stop - (stop - leg.origin) % leg.step

    def of(self, leg: Leg, start: int, stop: int, n_read: int) -> Sweep | None:
        """A sweep of some positions, if that costs the disk less than to jump for each record.

        Args:
            leg: The epoch.
            start: The first position.
            stop: The position after the last.
            n_read: How many records are read.
        """
        if n_read * leg.record_nbytes > (stop - start) * JUMP_NBYTES:
            return None
        if id(self) not in _alive:
            self.coming_nbytes = 2 * self._nbytes
            _alive[id(self)] = self
        n_most = self._nbytes // (leg.record_nbytes + _PLACE_NBYTES)
        return Sweep(leg.delivery, start, stop, partial(self._take, leg.delivery, n_most))

    def _take(self, delivery: Delivery, n_records: int) -> list[Array]:
        if self._spare:
            return self._spare.pop()
        self.coming_nbytes = max(0, self.coming_nbytes - self._nbytes)
        # Not leased: the pool would keep it when a pass ends, and the next one find less memory.
        return delivery.new_arrays(n_records, np.empty)

    def give_back(self, sweep: Sweep) -> None:
        """Have the next sweep use the memory of one that nobody needs any more."""
        if sweep.arrays:
            self._spare.append(sweep.empty())


#: Of this process, so that passes that begin together do not count on the same memory.
_alive: weakref.WeakValueDictionary[int, Sweeps] = weakref.WeakValueDictionary()


def _as_voids(array: Array) -> Array:
    """One item a record, which NumPy moves as one."""
    return np.ndarray((len(array),), np.dtype((np.void, array.nbytes // len(array))), array)
