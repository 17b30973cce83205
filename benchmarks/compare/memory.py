"""Buffers that stand for a device's staging memory: aligned to pages, touched, and used over and over."""

from __future__ import annotations

import math
import mmap

import numpy as np

from .workloads import Pair, Workload


def pages(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Memory at the beginning of a page, in huge pages where the system has them, all of it touched."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    size = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if nbytes >= 4 << 20 and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)
    array[...] = 0
    return array


class Buffers:
    """Pairs of buffers for batches, in turn: one is being sent while the next is filled."""

    def __init__(self, workload: Workload, number: int = 2) -> None:
        (x_shape, x_dtype), (y_shape, y_dtype) = workload.x, workload.y
        size = workload.batch
        self._pairs = [(pages((size, *x_shape), x_dtype), pages((size, *y_shape), y_dtype)) for _ in range(number)]
        self._next = 0

    def next(self) -> Pair:
        """The pair that was filled the longest ago."""
        self._next = (self._next + 1) % len(self._pairs)
        return self._pairs[self._next]
