"""Work that costs less when it is done for many batches at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..order import Order
from ..source import Source

#: Enough for NumPy's fixed costs to vanish, little enough that the first batch does not wait.
PLAN_POSITIONS = 1 << 16


class Ahead:
    """Where the records of the next batches lie, and which of those batches are contiguous all the same.

    Args:
        source: What the records come from.
        order: Which record comes at which position.
        start: First position, the beginning of a batch.
        n_records: End of the sequence.
        batch_size: Records a batch.

    Immutable once made, so threads can share it.
    """

    #: ``contiguous`` holds offsets from ``start``.
    __slots__ = ("contiguous", "numbers", "plan", "start", "stop")

    def __init__(self, source: Source, order: Order, start: int, n_records: int, batch_size: int) -> None:
        n_batches = max(1, PLAN_POSITIONS // batch_size)
        self.start = start
        self.stop = min(start + n_batches * batch_size, n_records)
        self.numbers: Any = np.asarray(order.span(self.start, self.stop))
        self.contiguous = _contiguous(self.numbers, batch_size)
        self.plan = source.plan(self.numbers)


def _contiguous(numbers: Any, batch_size: int) -> set[int]:
    """Offsets of batches whose records follow each other: those stay views, as they are without a plan."""
    starts = np.arange(0, len(numbers), batch_size)
    stops = np.minimum(starts + batch_size, len(numbers))
    likely = numbers[stops - 1] - numbers[starts] == stops - starts - 1
    return {
        start
        for start, stop in zip(starts[likely].tolist(), stops[likely].tolist(), strict=True)
        if bool((np.diff(numbers[start:stop]) == 1).all())
    }
