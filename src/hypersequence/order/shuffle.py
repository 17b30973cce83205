"""Shuffles: all numbers, whole batches, or records within windows of permuted blocks. SPEC.md specifies each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .base import Order, Positions, Span, Stretch, as_span, distinct, merged, run_of
from .permute import PURPOSE_ALL, PURPOSE_BLOCKS, PURPOSE_WINDOW, Permutation

#: Places of blocks that are worked out together, for windows of few blocks.
_COMMON_BLOCKS = 1 << 12
#: More blocks a window would cost memory, and many small reads; files of hypersequence 0.10 have blocks of a batch. So
#: neighbours are taken together.
MAX_WINDOW_BLOCKS = 4096


@dataclass(frozen=True, slots=True)
class Shuffled:
    """All of ``n`` numbers in random order, another one each epoch.

    With ``last_stays``, the last number keeps its place: the short batch of a shuffle of whole batches.
    """

    n: int
    seed: int
    epoch: int = 0
    last_stays: bool = False

    def at(self, positions: Positions) -> Positions:
        """The permutation of this seed and epoch."""
        n_moving = self.n - self.last_stays
        permutation = _permutation(n_moving, self.seed, self.epoch)
        if not self.last_stays:
            return permutation.at(positions)
        moving = positions < n_moving
        return np.where(moving, permutation.at(np.where(moving, positions, 0)), positions) if n_moving else positions

    def span(self, start: int, stop: int) -> Span:
        """Seldom a range, unless it is of one."""
        if stop - start == 1:
            moves = start < self.n - self.last_stays
            one = _permutation(self.n - self.last_stays, self.seed, self.epoch).one(start) if moves else start
            return range(one, one + 1)
        if stop > self.n - self.last_stays:
            return as_span(self.at(np.arange(start, stop)))
        return as_span(_permutation(self.n - self.last_stays, self.seed, self.epoch).span(start, stop))

    def at_epoch(self, epoch: int) -> Order:
        """Another permutation."""
        return Shuffled(self.n, self.seed, epoch, self.last_stays)

    def stretch(self, start: int, stop: int) -> Stretch:
        """Everything: any number may come anywhere."""
        return Stretch(self.n, run_of(0, self.n))


@dataclass(frozen=True, slots=True)
class Windowed:
    """Blocks in random order, taken a window at a time; within each window all numbers in random order.

    Args of the constructor:
        n: How many numbers.
        block: Numbers a block; the last block may be short, and comes wherever the permutation puts it.
        window: Blocks a window, at most as many as there are; the last window may have fewer.
        seed: 0 to 2**64-1.
        epoch: 0 to 2**64-1.

    Any position is found directly: the windows before the one with the short block are full, those after it begin
    earlier by what that block lacks, and which window it is in is told by the inverse of the permutation of blocks.
    """

    n: int
    block: int
    window: int
    seed: int
    epoch: int = 0

    def __post_init__(self) -> None:
        # One order has one name, and sizes of windows stay within 64 bits.
        object.__setattr__(self, "window", min(self.window, max(1, -(-self.n // self.block))))

    @classmethod
    def of_nbytes(
        cls, n: int, block_records: int, record_nbytes: int, window_nbytes: int, seed: int, epoch: int = 0
    ) -> Windowed:
        """A shuffle whose windows hold about so many bytes, at least one block."""
        n_blocks = max(1, -(-n // block_records))
        whole = min(max(1, window_nbytes // max(1, block_records * record_nbytes)), n_blocks)
        together = -(-whole // MAX_WINDOW_BLOCKS)
        return cls(n, block_records * together, whole // together, seed, epoch)

    def at(self, positions: Positions) -> Positions:
        """Window by window."""
        windows = self._windows()
        flat = positions.reshape(-1)
        numbers: Positions = np.empty_like(flat)
        owners = windows.owners(flat)
        for owner in distinct(owners):
            window = windows.get(owner)
            mine = np.flatnonzero(owners == owner)
            numbers[mine] = window.numbers(window.records.at(flat[mine] - window.start))
        return numbers.reshape(positions.shape)

    def span(self, start: int, stop: int) -> Span:
        """Seldom a range, unless it is of one."""
        windows = self._windows()
        parts: list[Positions] = []
        while start < stop:
            window = windows.get(windows.owner(start))
            end = min(stop, window.stop)
            parts.append(window.numbers(window.records.span(start - window.start, end - window.start)))
            start = end
        if not parts:
            return range(0)
        return as_span(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def at_epoch(self, epoch: int) -> Order:
        """Other windows, other orders within them."""
        return Windowed(self.n, self.block, self.window, self.seed, epoch)

    def stretch(self, start: int, stop: int) -> Stretch:
        """The rest of a window, and its blocks."""
        windows = self._windows()
        window = windows.get(windows.owner(start))
        firsts = window.blocks * self.block
        return Stretch(window.stop, merged(np.stack((firsts, np.minimum(firsts + self.block, self.n)), axis=1)))

    def _windows(self) -> _Windows:
        return _windows(self.n, self.block, self.window, self.seed, self.epoch)


class _Windows:
    """Where the windows of an epoch begin."""

    __slots__ = ("_block", "_blocks", "_key", "_lacking", "_n", "_short_place", "_short_window", "_size", "_window")

    def __init__(self, n: int, block: int, window: int, seed: int, epoch: int) -> None:
        self._key = (n, block, window, seed, epoch)
        self._n, self._block, self._window = n, block, window
        n_blocks = -(-n // block)
        self._blocks = Permutation(n_blocks, seed, epoch, PURPOSE_BLOCKS)
        self._lacking = n_blocks * block - n
        # The last block, if it is short; else no place, behind everything.
        self._short_place = self._blocks.position_of(n_blocks - 1) if self._lacking else n_blocks
        self._short_window = self._short_place // window
        self._size = window * block

    def owners(self, positions: Positions) -> Positions:
        """The windows that positions are in."""
        late: Positions = np.where(positions >= self._start(self._short_window + 1), self._lacking, 0)
        return (positions + late) // self._size

    def owner(self, position: int) -> int:
        """The window that one position is in."""
        late = position >= self._start(self._short_window + 1)
        return (position + (self._lacking if late else 0)) // self._size

    def _start(self, window: int) -> int:
        return window * self._size - (self._lacking if window > self._short_window else 0)

    def get(self, number: int) -> _Window:
        """One window, remembered for as long as it is likely to be asked for."""
        return _window(number, *self._key)

    def make(self, number: int) -> _Window:
        """One window."""
        n, block, _, seed, epoch = self._key
        start, stop = self._start(number), min(self._start(number + 1), n)
        place = number * self._window
        blocks = self._blocks_at(place, min(place + self._window, self._blocks.n))
        records = Permutation(stop - start, seed, epoch, PURPOSE_WINDOW, number)
        gap = (self._short_place - place + 1) * block - self._lacking if number == self._short_window else stop
        return _Window(start, stop, block, blocks, records, gap, self._lacking)

    def _blocks_at(self, start: int, stop: int) -> Positions:
        """Blocks at consecutive places; small windows share the fixed costs of computing them."""
        common = start // _COMMON_BLOCKS
        if stop > (common + 1) * _COMMON_BLOCKS:
            return self._blocks.span(start, stop)
        n, block, _, seed, epoch = self._key
        first = common * _COMMON_BLOCKS
        return _some_blocks(-(-n // block), seed, epoch, first)[start - first : stop - first]


class _Window:
    """One window: its positions, its blocks and the permutation of its records."""

    __slots__ = ("_base", "_block", "_gap", "_lacking", "blocks", "records", "start", "stop")

    def __init__(
        self, start: int, stop: int, block: int, blocks: Positions, records: Permutation, gap: int, lacking: int
    ) -> None:
        self.start, self.stop, self.blocks, self.records = start, stop, blocks, records
        self._block, self._gap, self._lacking = block, gap, lacking
        #: What to add to a place in the window to get a number, by the place's block.
        self._base = (blocks - np.arange(len(blocks))) * block

    def numbers(self, places: Positions) -> Positions:
        """The numbers at these places of the window before its records are permuted."""
        if self._gap < self.stop - self.start:  # a short block lies in the middle: places behind it are further on
            places = places + np.where(places >= self._gap, self._lacking, 0)
        return places + self._base[places // self._block]


@lru_cache(maxsize=64)
def _permutation(n: int, seed: int, epoch: int) -> Permutation:
    return Permutation(n, seed, epoch, PURPOSE_ALL)


@lru_cache(maxsize=16)
def _some_blocks(n_blocks: int, seed: int, epoch: int, first: int) -> Positions:
    blocks = Permutation(n_blocks, seed, epoch, PURPOSE_BLOCKS)
    return blocks.span(first, min(first + _COMMON_BLOCKS, n_blocks))


@lru_cache(maxsize=64)
def _windows(n: int, block: int, window: int, seed: int, epoch: int) -> _Windows:
    return _Windows(n, block, window, seed, epoch)


@lru_cache(maxsize=16)
def _window(number: int, n: int, block: int, window: int, seed: int, epoch: int) -> _Window:
    return _windows(n, block, window, seed, epoch).make(number)
