"""Disks that fail while they are read."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

SECTOR, PAGE = 512, 4096


class BadSectors:
    """A disk that does not give some of its sectors until they are written anew.

    A read that comes to one ends before it, and one that begins with it fails, as the system has it. Writing a part
    of a page with one fails as well, since the system has to read the rest; a whole page mends it.

    Args:
        monkeypatch: What to patch.
        path: The file in question; others are sound.
        offsets: Somewhere in each bad sector.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, offsets: Iterable[int]) -> None:
        self._inode = path.stat().st_ino
        self.bad = {offset // SECTOR for offset in offsets}
        disk, preadv, open_ = self, os.preadv, Path.open

        class File(io.FileIO):
            def readinto(self, buffer: Any) -> int:
                view = memoryview(buffer)
                return super().readinto(view[: disk.n_given(self.fileno(), self.tell(), len(view))])

            def read(self, nbytes: int | None = -1) -> bytes:
                given = disk.n_given(self.fileno(), self.tell(), nbytes if nbytes and nbytes > 0 else 1 << 60)
                return super().read(given if given < 1 << 59 else nbytes)

            def write(self, data: Any) -> int:
                at, end = self.tell(), self.tell() + len(memoryview(data))
                if os.fstat(self.fileno()).st_ino == disk._inode:
                    for edge in {at // PAGE * PAGE, end // PAGE * PAGE} - {at, end}:
                        disk.n_given(self.fileno(), edge, PAGE, whole=True)
                    disk.bad -= set(range(at // SECTOR, end // SECTOR))
                return super().write(data)

        def bad_preadv(fd: int, buffers: list[Any], offset: int, flags: int = 0) -> int:
            view = memoryview(buffers[0])
            return preadv(fd, [view[: disk.n_given(fd, offset, len(view))]], offset, flags)

        def bad_open(self: Path, mode: str = "r", buffering: int = -1, *more: Any, **options: Any) -> Any:
            return File(self, mode) if buffering == 0 else open_(self, mode, buffering, *more, **options)

        monkeypatch.setattr(os, "preadv", bad_preadv)
        monkeypatch.setattr(Path, "open", bad_open)

    def n_given(self, fd: int, offset: int, nbytes: int, *, whole: bool = False) -> int:
        """How many bytes a read gives; ``whole``: it has to give all."""
        if os.fstat(fd).st_ino != self._inode:
            return nbytes
        first = min((sector for sector in self.bad if (sector + 1) * SECTOR > offset), default=1 << 60)
        if nbytes and first * SECTOR <= (offset + nbytes - 1 if whole else offset):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return min(nbytes, first * SECTOR - offset)


class StaleCache:
    """A page cache that shows what the disk failed to take, until it is told to drop it.

    Args:
        monkeypatch: What to patch.
        path: The file.
        lost: What the disk does not have: offsets of bytes, which are zero there.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, lost: range) -> None:
        fadvise = os.posix_fadvise
        self.dropped = False

        def drop(fd: int, offset: int, nbytes: int, advice: int) -> None:
            if advice == os.POSIX_FADV_DONTNEED and not offset and os.fstat(fd).st_ino == path.stat().st_ino:
                self.dropped = True
                os.pwrite(fd, bytes(len(lost)), lost.start)
            fadvise(fd, offset, nbytes, advice)

        monkeypatch.setattr(os, "posix_fadvise", drop)
