"""Aligned memory for batches, leased and taken back.

A batch gathered into fresh memory pays for every page's first touch, and one at an odd address copies at half the
speed. So buffers are pages of their own and are used again: an array handed out here returns its memory to the pool
when the last reference to it, or to any view of it, has gone.
"""

from __future__ import annotations

import math
import mmap
import sys
from typing import Any

import numpy as np

from ..schema import Array

#: Below this, the allocator's own reuse is quicker than a lease.
MIN_LEASE_NBYTES = 4 << 10
#: What the pool keeps for later, all sizes together.
MAX_IDLE_NBYTES = 256 << 20
_HUGE_NBYTES = 4 << 20
_BYTE = np.dtype(np.uint8)


class _Shelf(list[mmap.mmap]):
    """Idle buffers of one size, and how many of them are worth keeping."""

    __slots__ = ("limit",)

    def __init__(self, size: int) -> None:
        super().__init__()
        # One is kept however large it is: a loop that holds one batch at a time needs just that.
        self.limit = max(1, MAX_IDLE_NBYTES // size)


_shelves: dict[int, _Shelf] = {}


class _Lease(np.ndarray[Any, Any]):
    """Keeps a piece of memory off its shelf for as long as some array's ``base`` is this one.

    NumPy shortens a chain of bases only over plain arrays, and this one's own base is a mapping, so the chain of every
    view ends here. ``__del__`` may run in any thread and in the middle of any allocation: it takes no lock, and list
    operations are atomic.
    """

    __slots__ = ()

    def __del__(self) -> None:
        shelf = _shelves.get(self.nbytes)
        memory: Any = self.base
        # Three references are ours: the base, this name, the argument. With more, somebody went for the memory itself.
        if shelf is not None and len(shelf) < shelf.limit and sys.getrefcount(memory) <= 3:
            shelf.append(memory)


def _shelf(size: int) -> _Shelf:
    """The shelf of a size that was not used before; the others are cleared if they hold too much together."""
    if size + sum(other * len(idle) for other, idle in list(_shelves.items())) > MAX_IDLE_NBYTES:
        _shelves.clear()
    return _shelves.setdefault(size, _Shelf(size))


def _fresh(size: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return mmap.mmap(-1, size)
    # Private, or a forked child would write into its parent's batches.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE_NBYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def lease(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A writable, C-contiguous array of undefined content that nobody else holds.

    From 4 KiB on it starts on a page and comes from the pool, to which it returns by itself. Thread-safe.
    """
    return lease_of(math.prod(shape) * dtype.itemsize, shape, dtype)


def lease_of(nbytes: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The same, for somebody who knows how many bytes that are."""
    if nbytes < MIN_LEASE_NBYTES:
        return np.ndarray(shape, dtype)  # not np.empty, which widens zero-width strings
    size = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    shelf = _shelves.get(size)
    if shelf is None:
        shelf = _shelf(size)
    try:
        memory = shelf.pop()
    except IndexError:
        memory = _fresh(size)
    return np.ndarray(shape, dtype, _Lease((size,), _BYTE, memory))
