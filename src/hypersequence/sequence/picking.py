"""From what a person writes as positions to an order."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError, PositionError
from ..order import Chosen, Order, Sliced


def chosen_order(positions: Any, n: int) -> Order:
    """The order that picks these of ``n`` positions; slices and ranges cost no memory."""
    if isinstance(positions, slice):
        start, stop, step = positions.indices(n)
        return Sliced(len(range(start, stop, step)), start, step)
    if isinstance(positions, range):
        if len(positions) and not (-n <= positions[0] < n and -n <= positions[-1] < n):
            raise PositionError(f"{positions} reaches outside a sequence of {n} records")
        if not len(positions) or min(positions[0], positions[-1]) >= 0:
            return Sliced(len(positions), positions.start, positions.step)
    array = np.asarray(positions)
    if array.dtype == np.bool_:
        if array.shape != (n,):
            raise ArgumentError(f"a mask over {n} records needs shape ({n},), not {array.shape}")
        return Chosen(_frozen(np.flatnonzero(array)))
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ArgumentError(f"positions are whole numbers in one dimension, not {array.dtype} of shape {array.shape}")
    if array.size and (int(array.min()) < -n or int(array.max()) >= n):
        worst = int(array.min()) if int(array.min()) < -n else int(array.max())
        raise PositionError(f"position {worst} lies outside a sequence of {n} records")
    numbers = array.astype(np.int64)  # a copy, which nobody else can change
    return Chosen(_frozen(np.where(numbers < 0, numbers + n, numbers)))


def _frozen(numbers: Any) -> Any:
    numbers = np.asarray(numbers, np.int64)
    numbers.setflags(write=False)
    return numbers
