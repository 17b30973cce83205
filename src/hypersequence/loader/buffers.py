"""Where batches are made: leased memory for each, or a ring that is used over and over."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..schema import Array
from ..sequence.delivery import Allocate
from ..source.buffers import lease

_ALIGNMENT = 64


class Ring:
    """Memory for as many jobs as are alive at once, each used again when its job is long over.

    Args:
        n_slots: How many jobs are alive at once.
        nbytes: What a job needs.
        allocate: Gives the memory, once for each slot.
    """

    def __init__(self, n_slots: int, nbytes: int, allocate: Allocate) -> None:
        self._n_slots, self._nbytes, self._allocate = n_slots, nbytes, allocate
        self._slots: list[Array] = []
        self._next = 0

    def take(self) -> Allocate:
        """What gives the next job its memory."""
        number = self._next % self._n_slots
        if number == len(self._slots):
            self._slots.append(self._allocate((self._nbytes,), np.dtype(np.uint8)))
        self._next += 1
        return _Slot(self._slots[number])


class _Slot:
    """One job's memory, given out from its beginning."""

    def __init__(self, memory: Array) -> None:
        self._memory = memory
        self._used = 0

    def __call__(self, shape: tuple[int, ...], dtype: Any) -> Array:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        start = self._used
        if start + nbytes > self._memory.nbytes:  # a job that failed and makes its batches once more
            return lease(shape, np.dtype(dtype))
        self._used = start + -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        return np.ndarray(shape, dtype, self._memory, start)
