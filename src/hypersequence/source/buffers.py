"""Aligned memory for batches, leased and taken back.

A batch gathered into fresh memory pays for every page's first touch, and one at an odd address copies at half the
speed. So buffers are pages of their own and are used again: an array handed out here returns its memory to the pool
when the last reference to it, or to any view of it, has gone.
"""

from __future__ import annotations

import math
import mmap
import sys
import weakref
from collections import deque
from typing import Any, TypeAlias

import numpy as np

from ..schema import Array

#: Below this, the allocator's own reuse is quicker than a lease.
MIN_LEASE_NBYTES = 4 << 10
#: What the pool keeps for later, all sizes together.
MAX_IDLE_NBYTES = 256 << 20
_HUGE_NBYTES = 4 << 20
_BYTE = np.dtype(np.uint8)


class _Ticket(weakref.ref["_Lease"]):
    """Tells a shelf of a lease's end, and holds the memory that comes back."""

    __slots__ = ("memory",)
    memory: mmap.mmap


#: Idle buffers of one size, by their tickets: no more than are worth keeping.
_Shelf: TypeAlias = "deque[_Ticket]"
_shelves: dict[int, _Shelf] = {}


class _Pages(np.ndarray[Any, Any]):
    """The base of a lease, which keeps the lease's ticket."""

    __slots__ = ("ticket",)
    ticket: _Ticket


class _Lease(np.ndarray[Any, Any]):
    """Keeps a piece of memory off its shelf for as long as some array's ``base`` is this one.

    NumPy shortens a chain of bases only over arrays of one type, so the chain of every view ends here.

    What happens at its end is the interpreter's alone: of a ticket, which is a weak reference, the function is called
    that puts it on the shelf. A ``__del__`` would do the same in a line or two; but a Ctrl-C that arrives in those is
    ignored, as is any exception there, and of programs that waste no time between batches one in seventy went on.
    """

    __slots__ = ()


def _shelf(size: int) -> _Shelf:
    """The shelf of a size that was not used before; the others are cleared if they hold too much together."""
    # One is kept however large it is: a loop that holds one batch at a time needs just that.
    if size + sum(other * len(idle) for other, idle in list(_shelves.items())) > MAX_IDLE_NBYTES:
        _shelves.clear()
    return _shelves.setdefault(size, deque(maxlen=max(1, MAX_IDLE_NBYTES // size)))


def anonymous(nbytes: int, extra_flags: int = 0) -> mmap.mmap:
    """Zeros, that take memory when they are touched; private, or a forked child would write into its parent's."""
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return mmap.mmap(-1, nbytes)
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | extra_flags)


def _fresh(size: int) -> mmap.mmap:
    options = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}  # Windows
    try:
        memory = mmap.mmap(-1, size, **options)
    except (OSError, ValueError, OverflowError) as error:
        raise MemoryError(
            f"the system gives no memory for {size:,} bytes of a batch: {error}; make batches smaller"
        ) from error
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
        memory: Any = shelf.pop().memory
        # Two references are ours, this name and the argument. With more, somebody went for the memory itself.
        if sys.getrefcount(memory) > 2:
            memory = _fresh(size)
    except IndexError:
        memory = _fresh(size)
    pages = _Pages((size,), _BYTE, memory)
    leased = _Lease((size,), _BYTE, pages)
    pages.ticket = ticket = _Ticket(leased, shelf.append)
    ticket.memory = memory
    return np.ndarray(shape, dtype, leased)
