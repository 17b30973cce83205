"""The disk's own speed, past the page cache, and files out of it."""

from __future__ import annotations

import mmap
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import numpy as np

_STEP, _DEPTH = 8 << 20, 4
_LARGE_PAGE = 2 << 20


def read_directly(where: Path, at_most: int = 1 << 30, copied: bool = False) -> tuple[int, float]:
    """Bytes of a file, or of a folder's files, the largest first, and seconds to read them in a row with ``O_DIRECT``.

    Several reads are under way at any time, as a disk needs it that is to give all that it can, into large pages: with
    small ones a read of 8 MiB reaches the disk in pieces, and some disks give half as much. Tails that are no whole
    block are left out.

    Args:
        where: The file or folder.
        at_most: No more bytes than these.
        copied: Whether everything is copied once as it comes, the least that any training does with it: a disk that
            shares the processors with whoever uses it gives less then.
    """
    files = [where] if where.is_file() else [path for path in where.rglob("*") if path.is_file()]
    buffers: SimpleQueue[memoryview] = SimpleQueue()
    target = np.frombuffer(_large_pages(_STEP), np.uint8) if copied else None
    for _ in range(_DEPTH):
        buffers.put(_large_pages(_STEP))
    done = 0
    with ThreadPoolExecutor(_DEPTH) as pool, ExitStack() as stack:

        def read(fd: int, at: int, nbytes: int) -> None:
            memory = buffers.get()
            try:
                while nbytes:
                    got = os.preadv(fd, [memory[:nbytes]], at)
                    at, nbytes = at + got, nbytes - got
                    if target is not None:
                        np.copyto(target[:got], np.frombuffer(memory[:got], np.uint8))
            finally:
                buffers.put(memory)

        begun, reads = time.perf_counter(), list[Future[None]]()
        for path in sorted(files, key=lambda path: -path.stat().st_size):
            end = min(path.stat().st_size, at_most - done) // mmap.PAGESIZE * mmap.PAGESIZE
            if not end:
                break
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
            stack.callback(os.close, fd)
            reads += [pool.submit(read, fd, at, min(_STEP, end - at)) for at in range(0, end, _STEP)]
            done += end
        for each in reads:
            each.result()
        return done, time.perf_counter() - begun


def _large_pages(nbytes: int) -> memoryview:
    """Memory of large pages, where the system has any, all of it there; here since most environments do without us."""
    pages = np.frombuffer(_touched(nbytes + _LARGE_PAGE), np.uint8)
    first = -pages.ctypes.data % _LARGE_PAGE
    return memoryview(pages[first : first + nbytes])


def _touched(nbytes: int) -> mmap.mmap:
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    np.frombuffer(memory, np.uint8)[:: mmap.PAGESIZE] = 0
    return memory


def write_directly(path: Path, nbytes: int) -> float:
    """Seconds to write so many bytes in a row with ``O_DIRECT`` and see them to the disk."""
    buffer = _large_pages(_STEP)
    buffer[:] = os.urandom(_STEP)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT, 0o600)
    try:
        begun = time.perf_counter()
        for _ in range(-(-nbytes // _STEP)):
            os.write(fd, buffer)
        os.fsync(fd)
        return time.perf_counter() - begun
    finally:
        os.close(fd)


def forget(folder: Path) -> None:
    """Drop everything in a folder from the page cache, but for pages that somebody has touched in a mapping.

    What is dropped leaves memory that the next reading can use at once: see :class:`SpareMemory`.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def remember(folder: Path) -> None:
    """Bring everything in a folder into the page cache."""
    buffer = bytearray(_STEP)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


class SpareMemory:
    """Memory that is held until somebody is measured, who then finds it free and at hand.

    Free memory a virtual machine may have given back to its host. To get that again took up to 2.4 s a GB where this
    was written, from whoever touched it first: so not from a loop that has one buffer, but from a loader with some
    batches ahead, or with processes that make them, as if the disk were half as fast.

    Args:
        nbytes: How much.
    """

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._memory: mmap.mmap | None = None

    def take(self) -> None:
        """Hold it: soon after the one before was measured, while what that one used is still at hand."""
        self._memory = self._memory or _touched(self._nbytes)

    def give(self) -> None:
        """Let it go."""
        self._memory = None


def make_room(folder: Path, nbytes: int) -> None:
    """Write a file and remove it: memory for the page cache of whoever writes next, see :class:`SpareMemory`."""
    path = folder / "room"
    try:
        with path.open("wb", buffering=0) as file:
            for _ in range(-(-nbytes // _STEP)):
                file.write(bytes(_STEP))
    finally:
        path.unlink(missing_ok=True)
        os.sync()  # or who writes next waits while the disk is told of the space that is free again
