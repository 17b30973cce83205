"""Work that costs less when it is done for many batches at once."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np

from ..order import Order
from ..source import Source

#: Enough for NumPy's fixed costs to vanish, little enough that the first batch does not wait.
PLAN_POSITIONS = 1 << 15


class Ahead:
    """Where the records of the next batches lie, and which of those batches are contiguous all the same.

    Args:
        source: What the records come from.
        order: Which record comes at which position.
        start: First position, the beginning of a batch.
        n_records: End of the sequence.
        batch_size: Records a batch.

    Threads can share it.
    """

    #: ``contiguous`` holds offsets from ``start``; ``numbers`` are a range where everything is contiguous.
    __slots__ = ("_plan", "_source", "contiguous", "numbers", "start", "stop")

    def __init__(self, source: Source, order: Order, start: int, n_records: int, batch_size: int) -> None:
        n_batches = max(1, PLAN_POSITIONS // batch_size)
        self.start = start
        self.stop = min(start + n_batches * batch_size, n_records)
        self.numbers: Any = order.span(self.start, self.stop)
        self.contiguous: Container[int] = (
            range(0, len(self.numbers), batch_size)
            if isinstance(self.numbers, range)
            else _contiguous(self.numbers, batch_size)
        )
        self._source, self._plan = source, None

    @property
    def plan(self) -> Any:
        """For ``gather``; made when it is first asked for, since contiguous batches need none."""
        plan = self._plan
        if plan is None:  # in two threads at once perhaps, which is no harm
            plan = self._plan = self._source.plan(np.asarray(self.numbers))
        return plan


def _contiguous(numbers: Any, batch_size: int) -> set[int]:
    """Offsets of batches whose records follow each other: those stay views, as they are without a plan."""
    if len(numbers) < 2:
        return set(range(len(numbers)))
    follows = np.empty(len(numbers), np.bool_)
    np.equal(numbers[1:], numbers[:-1] + 1, out=follows[1:])
    starts = np.arange(0, len(numbers), batch_size)
    follows[starts] = True
    return set(starts[np.logical_and.reduceat(follows, starts)].tolist())
