"""Bringing stretches of a file into the page cache in pieces of 2 MiB, without copying them: Linux 5.14 and later."""

# Of all ways into the page cache this one is quickest and takes exactly what it is asked for. posix_fadvise(WILLNEED)
# makes small pages, which cost ten times as much of the system's time and reach the disk as small requests; reading in
# a row makes large pages, but copies everything once and reads on behind the end. docs/decisions.md has the figures.

from __future__ import annotations

import ctypes
import errno
import mmap
import sys
from typing import Any

LARGE_PAGE_NBYTES = 2 << 20
_MADV_POPULATE_READ = 22  # the module mmap has no name for it, and would keep other threads from running meanwhile
_FAILED = ctypes.c_void_p(-1).value


class LargePages:
    """A mapping that nobody reads from: touched for reading ahead, it has the system read whole large pages.

    A mapping of its own, since it is told to read 2 MiB around whatever is touched, which is far too much where single
    records are. It has no descriptor, and what is brought leaves it at once, but not the page cache.

    Args:
        fd: The file.
        nbytes: Its length.

    Raises:
        OSError: The system has no such thing, or no room for a mapping.
    """

    def __init__(self, fd: int, nbytes: int) -> None:
        self._address: int | None = None  # first, for __del__
        if _libc is None:
            raise OSError(errno.ENOSYS, "no large pages on this system")
        self._nbytes, self._libc = nbytes, _libc
        address = _libc.mmap(None, nbytes, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        if address == _FAILED:
            raise OSError(ctypes.get_errno(), "cannot be mapped")
        self._address = address
        for advice in (mmap.MADV_HUGEPAGE, mmap.MADV_RANDOM):  # a large page whatever is touched, and nothing beyond
            self._advise(0, nbytes, advice)

    def bring(self, start: int, end: int) -> None:
        """Have the page cache hold everything from one multiple of 2 MiB to another, or to the end of the file.

        Other threads run meanwhile.

        Raises:
            OSError: The disk failed, the file ends before, or the system is too old.
        """
        for at in range(start, end, LARGE_PAGE_NBYTES):
            self._advise(at, min(end - at, LARGE_PAGE_NBYTES), _MADV_POPULATE_READ)
        self._advise(start, end - start, mmap.MADV_DONTNEED)  # or nobody could evict it

    def _advise(self, start: int, nbytes: int, advice: int) -> None:
        assert self._address is not None
        if self._libc.madvise(self._address + start, nbytes, advice):
            number = ctypes.get_errno()
            raise OSError(number, errno.errorcode.get(number, "madvise failed"))

    def __del__(self) -> None:
        address, self._address = self._address, None
        if address is not None:
            self._libc.munmap(address, self._nbytes)


def _load_libc() -> Any:
    """The C library, or ``None`` where large pages cannot be asked for."""
    known = all(hasattr(mmap, name) for name in ("MADV_HUGEPAGE", "MADV_RANDOM", "MADV_DONTNEED"))
    if not (sys.platform == "linux" and sys.maxsize > 1 << 32 and known and mmap.PAGESIZE <= LARGE_PAGE_NBYTES):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
    )
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc


_libc = _load_libc()
