"""Samples of an order: which records it has, and which come in some of its batches. Integers only, nothing is read."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from ..order import Composed, Concatenated, Fixed, Mixed, Order, Permutation, Shuffled, Windowed
from ..order.base import Positions
from ..order.permute import SORT_LIMIT
from ..source import Source

#: Records of a sample; so many positions of an order take milliseconds.
SAMPLE = 1 << 16
#: At most so many batches are looked at; at least a few of very large ones.
MOST_BATCHES, LEAST_BATCHES = 200, 16
#: What may be spent on the windows and periods that positions here and there lie in, in records that are sorted: a
#: window has a fixed cost, and is sorted if it is small. So much takes a third of a second.
_BUDGET, _A_WINDOW = 1 << 24, 1 << 12
#: If that is not enough, so many batches are looked at, and at last so many records of each, whatever it takes.
_FEW_BATCHES, _FEW_RECORDS = 4, 128
#: Pieces in which a batch is looked at of which not all records are, and how many records a piece has at least.
_PIECES, _PIECE = 64, 16
#: Any number, but none that people use for their own shuffles.
_SEED = 0x73616D706C65


class Disk:
    """Where records lie: their places on disk and their blocks, over all files of a source."""

    def __init__(self, source: Source) -> None:
        starts: list[int] = []
        self._shifts: list[int] = []
        self._blocks: list[tuple[int, int]] = []
        known: dict[str, tuple[int, int]] = {}
        n_records = n_places = n_blocks = 0
        for file in source.files():
            if file.path not in known:
                known[file.path] = n_places, n_blocks
                n_places += file.n_records
                n_blocks += -(-file.n_records // file.block_records)
            place, block = known[file.path]  # a file that comes twice is one on disk
            starts.append(n_records)
            self._shifts.append(place - n_records)
            self._blocks.append((file.block_records, block))
            n_records += file.n_records
        self._starts = np.array(starts, np.int64)
        self.n_places, self.n_blocks = n_places, n_blocks

    def places(self, numbers: Positions) -> Positions:
        """Record numbers counted over the files on disk, each once."""
        if len(self._starts) < 2:
            return numbers
        return numbers + np.array(self._shifts)[self._owners(numbers)]

    def blocks(self, numbers: Positions) -> Positions:
        """Numbers of blocks, counted over the files on disk."""
        if len(self._starts) < 2:
            return numbers // self._blocks[0][0]
        owners = self._owners(numbers)
        sizes, firsts = np.array(self._blocks).T
        return (numbers - self._starts[owners]) // sizes[owners] + firsts[owners]

    def _owners(self, numbers: Positions) -> Positions:
        return np.searchsorted(self._starts, numbers, side="right") - 1


def some(n: int, count: int) -> Positions:
    """``count`` different numbers below ``n`` at random, the same ones every time; all, if there are not so many."""
    return Permutation(n, _SEED, 0).at(np.arange(min(n, count)))


def members(order: Order, count: int = SAMPLE) -> Positions:
    """A random sample of the numbers that an order has, all of them if there are no more than ``count``.

    Shuffles change nothing about that, so they are left out where they stand last. Of a mix, every part has its share.
    Where records were chosen out of a shuffle of more windows than can be worked out, they come from anywhere.
    """
    if isinstance(order, Fixed):
        return members(order.order, count)
    if isinstance(order, Shuffled | Windowed):
        return some(order.n, count)
    if isinstance(order, Composed):
        if isinstance(order.outer, Shuffled | Windowed):
            return members(order.inner, count)
        found = scattered(order.inner, members(order.outer, count))
        return members(order.inner, count) if found is None else found
    if isinstance(order, Concatenated | Mixed):
        found = [
            np.resize(members(part.order, size), size) + part.first
            for part, size in zip(order.parts, _sizes(order, count), strict=True)
            if size
        ]
        return np.concatenate(found) if found else np.empty(0, np.int64)
    return order.at(some(order.n, count))


def _sizes(order: Concatenated | Mixed, count: int) -> list[int]:
    """How many of a random sample are of each part."""
    count = min(count, order.n)
    if isinstance(order, Mixed):
        ends = np.cumsum(order.weights) * count // sum(order.weights)
        return cast("list[int]", np.diff(ends, prepend=0).tolist())
    ends = np.cumsum([part.order.n for part in order.parts])
    owners = np.searchsorted(ends, some(order.n, count), side="right")
    return cast("list[int]", np.bincount(owners, minlength=len(order.parts)).tolist())


class Budget:
    """What may still be spent on positions that lie here and there."""

    def __init__(self, unlimited: bool = False) -> None:
        self._left = 1 << 62 if unlimited else _BUDGET

    def allows(self, order: Order, positions: Positions) -> bool:
        """Pay for the windows and periods of these positions, if there is enough left."""
        if isinstance(order, Windowed):
            self._pay(positions, order.window * order.block, order.window)
        elif isinstance(order, Concatenated):
            self._pay(positions, window_records(order), 0)
        elif isinstance(order, Mixed):
            period = sum(order.weights)
            self._left -= _n_distinct(positions // period) * period * (4 + 2 * len(order.parts))
            for part, weight in zip(order.parts, order.weights, strict=True):
                self._pay(positions * (weight / period), window_records(part.order), 0)
        return self._left >= 0

    def _pay(self, positions: Any, size: int | None, n_blocks: int) -> None:
        if size is not None:
            each = _A_WINDOW + (size if size <= SORT_LIMIT else 0) + 2 * n_blocks
            self._left -= _n_distinct(positions // size) * each


def _n_distinct(numbers: Any) -> int:
    return len(np.unique(numbers))


def scattered(order: Order, positions: Positions, budget: Budget | None = None) -> Positions | None:
    """The numbers at positions here and there; ``None`` if too much would have to be worked out for them."""
    budget = budget or Budget()
    if isinstance(order, Fixed):
        return scattered(order.order, positions, budget)
    if isinstance(order, Composed):
        between = scattered(order.outer, positions, budget)
        return None if between is None else scattered(order.inner, between, budget)
    return order.at(positions) if budget.allows(order, positions) else None


def window_records(order: Order) -> int | None:
    """Records of a window of a shuffle, the smallest if there are several, ``None`` if there is none."""
    if isinstance(order, Windowed):
        return order.window * order.block
    if isinstance(order, Fixed):
        return window_records(order.order)
    inside: list[Order] = []
    if isinstance(order, Composed):
        inside = [order.outer, order.inner]
    elif isinstance(order, Concatenated | Mixed):
        inside = [part.order for part in order.parts]
    return min((size for one in inside if (size := window_records(one)) is not None), default=None)


class Batches:
    """Records of some full batches of an order: at most 200, and 65,536 records or 16 batches.

    Args:
        order: The order.
        batch_size: Records a batch; if the order has fewer, they are the only batch.

    Attributes:
        positions: Positions in the order, one row a batch, the batches in rising order. Of a batch of more than 65,536
            records, so many are looked at, in 64 pieces.
        numbers: Record numbers at these positions.
        followed: Which batches have a record after them.
        after: That record's number, and nothing of meaning where there is none.
    """

    positions: Positions
    numbers: Positions
    followed: Any
    after: Positions

    def __init__(self, order: Order, batch_size: int) -> None:
        size = min(batch_size, order.n)
        looked_at = min(size, SAMPLE)
        usual = min(MOST_BATCHES, max(LEAST_BATCHES, SAMPLE // max(1, looked_at)))
        for most in (usual, LEAST_BATCHES, _FEW_BATCHES):
            if self._look(order, size, most, looked_at, Budget()):
                return
        self._look(order, size, _FEW_BATCHES, min(looked_at, _FEW_RECORDS), Budget(unlimited=True))

    def _look(self, order: Order, size: int, most: int, records: int, budget: Budget) -> bool:
        """Look at so many records of so many batches, unless it takes too long."""
        starts = _spread(order.n // size if size else 0, most) * size
        within = np.arange(records)
        if records < size:
            n_pieces = min(_PIECES, records // _PIECE)
            piece = records // n_pieces
            firsts = np.arange(n_pieces) * (size - piece) // (n_pieces - 1)
            within = (firsts[:, None] + np.arange(piece)).reshape(-1)
        positions = starts[:, None] + within
        found = np.empty((len(starts), len(within) + 1), np.int64)
        for row, start in enumerate(cast("list[int]", starts.tolist())):
            numbers = scattered(order, np.append(positions[row], min(start + size, order.n - 1)), budget)
            if numbers is None:
                return False
            found[row] = numbers
        self.positions, self.numbers, self.after = positions, found[:, :-1], found[:, -1]
        self.followed = starts + size < order.n
        return True


def _spread(n: int, most: int) -> Positions:
    """Numbers below ``n``, rising: all, or one at a random place of each of so many equal parts."""
    count = min(n, most)
    ends = np.array([part * n // count for part in range(count + 1)], np.int64) if count else np.zeros(1, np.int64)
    return ends[:-1] + (np.diff(ends) * (some(1 << 20, count) / (1 << 20))).astype(np.int64)
