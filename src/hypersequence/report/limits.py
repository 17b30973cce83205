"""What this machine can do without us: copy, gather, read from its disk."""

# What is measured beside a file's own reading is measured from the file's own pages.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..loader.threads import Task, Threads
from ..schema import Array
from ..source import FileSource, Source
from ..source.buffers import lease
from ..source.handle import FileHandle

#: A part of a file: its path, where the part begins, and how many bytes it has.
Part: TypeAlias = tuple[str, int, int]

#: Disks give all that they can only while several reads are under way.
_READ_NBYTES, _READS = 8 << 20, 4
#: The clock is looked at after so many bytes, or it would be measured as well.
_STRIDE_NBYTES = 1 << 20
#: Places that are gathered from, over and over.
_MOST_PLACES = 1 << 20
#: Memory to copy from where a file has none of its own.
_UNMAPPED_NBYTES = 64 << 20
#: Places of a file that are looked at, and what share of it may be in memory all the same.
_MOST_SAMPLES, _SAMPLE_NBYTES, _ODD_PAGES = 16, 1 << 20, 0.1
_TRIES, _BETWEEN_TRIES_S = 5, 0.05
#: NumPy has no items above 2 GiB.
_MOST_ITEM_NBYTES = (1 << 31) - 1


class MemoryLimit:
    """One thread's copies from a file's pages into one aligned buffer of a batch: contiguous, and gathered.

    Args:
        source: What is read; of several files, the one with most of the records.
        n_records: How many of its first records are in memory.
        batch_size: Records a batch.
    """

    def __init__(self, source: Source, n_records: int, batch_size: int) -> None:
        record_nbytes = source.schema.record_nbytes
        file, count = max(_files_of(source, n_records), key=lambda each: each[1])
        pages = _pages_of(file, count * record_nbytes)
        self._can_gather = record_nbytes <= _MOST_ITEM_NBYTES
        item = np.dtype((np.void, record_nbytes)) if self._can_gather else np.dtype(np.uint8)
        n_items = len(pages) // item.itemsize
        self._items = pages[: n_items * item.itemsize].view(item)
        self._size = min(batch_size * record_nbytes // item.itemsize, n_items)
        # Bytes first, since a lease takes no items of this kind.
        self._buffer = lease((self._size * item.itemsize,), np.dtype(np.uint8)).view(item)
        n_places = max(self._size, min(n_items, _MOST_PLACES) // self._size * self._size)
        self._places = np.random.default_rng(0).integers(0, n_items, n_places)

    @property
    def gather_name(self) -> str:
        """What the gather is called."""
        return "np.take" if self._can_gather else "one copy"

    def copy(self, seconds: float) -> float:
        """Bytes a second that are copied batch by batch, measured for so long."""
        items, buffer, size = self._items, self._buffer, self._size

        def step(at: int) -> None:
            np.copyto(buffer, items[at : at + size])

        return self._rate(step, len(items), seconds)

    def gather(self, seconds: float) -> float:
        """Bytes a second that ``np.take`` brings together from places here and there."""
        if not self._can_gather:
            return self.copy(seconds)
        items, buffer, places, size = self._items, self._buffer, self._places, self._size

        def step(at: int) -> None:
            items.take(places[at : at + size], 0, buffer, "clip")

        return self._rate(step, len(places), seconds)

    def _rate(self, step: Callable[[int], None], n_items: int, seconds: float) -> float:
        starts = range(0, n_items - self._size + 1, self._size)
        nbytes = self._size * self._items.itemsize
        together = max(1, _STRIDE_NBYTES // nbytes)
        done, begun = 0, time.perf_counter()
        while True:
            for number in range(done, done + together):
                step(starts[number % len(starts)])
            done += together
            elapsed = time.perf_counter() - begun
            if elapsed >= seconds:
                return done * nbytes / elapsed


def _pages_of(file: FileSource, nbytes: int) -> Array:
    """The first bytes of a file's records, with whatever lies between; other memory where it could not be mapped."""
    mapping, first = file._handle.mapping, file.stored.first_block
    if mapping is None:
        return lease((min(nbytes, max(_UNMAPPED_NBYTES, file.schema.record_nbytes)),), np.dtype(np.uint8))
    return np.frombuffer(mapping, np.uint8)[first : first + nbytes]


class DiskLimit:
    """Parts of files read one after the other, past the page cache where the system allows that.

    Args:
        parts: What is read.

    Attributes:
        direct: Whether the page cache is passed by (``O_DIRECT``). Otherwise whoever asks drops the files first.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._pieces = [
            (path, at, min(_READ_NBYTES, offset + nbytes - at))
            for path, offset, nbytes in parts
            for at in range(offset // mmap.PAGESIZE * mmap.PAGESIZE, offset + nbytes, _READ_NBYTES)
        ]
        self._flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
        self.direct = self._takes_direct()

    def _takes_direct(self) -> bool:
        plain, self._flags = self._flags, self._flags | getattr(os, "O_DIRECT", 0)
        if self._flags == plain:
            return False
        try:
            self._read(self._pieces[0][0], 0, mmap.PAGESIZE, [])
        except OSError:  # some file systems refuse it when the file is opened, some when it is read
            self._flags = plain
            return False
        return True

    def rate(self) -> float:
        """Bytes a second."""
        found: list[int] = []
        tasks = [Task(partial(self._read, *piece, found)) for piece in self._pieces]
        threads = Threads(_READS - 1, "hsq bench")
        try:
            begun = time.perf_counter()
            for task in tasks:
                threads.give(task)
            for task in tasks:
                task.wait()  # or run it, so that this thread reads as well
            return sum(found) / (time.perf_counter() - begun)
        finally:
            for task in tasks:
                task.cancel()
            threads.close()

    def _read(self, path: str, offset: int, nbytes: int, found: list[int]) -> None:
        """One piece, whose number of bytes goes to ``found``; whole pages, as reading past the cache needs it."""
        nbytes = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = lease((nbytes,), np.dtype(np.uint8))
        descriptor = os.open(path, self._flags)
        try:
            found.append(os.preadv(descriptor, [memory.data], offset))
        finally:
            os.close(descriptor)


def parts_of(source: Source, n_records: int) -> list[Part]:
    """Where the first records of a source lie."""
    chosen = range(len(source.schema.columns))
    extents = (
        (file, extent) for file, count in _files_of(source, n_records) for extent in file.extents(0, count, chosen)
    )
    return [(file.path, *extent) for file, extent in extents]


def _files_of(source: Source, n_records: int) -> Iterator[tuple[FileSource, int]]:
    """The files that hold the first records of a source, and how many each holds."""
    for file in source.files():
        count = min(n_records, file.n_records)
        n_records -= count
        if count:
            yield file, count


def forget(paths: Sequence[str]) -> None:
    """Drop files from the page cache, but for pages that somebody has mapped."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with suppress(OSError):  # where nothing can be written, nothing waits to be
                os.fsync(descriptor)  # what is not on the disk yet would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def can_forget(paths: Sequence[str]) -> bool:
    """Drop files from the page cache, and tell whether they are out of it but for odd pages.

    Pages that are on their way from the disk stay, so it is tried again.
    """
    for _ in range(_TRIES):
        forget(paths)
        if max(map(_cached_share, paths)) < _ODD_PAGES:
            return True
        time.sleep(_BETWEEN_TRIES_S)
    return False


def _cached_share(path: str) -> float:
    """Which share of a file is in the page cache, as samples tell."""
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        count = max(1, min(_MOST_SAMPLES, len(mapping) // _SAMPLE_NBYTES))
        length = min(_SAMPLE_NBYTES, len(mapping))
        starts = [(len(mapping) - length) * i // count // mmap.PAGESIZE * mmap.PAGESIZE for i in range(count)]
        if Path(path).stat().st_uid == os.geteuid() or os.access(path, os.W_OK):
            return sum(_resident_share(mapping, start, length) for start in starts) / count
        # The system tells nobody else. To try to read tells it as well, but may bring pages there by itself.
        handle = FileHandle(path)
        try:
            return sum(map(handle.is_cached, starts)) / count
        finally:
            handle.close()


def _resident_share(mapping: mmap.mmap, start: int, length: int) -> float:
    import ctypes  # not at import time: few measure

    pages = np.zeros(-(-length // mmap.PAGESIZE), np.uint8)
    view: Array = np.frombuffer(mapping, np.uint8, length, start)
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    if mincore(view.ctypes.data, length, pages.ctypes.data):
        raise OSError(ctypes.get_errno(), "mincore")
    return float((pages & 1).mean())
