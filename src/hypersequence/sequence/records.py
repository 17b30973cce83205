"""The records behind a sequence's batches."""

# A sequence and its records are one thing in two files.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import PositionError
from ..order import compose
from . import core
from .picking import chosen_order


class Records(Sequence[Any]):
    """The records of a sequence, one by one: what a map-style data set needs.

    ``records[i]`` is one record, structured as a batch is, without the batch axis; ``records[a:b]`` and
    ``records[[3, 1, 2]]`` are many, as one batch. Thread-safe.

    >>> image, label = example.records[7]
    >>> image.shape, int(label)
    ((4, 4), 7)
    """

    def __init__(self, sequence: core.HyperSequence) -> None:
        self._sequence = sequence

    def __len__(self) -> int:
        return self._sequence._n_records

    def __getitem__(self, index: Any) -> Any:
        sequence = self._sequence
        if isinstance(index, slice | Sequence | np.ndarray):
            order = chosen_order(index, sequence._n_records)
            numbers = compose(order, sequence._order).span(0, order.n)
            return sequence._delivery.build(sequence._source.read(numbers, sequence._chosen))
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise PositionError(f"record {position} of a sequence of {len(self)} records")
        numbers = sequence._order.span(position % len(self), position % len(self) + 1)
        return sequence._delivery.build([array[0] for array in sequence._source.read(numbers, sequence._chosen)])

    def __repr__(self) -> str:
        return f"<{len(self)} records of {self._sequence!r}>"
