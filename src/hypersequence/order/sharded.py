"""One rank's part of an order: every global batch is dealt out to all ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .base import Positions, Span, Stretch, run_of

Uneven = Literal["pad", "drop", "short"]


@dataclass(frozen=True, slots=True)
class Sharded:
    """Positions of a global order that one rank reads.

    Args of the constructor:
        total: Positions of the global order.
        batch: Records a batch of each rank; a global batch is ``world * batch`` records.
        rank: 0 to ``world - 1``.
        world: Number of ranks.
        uneven: What becomes of a last global batch that is not full: ``"pad"`` fills it with positions from the
            beginning, ``"drop"`` leaves it out, ``"short"`` deals out what there is.
        origin: Position at which the global batches begin.

    Batch ``k`` of rank ``r`` is the ``r``-th part of global batch ``k``: contiguous where the order is.
    """

    total: int
    batch: int
    rank: int
    world: int
    uneven: Uneven
    origin: int = 0

    @property
    def n_full(self) -> int:
        """Full global batches."""
        return (self.total - self.origin) // (self.batch * self.world)

    @property
    def n_tail(self) -> int:
        """Records of the last global batch, if it is not full."""
        return (self.total - self.origin) % (self.batch * self.world)

    @property
    def n(self) -> int:
        """Positions of this rank."""
        tail = 0
        if self.n_tail and self.uneven == "pad":
            tail = self.batch
        elif self.uneven == "short":
            tail = self._tail_start(self.rank + 1) - self._tail_start(self.rank)
        return self.n_full * self.batch + tail

    def _tail_start(self, rank: int) -> int:
        return rank * self.n_tail // self.world

    def _global(self, positions: Any) -> Any:
        """Positions of the global order, past its end where they are padding."""
        step, place = divmod(positions, self.batch)
        found = self.origin + (step * self.world + self.rank) * self.batch + place
        if self.uneven == "short" and self.n_tail:
            # In the last global batch, shares are smaller, so that this rank's begins earlier.
            early = self.rank * self.batch - self._tail_start(self.rank)
            return found - (step == self.n_full) * early
        return found

    def at(self, positions: Positions) -> Positions:
        """Positions of the global order."""
        found = self._global(positions)
        return found % self.total if self.uneven == "pad" and self.total else found

    def n_before(self, position: int) -> int:
        """How many of this rank's positions lie before one of the global order; padding lies behind all of it."""
        if position >= self.total:
            return self.n
        step, place = divmod(position - self.origin, self.batch * self.world)
        start, stop = self.rank * self.batch, (self.rank + 1) * self.batch
        if step == self.n_full and self.uneven == "short":
            start, stop = self._tail_start(self.rank), self._tail_start(self.rank + 1)
        return min(step * self.batch + min(max(start, place), stop) - start, self.n)

    def span(self, start: int, stop: int) -> Span:
        """A range within one batch, or where there is but one rank."""
        if stop > start and (self.world == 1 or start // self.batch == (stop - 1) // self.batch):
            first = self._global(start)
            if first + stop - start <= self.total:
                return range(first, first + stop - start)
        return self.at(np.arange(start, stop))

    def counts(self, start: int, stop: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of these positions count: padding does not, since another rank or batch has the record already."""
        return self._global(np.arange(start, stop)) < self.total

    def at_epoch(self, epoch: int) -> Sharded:
        """The same positions."""
        return self

    def stretch(self, start: int, stop: int) -> Stretch:
        """Everything between the first and the last, other ranks' parts too."""
        first, last = self._global(start), self._global(stop - 1)
        if last >= self.total:
            return Stretch(stop, run_of(0, self.total))
        return Stretch(stop, run_of(first, last + 1))
