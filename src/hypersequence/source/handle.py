"""One open file: its descriptor, its mapping, and whether it is still the file that was opened."""

from __future__ import annotations

import mmap
import os
import stat
import threading
from typing import Any

from ..errors import ClosedError, FileChangedError, FileError

_HAS_PREAD = hasattr(os, "preadv")
_HAS_FADVISE = hasattr(os, "posix_fadvise")


class FileHandle:
    """A file opened for reading.

    Reads never use the descriptor's position, so threads and forked processes can share a handle. The mapping, if
    any, lives for as long as an array refers to it; ``close()`` breaks nobody's data.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        kind = os.stat(path).st_mode  # noqa: PTH116 - paths stay str here, any bytes a file system allows
        if stat.S_ISDIR(kind):
            raise FileError(f"{path} is a directory; open the files in it with hypersequence.open({path + '/*.hsq'!r})")
        if not stat.S_ISREG(kind):  # opening a pipe would wait for somebody to write into it
            raise FileError(f"{path} is no regular file; copy its content to one first")
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        self.nbytes = os.fstat(self._fd).st_size
        self.mapping: memoryview | None = None
        self._lock = threading.Lock()  # only for systems without pread

    def map(self) -> memoryview:
        """Map the whole file, read-only."""
        if self.mapping is None:
            mapped = mmap.mmap(self._fd, self.nbytes, access=mmap.ACCESS_READ)
            self.mapping = memoryview(mapped)
        return self.mapping

    def ensure_whole(self) -> None:
        """Refuse to go on if the file was closed or truncated.

        Touching a mapping past the end of its file kills the process (SIGBUS), so this is asked before each batch;
        seeking to the end is the cheapest way to learn a file's length.
        """
        try:
            nbytes = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError:
            if self._fd < 0:
                raise ClosedError(f"{self.path}: the file was closed; arrays read before stay valid") from None
            raise
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
        done = 0
        while done < target.nbytes:  # one call gives at most 2 GiB
            if _HAS_PREAD:
                got = os.preadv(self._fd, [target[done:]], offset + done)
            else:
                with self._lock:
                    os.lseek(self._fd, offset + done, os.SEEK_SET)
                    data = os.read(self._fd, min(target.nbytes - done, 1 << 30))
                got = len(data)
                target[done : done + got] = data
            if got == 0:
                break
            done += got
        return done

    def will_need(self, offset: int, nbytes: int) -> None:
        """Ask the system to read ahead; does nothing where it takes no such hint."""
        if _HAS_FADVISE and self._fd >= 0:
            os.posix_fadvise(self._fd, offset, nbytes, os.POSIX_FADV_WILLNEED)

    def identity(self) -> tuple[int, int, int]:
        """Device, inode and length: what tells a replaced file from the one that was opened."""
        status: Any = os.fstat(self._fd)
        return status.st_dev, status.st_ino, self.nbytes

    def close(self) -> None:
        """Give the descriptor back. The mapping goes when its last array does."""
        fd, self._fd = self._fd, -1
        self.mapping = None
        if fd >= 0:
            os.close(fd)

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._fd < 0

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()
