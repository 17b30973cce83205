"""The bytes of a file without an end, some at a time."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from ..errors import FileError

#: The system is asked to read ahead in pieces of this length: one call reads no more.
_AHEAD_NBYTES = 2 << 20


class PartBytes:
    """Reads a file in pieces into the same memory again and again."""

    def __init__(self, path: Path) -> None:
        try:
            if not path.is_file() and path.exists():  # opening a pipe would wait for somebody to write into it
                what = "a directory" if path.is_dir() else "no regular file"
                raise FileError(f"{path} is {what}; give one part file", path=str(path))
            self._file = path.open("rb", buffering=0)
            try:
                self.nbytes = self._file.seek(0, 2)
            except BaseException:
                self._file.close()
                raise
        except (OSError, ValueError) as error:
            if isinstance(error, FileError | FileNotFoundError):
                raise
            raise FileError(f"{path}: cannot be opened: {error}", path=str(path)) from error
        self._memory = bytearray()
        self._held = (0, 0)

    def __call__(self, offset: int, nbytes: int) -> memoryview:
        """Bytes that stay what they are until the next call; fewer only where the file ends."""
        start = self._held[0]
        if not self.holds(offset, nbytes):
            start = offset
            self._held = (0, 0)
            self._read(offset, nbytes)
            nbytes = min(nbytes, self._n_read)
        return memoryview(self._memory)[offset - start : offset - start + nbytes].toreadonly()

    def hold(self, offset: int, nbytes: int) -> None:
        """Have these bytes in memory for the calls that come, if the disk gives all of them."""
        self._held = (0, 0)
        with suppress(OSError):  # whoever wants some of them is told
            self._read(offset, nbytes)
            self._held = (offset, offset + self._n_read)

    def will_need(self, offset: int, nbytes: int) -> None:
        """Have the system read ahead while these bytes are not needed yet, where it takes such a hint."""
        if not hasattr(os, "posix_fadvise"):
            return
        with suppress(OSError):
            for start in range(offset, offset + nbytes, _AHEAD_NBYTES):
                os.posix_fadvise(self._file.fileno(), start, _AHEAD_NBYTES, os.POSIX_FADV_WILLNEED)

    def next_data(self, offset: int) -> int:
        """Where the next bytes are that are no hole of a sparse file, as far as the system tells."""
        if not hasattr(os, "SEEK_DATA"):
            return offset
        try:
            return os.lseek(self._file.fileno(), min(offset, self.nbytes), os.SEEK_DATA)
        except OSError as error:
            return max(offset, self.nbytes) if error.errno == errno.ENXIO else offset

    def _read(self, offset: int, nbytes: int) -> None:
        if len(self._memory) < nbytes:
            self._memory = bytearray(nbytes)  # a new one: there may be views of the old one
        self._file.seek(offset)
        self._n_read = 0
        while self._n_read < nbytes:
            got = self._file.readinto(memoryview(self._memory)[self._n_read : nbytes])
            if not got:
                break
            self._n_read += got

    def holds(self, offset: int, nbytes: int) -> bool:
        """Whether the next calls leave these bytes where they are."""
        start, end = self._held
        return start <= offset <= offset + nbytes <= end

    def close(self) -> None:
        """Close the file."""
        self._file.close()
