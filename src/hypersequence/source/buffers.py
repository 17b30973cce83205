"""Aligned memory for batches, leased and taken back.

A batch gathered into fresh memory pays for every page's first touch, and one at an odd address copies at half the
speed. So buffers start at a multiple of 64 bytes and are used again: an array handed out here returns its memory to
the pool when the last reference to it, or to any view of it, has gone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..schema import Array

ALIGNMENT = 64
#: Below this, the allocator's own reuse is quicker than a lease.
MIN_LEASE_NBYTES = 4 << 10
#: What the pool keeps for later, all sizes together.
MAX_IDLE_NBYTES = 256 << 20
_GRAIN = 4 << 10


class _Lease:
    """Keeps a piece of memory out of the pool for as long as an array's ``base`` refers to this object.

    NumPy never shortens a chain of bases past an object that is not an array, so every view ends here. ``__del__``
    may run in any thread and inside any allocation: it takes no lock, list operations are atomic.
    """

    __slots__ = ("__array_interface__", "_memory", "_pool")

    def __init__(self, memory: Array, interface: dict[str, Any], pool: _Pool) -> None:
        self._memory = memory
        self._pool = pool
        self.__array_interface__ = interface

    def __del__(self) -> None:
        self._pool.take_back(self._memory, self.__array_interface__)


class _Pool:
    def __init__(self) -> None:
        self._idle: dict[int, list[tuple[Array, dict[str, Any]]]] = {}

    def lease(self, nbytes: int) -> Array:
        size = -(-nbytes // _GRAIN) * _GRAIN
        try:
            memory, interface = self._idle[size].pop()
        except (KeyError, IndexError):
            memory = aligned_empty(size)
            interface = memory.__array_interface__
        return np.asarray(_Lease(memory, interface, self))

    def take_back(self, memory: Array, interface: dict[str, Any]) -> None:
        size = memory.nbytes
        idle = self._idle.setdefault(size, [])
        if self._idle_nbytes() + size > MAX_IDLE_NBYTES:
            for other in list(self._idle):  # sizes of other batches first, they may never come again
                if other != size:
                    self._idle.pop(other, None)
            if len(idle) * size > MAX_IDLE_NBYTES - size:
                # One buffer is kept however large it is: two batches in turn is what most loops need.
                if not idle:
                    idle.append((memory, interface))
                return
        idle.append((memory, interface))

    def _idle_nbytes(self) -> int:
        return sum(size * len(idle) for size, idle in list(self._idle.items()))


_pool = _Pool()


def aligned_empty(nbytes: int) -> Array:
    """Uninitialised bytes whose address is a multiple of 64.

    Returns:
        A ``uint8`` array of ``nbytes``, owned and writable.
    """
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.__array_interface__["data"][0] % ALIGNMENT
    return raw[start : start + nbytes]


def lease(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An uninitialised, writable, C-contiguous array that nobody else holds.

    From 4 KiB on it starts at a multiple of 64 bytes and comes from the pool, to which it returns by itself.
    Thread-safe.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < MIN_LEASE_NBYTES:
        return np.ndarray(shape, dtype)  # not np.empty, which widens zero-width strings
    return np.ndarray(shape, dtype, buffer=_pool.lease(nbytes))
