"""Bringing stretches of a file into the page cache without copying them, in pieces of 2 MiB: Linux 5.18 and later."""

# Of all ways into the page cache large pages are quickest wherever the system does not read far ahead by itself, and
# take exactly what they are asked for. posix_fadvise(WILLNEED)
# makes small pages, which cost ten times as much of the system's time and reach the disk as small requests; reading in
# a row makes large pages, but copies everything once and reads on behind the end. docs/decisions.md has the figures.

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

LARGE_PAGE_NBYTES = 2 << 20
#: A mapping is to be made anew when it has brought so many: later systems tire of one in which nothing is found there.
MOST_PAGES = 64
_MADV_POPULATE_READ = 22  # the module mmap has no name for it, and would keep other threads from running meanwhile
_FAILED = ctypes.c_void_p(-1).value
#: A large page is one wait for the disk, or two. With more, it comes in small ones.
_MOST_WAITS = 16
_PMD_NBYTES = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")


class LargePages:
    """A mapping that nobody reads from: touched for reading ahead, it has the system read whole large pages.

    A mapping of its own, since it is told to read 2 MiB around whatever is touched, which is far too much where single
    records are. It keeps no descriptor, and what is brought leaves it at once, but not the page cache.

    Args:
        fd: The file.
        nbytes: Its length.

    Raises:
        OSError: The system has no such thing, or no room for a mapping.
    """

    def __init__(self, fd: int, nbytes: int) -> None:
        self._address: int | None = None  # first, for __del__
        libc = _system.libc
        if libc is None:
            raise OSError(errno.ENOSYS, "no large pages on this system")
        self.n_pages, self._nbytes, self._libc = 0, nbytes, libc
        own = -1
        with suppress(OSError):  # what the system notes of read-ahead, it notes of whoever opened the file
            own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            address = libc.mmap(None, nbytes, mmap.PROT_READ, mmap.MAP_SHARED, fd if own < 0 else own, 0)
            number = ctypes.get_errno()
        finally:
            if own >= 0:
                os.close(own)
        if address == _FAILED:
            raise OSError(number, "cannot be mapped")
        self._address = address
        for advice in (mmap.MADV_HUGEPAGE, mmap.MADV_RANDOM):  # a large page whatever is touched, and nothing beyond
            self._advise(0, nbytes, advice)

    def bring(self, start: int, end: int) -> None:
        """Have the page cache hold everything from one multiple of 2 MiB to another, or to the end of the file.

        Other threads run meanwhile.

        Raises:
            OSError: The disk failed, the file ends before, or the system reads small pages.
        """
        try:
            for at in range(start, end, LARGE_PAGE_NBYTES):
                before = _n_waits()
                self._advise(at, min(end - at, LARGE_PAGE_NBYTES), _MADV_POPULATE_READ)
                self.n_pages += 1
                if _n_waits() - before > _MOST_WAITS:
                    _system.libc = None  # nor will it for other files: it takes the advice without following it
                    raise OSError(errno.ENOSYS, "large pages come in small ones")
        finally:
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


def touch(address: int, start: int, end: int) -> None:
    """Have the page cache hold bytes of a mapping, which lies at this address: as if one were read after the other.

    Other threads run meanwhile.

    Raises:
        OSError: The disk failed, the file ends before, or the system does not do that.
    """
    libc = _system.libc  # another thread may find out that there are none
    if libc is None:
        raise OSError(errno.ENOSYS, "nothing to touch pages with on this system")
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    if libc.madvise(address + first, end - first, _MADV_POPULATE_READ):
        number = ctypes.get_errno()
        raise OSError(number, errno.errorcode.get(number, "madvise failed"))


def are_there() -> bool:
    """Whether the system has large pages, as far as is known."""
    return _system.libc is not None


def _n_waits() -> int:
    """How often this thread has waited for a page to come from the disk."""
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_THREAD).ru_majflt


class _System:
    """The C library, or ``None`` where large pages cannot be asked for, or turned out to be none."""

    def __init__(self) -> None:
        self.libc: Any = None
        known = all(hasattr(mmap, name) for name in ("MADV_HUGEPAGE", "MADV_RANDOM", "MADV_DONTNEED"))
        if sys.platform != "linux" or sys.maxsize < 1 << 32 or not known or not _has_their_size():
            return
        number, size, pointer = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
        self.libc = libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype, libc.mmap.argtypes = pointer, (pointer, size, number, number, number, ctypes.c_int64)
        libc.madvise.argtypes = (pointer, size, number)
        libc.munmap.argtypes = (pointer, size)


def _has_their_size() -> bool:
    """Whether large pages are of 2 MiB: where small ones are of 64 KiB, they are of 512 MiB."""
    try:
        return int(_PMD_NBYTES.read_text()) == LARGE_PAGE_NBYTES
    except (OSError, ValueError):
        return False


_system = _System()
