"""Where batches are made: leased memory for each, or a ring that is used over and over."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from ..errors import ArgumentError
from ..schema import Array
from ..sequence.delivery import Allocate
from ..source.buffers import lease

_ALIGNMENT = 64


class Ring:
    """Memory for as many jobs as are alive at once, each used again when its job is long over.

    Args:
        n_slots: How many jobs are alive at once.
        nbytes: What a job needs.
        allocate: Gives so many bytes as an array, once for each slot.
    """

    def __init__(self, n_slots: int, nbytes: int, allocate: Callable[[int], Array]) -> None:
        self._n_slots, self._nbytes, self._allocate = n_slots, nbytes, allocate
        self._slots: list[Array] = []
        self._next = 0

    def take(self) -> Allocate:
        """What gives the next job its memory."""
        number = self._next % self._n_slots
        if number == len(self._slots):
            self._slots.append(_checked(self._allocate(self._nbytes), self._nbytes))
        self._next += 1
        return _Slot(self._slots[number])


def lease_bytes(nbytes: int) -> Array:
    """Memory of ours for a ring."""
    return lease((nbytes,), np.dtype(np.uint8))


def _checked(memory: Any, nbytes: int) -> Array:
    array = cast("Array", memory)
    if (
        not isinstance(memory, np.ndarray)
        or array.dtype != np.uint8
        or array.ndim != 1
        or array.nbytes < nbytes
        or not (array.flags.c_contiguous and array.flags.writeable)
    ):
        raise ArgumentError(
            f"buffers: the function was asked for {nbytes} bytes and must give a writable, contiguous, one-dimensional "
            f"uint8 array of at least as many, not {type(cast('object', memory)).__name__}"
        )
    return array


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
