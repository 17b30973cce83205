"""One open file: its descriptor, its mapping, and whether it is still the file that was opened."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import threading
from collections.abc import Callable

import numpy as np

from ..errors import ClosedError, FileChangedError, FileError
from .buffers import lease
from .largepages import LARGE_PAGE_NBYTES, MOST_PAGES, LargePages, are_there, touch
from .pagecache import address_of, asked_nbytes, is_absent, read_ahead_nbytes, reads_at_once

_HAS_PREAD = hasattr(os, "preadv")
_HAS_FADVISE = hasattr(os, "posix_fadvise")
#: What is read at a time: larger reads gain nothing and leave the processor's cache.
_PIECE_NBYTES = 2 << 20
_WAIT_NBYTES = 512 << 10
#: Bytes between two columns or blocks that are read rather than left out.
MAX_GAP_NBYTES = 64 << 10
#: What was read ahead in a row for so long is expected to go on: a large page over its end is brought whole.
_ROW_NBYTES = 32 << 20
#: A system that reads so far ahead by itself is quicker in a row than who waits for one large page after the other.
_FAR_NBYTES = 2 * LARGE_PAGE_NBYTES
#: Of less than this the large pages over its edges would be too large a part.
_SHARED_NBYTES = 2 * LARGE_PAGE_NBYTES

#: What may be wrong with some bytes of a file; whatever else is wrong will be with all of them.
_ERRORS_OF_A_STRETCH = {errno.EFAULT, errno.EIO, errno.ENOMEM, errno.EINTR, getattr(errno, "EHWPOISON", errno.EIO)}


class _Descriptor:
    """A file descriptor that is closed when nobody uses it any more.

    A number alone could be closed by one thread and given to another file while a second thread is about to read.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at the very end there is no module ``os``
        close(self.number)


class FileHandle:
    """A file opened for reading.

    Reads never use the descriptor's position, so threads and forked processes can share a handle. The mapping, if
    any, lives for as long as an array refers to it; ``close()`` breaks nobody's data.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            kind = os.stat(path).st_mode  # noqa: PTH116 - paths stay str here, any bytes a file system allows
        except ValueError as error:
            raise FileError(f"{path!r} is no name that a file can have: {error}", path=path) from error
        if stat.S_ISDIR(kind):
            raise FileError(f"{path} is a directory; open the files in it with hypersequence.open({path + '/*.hsq'!r})")
        if not stat.S_ISREG(kind):  # opening a pipe would wait for somebody to write into it
            raise FileError(f"{path} is no regular file; copy its content to one first")
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            self._descriptor: _Descriptor | None = _Descriptor(os.open(path, flags))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            raise FileError(
                f"{path}: there are too many open files; a file keeps two descriptors while it is open, and one while "
                "somebody holds a view of its records: close some, or allow more (ulimit -n)",
                path=path,
            ) from error
        found = os.fstat(self._descriptor.number)
        self.nbytes, self._asked_nbytes = found.st_size, asked_nbytes(found.st_dev) if _HAS_FADVISE else 0
        far = read_ahead_nbytes(found.st_dev) if _HAS_FADVISE else None
        #: Whether the system reads far ahead by itself of what is read in a row; ``None`` if nobody tells.
        self.reads_far = None if far is None else far >= _FAR_NBYTES
        self.mapping: memoryview | None = None
        self._mapped: mmap.mmap | None = None
        self._address: int | None = None  # of the mapping
        #: Where the bytes that were last read ahead, or evicted, in a row begin and end.
        self._row = self._evicted = (0, 0)
        self._evicting: set[tuple[int, int]] = set()  # by process, as a forked child has nothing of its parent's to end
        self._large_pages: LargePages | None = None
        self._has_large_pages = True  # as far as is known
        self._lock = threading.Lock()  # only for systems without pread

    def map(self) -> memoryview:
        """Map the whole file, read-only.

        Raises:
            OSError: The system refuses: there is no address space or descriptor left, or none of that on this file
                system.
        """
        if self.mapping is None:
            self._mapped = mmap.mmap(self._open().number, self.nbytes, access=mmap.ACCESS_READ)
            self.mapping = memoryview(self._mapped)
            self._address = address_of(self.mapping)
        return self.mapping

    def _open(self) -> _Descriptor:
        """The descriptor, which stays open for as long as the caller holds this."""
        descriptor = self._descriptor
        if descriptor is None:
            raise ClosedError(f"{self.path}: the file was closed; arrays read before stay valid")
        return descriptor

    def ensure_whole(self) -> None:
        """Refuse to go on if the file was closed or truncated.

        Touching a mapping past the end of its file kills the process (SIGBUS), so this is asked before each batch;
        seeking to the end is the cheapest way to learn a file's length.
        """
        descriptor = self._descriptor or self._open()
        nbytes = os.lseek(descriptor.number, 0, os.SEEK_END)
        if nbytes < self.nbytes:
            raise FileChangedError(
                f"{self.path}: the file shrank from {self.nbytes} to {nbytes} bytes while it was open; restore it and "
                "open it again",
                path=self.path,
            )

    def read(self, offset: int, nbytes: int) -> bytes:
        """Bytes at an offset; fewer only where the file ends."""
        buffer = bytearray(nbytes)
        return bytes(buffer[: self._read_some(memoryview(buffer), offset)])

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` with the bytes at an offset.

        Raises:
            FileChangedError: The file ends before.
        """
        found = self._read_some(target, offset)
        if found < target.nbytes:
            raise FileChangedError(
                f"{self.path}: ends at {offset + found}, {target.nbytes - found} bytes early: truncated while open",
                path=self.path,
            )

    def _read_some(self, target: memoryview, offset: int) -> int:
        descriptor, done = self._open(), 0
        while done < target.nbytes:  # one call gives at most 2 GiB
            if _HAS_PREAD:
                got = os.preadv(descriptor.number, [target[done:]], offset + done)
            else:
                with self._lock:
                    os.lseek(descriptor.number, offset + done, os.SEEK_SET)
                    data = os.read(descriptor.number, min(target.nbytes - done, 1 << 30))
                got = len(data)
                target[done : done + got] = data
            if got == 0:
                break
            done += got
        return done

    def will_need(self, offset: int, nbytes: int) -> None:
        """Ask the system to read ahead; does nothing where it takes no such hint."""
        if _HAS_FADVISE:
            descriptor = self._open()
            for start in range(offset, offset + nbytes, self._asked_nbytes):
                length = min(self._asked_nbytes, offset + nbytes - start)
                os.posix_fadvise(descriptor.number, start, length, os.POSIX_FADV_WILLNEED)

    def is_absent(self, offset: int) -> bool:
        """Whether a byte is known not to be in the page cache; takes twice as long as :meth:`is_cached`."""
        address = self._address
        return address is not None and is_absent(address, offset)

    def is_cached(self, offset: int) -> bool:
        """Whether a byte could be read without the disk; ``False`` where the system does not tell.

        If it could not, the system begins to read it, and if it was quicker than we are, this is ``True`` as well; then
        :func:`n_blocks_read` has grown.
        """
        return reads_at_once(self._open().number, offset)

    def wait_for(self, offset: int, nbytes: int) -> None:
        """Wait until bytes that the system was asked for have come, by reading one here and there."""
        if not _HAS_FADVISE:  # nobody was asked
            self._read_through(offset, nbytes)
            return
        for start in range(offset, offset + nbytes, _WAIT_NBYTES):
            self.read(min(start + _WAIT_NBYTES, offset + nbytes) - 1, 1)

    @property
    def has_large_pages(self) -> bool:
        """Whether the system brings large pages of this file, as far as is known."""
        # Without a mapping, reads would go on behind each of them.
        return self._mapped is not None and self._has_large_pages and are_there()

    def follows(self, offset: int) -> bool:
        """Whether what begins there goes on what :meth:`to_bring` was last told."""
        return 0 <= offset - self._row[1] <= MAX_GAP_NBYTES

    def to_bring(self, offset: int, nbytes: int, goes_on: bool, shared: bool) -> tuple[int, int]:
        """Where begins and ends what is to be brought of what is read ahead next; the system is asked for the rest.

        Large pages that lie in it; and those over its edges, if it goes on what was read ahead before, if what lies
        behind is read ahead next, or is expected to after a long row, and if neighbours are read some time as well.
        Without large pages, nothing but what goes on a long row.

        Args:
            offset: Where it begins.
            nbytes: Its length.
            goes_on: Whether what lies behind is read ahead next.
            shared: Whether neighbours are read some time, and find there what was brought.
        """
        follows = self.follows(offset)
        row, end = self._row[0] if follows else offset, offset + nbytes
        self._row = (row, end)
        in_a_row = end - row > _ROW_NBYTES
        if not self.has_large_pages:
            return offset, end if in_a_row else offset
        shared = nbytes >= _SHARED_NBYTES and shared and not self._evicting
        # What is evicted goes in the same rows; of two that meet by chance, one goes while the other is still needed.
        before = shared or in_a_row or (follows and not self._evicting)
        behind = shared or in_a_row or goes_on or end == self.nbytes
        first, last = offset // LARGE_PAGE_NBYTES, end // LARGE_PAGE_NBYTES
        first += not before and offset % LARGE_PAGE_NBYTES > 0
        last += behind and end % LARGE_PAGE_NBYTES > 0
        if first >= last:
            return offset, offset
        return first * LARGE_PAGE_NBYTES, min(last * LARGE_PAGE_NBYTES, self.nbytes)

    def goes_on_a_long_row(self, offset: int) -> bool:
        """Whether what begins there, and :meth:`to_bring` was last told, goes on a long row."""
        return offset - self._row[0] > _ROW_NBYTES

    def touch(self, start: int, end: int) -> None:
        """The same as :meth:`bring` through the mapping of the file, where the system reads on behind it by itself."""
        mapped, address = self._mapped, self._address  # the mapping stays for as long as we hold it
        self._open()
        if mapped is None or address is None or not self._done(touch, address, start, end):
            self._read_through(start, end - start)

    def bring(self, start: int, end: int) -> None:
        """Wait until the page cache holds what :meth:`to_bring` told, or part of it."""
        descriptor = self._open()
        if not self.has_large_pages or not self._done(lambda: self._pages(descriptor).bring(start, end)):
            self._read_through(start, end - start)

    def _done(self, function: Callable[..., None], *arguments: int) -> bool:
        """Whether the system did that; if not since it never does, nobody asks again."""
        try:
            function(*arguments)
        except OSError as error:  # whoever reads the bytes meets what is wrong with the disk again
            if error.errno not in _ERRORS_OF_A_STRETCH:
                self._has_large_pages = False
            return False
        return True

    def _pages(self, descriptor: _Descriptor) -> LargePages:
        """A mapping that is good for some more large pages."""
        pages = self._large_pages
        if pages is None or pages.n_pages >= MOST_PAGES:
            try:
                pages = self._large_pages = LargePages(descriptor.number, self.nbytes)
            except OSError as error:
                raise OSError(errno.ENOSYS, f"no large pages of this file: {error}") from error
            if self._descriptor is None:  # closed meanwhile
                self._large_pages = None
        return pages

    def _read_through(self, offset: int, nbytes: int) -> None:
        """Bring bytes into the page cache by reading them one piece after the other into memory that is used again.

        The system meets reads in a row with read-ahead of its own and, some systems, large pages.
        """
        piece = lease((min(nbytes, _PIECE_NBYTES),), np.dtype(np.uint8)).data
        for start in range(offset, offset + nbytes, _PIECE_NBYTES):
            self._read_some(piece[: min(_PIECE_NBYTES, offset + nbytes - start)], start)

    @property
    def evicting(self) -> bool:
        """Whether somebody evicts, so that pages of the mapping that are touched come alone."""
        return bool(self._evicting)

    def begin_evicting(self, who: object) -> None:
        """Have pages of the mapping that are touched come alone, or they bring megabytes that nobody evicts again."""
        self._evicting.add((os.getpid(), id(who)))
        self._advise("MADV_RANDOM")

    def end_evicting(self, who: object) -> None:
        """Have pages that are touched bring those around them again, if nobody else evicts."""
        pid = os.getpid()
        for of, one in list(self._evicting):
            if of != pid or one == id(who):
                self._evicting.discard((of, one))
        if not self._evicting:
            self._advise("MADV_NORMAL")

    def _advise(self, name: str) -> None:
        mapped = self._mapped
        if mapped is not None and hasattr(mmap, name):
            mapped.madvise(getattr(mmap, name))

    def evict(self, offset: int, nbytes: int) -> None:
        """Drop whole pages from the page cache: out of the mapping first, since the system keeps what is mapped."""
        first = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        row, end = self._evicted
        if 0 <= offset - end <= MAX_GAP_NBYTES:
            # The system keeps its large pages as one: who lay across the end of what was evicted last is still there.
            first = max(row, offset // LARGE_PAGE_NBYTES * LARGE_PAGE_NBYTES)
        else:
            row = first
        self._evicted = (row, offset + nbytes)
        length = (offset + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length <= 0:
            return
        if self._mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED, first, length)
        if _HAS_FADVISE:
            descriptor = self._open()
            os.posix_fadvise(descriptor.number, first, length, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Give the descriptor back when the last read that is under way has ended; the mapping, with its last array."""
        self._descriptor = None
        if self._evicting:
            self._advise("MADV_NORMAL")  # for views that stay
        self.mapping = self._mapped = self._address = self._large_pages = None

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._descriptor is None
