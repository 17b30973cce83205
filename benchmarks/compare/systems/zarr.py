"""Zarr 3: arrays of chunks in a folder of files, read into buffers by slices and by numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..contenders import Contender, Epochs, Order, Shuffle
from ..memory import Buffers
from ..workloads import Pair, Records, Workload
from .memmap import batches_of_numbers

#: Chunks are recommended to have a MiB at least.
CHUNK = 1 << 20
#: But for those in shards, which are files of many chunks.
SMALL_CHUNK, SHARD = 16 << 10, 16 << 20


class Filler:
    """Writes whole chunks of an array, of parts of any length."""

    def __init__(self, array: Any) -> None:
        self._array, self._waiting, self._first = array, [], 0

    def add(self, part: np.ndarray, last: bool = False) -> None:
        """Write the whole chunks that there are by now, or all if these are the last rows."""
        self._waiting.append(part)
        n = sum(map(len, self._waiting))
        n -= 0 if last else n % (self._array.shards or self._array.chunks)[0]
        if n:
            rows = np.concatenate(self._waiting)
            self._array[self._first : self._first + n] = rows[:n]
            self._waiting, self._first = [rows[n:]], self._first + n

    def close(self) -> None:
        """Write what is left, and cut the array to what was written."""
        self.add(np.empty((0, *self._array.shape[1:]), self._array.dtype), last=True)
        self._array.resize((self._first, *self._array.shape[1:]))


def write(by_record: bool, compressors: str | None, sharded: bool = False) -> Callable[[Workload, Records, Path], None]:
    """Chunks of as few batches as are a MiB, or of one record (labels, which are small, are always in large chunks).

    Args:
        by_record: Whether large records have a chunk each.
        compressors: As Zarr calls it.
        sharded: Whether chunks are small, for random access, and many lie together in a file.
    """

    def write_(workload: Workload, records: Records, folder: Path) -> None:
        import zarr

        def filler(name: str, shape: tuple[int, ...], dtype: str, nbytes: int) -> Filler:
            n, size = len(records), workload.batch
            rows = 1 if by_record and nbytes >= CHUNK >> 1 else min(n, size * -(-CHUNK // (size * nbytes)))
            whole: dict[str, Any] = {"shape": (n, *shape), "chunks": (rows, *shape), "dtype": dtype}
            if sharded:
                rows = max(1, SMALL_CHUNK // nbytes)
                whole |= {"chunks": (rows, *shape), "shards": (rows * max(1, SHARD // (rows * nbytes)), *shape)}
            return Filler(zarr.create_array(folder / name, **whole, compressors=compressors))  # pyright: ignore[reportArgumentType]

        fillers = filler("x", *workload.x, workload.x_nbytes), filler("y", *workload.y, workload.y_nbytes)
        for pair in records.chunks():
            for part, to in zip(pair, fillers, strict=True):
                to.add(part)
        for to in fillers:
            to.close()

    return write_


def read(array: Any, first: int, to: np.ndarray) -> None:
    """Records from the first on into memory."""
    from zarr.buffer.cpu import NDBuffer

    array.get_basic_selection(slice(first, first + len(to)), out=NDBuffer.from_numpy_array(to))


def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
    import zarr

    x, y = zarr.open_array(folder / "x", mode="r"), zarr.open_array(folder / "y", mode="r")
    return shuffled(workload, x, y) if order == "shuffled" else in_order(workload, x, y)


def in_order(workload: Workload, x: Any, y: Any) -> Epochs:
    """A chunk is read once, for all of the batches in it."""
    n, size = x.shape[0], workload.batch
    step = max(size, (x.shards or x.chunks)[0])
    buffers = Buffers(replace(workload, batch=step))

    def epoch(number: int) -> Iterator[Pair]:
        for first in range(0, n, step):
            to_x, to_y = (to[: n - first] for to in buffers.next())
            read(x, first, to_x)
            read(y, first, to_y)
            for row in range(0, len(to_x) - size + 1, size):
                yield to_x[row : row + size], to_y[row : row + size]

    return epoch


def shuffled(workload: Workload, x: Any, y: Any) -> Epochs:
    """Of chunks with many records, all are read at once, sorted, which is quicker; chunks of a record, one by one."""
    buffers = Buffers(workload)

    def epoch(number: int) -> Iterator[Pair]:
        for numbers in batches_of_numbers(x.shape[0], workload.batch, "shuffled", number):
            batch = buffers.next()
            for array, to in zip((x, y), batch, strict=True):
                if array.chunks[0] == 1:
                    for row, record in enumerate(numbers.tolist()):
                        read(array, record, to[row : row + 1])
                else:
                    rows = np.argsort(numbers)
                    to[rows] = array.oindex[numbers[rows]]
            yield batch

    return epoch


_MANY = Shuffle("oindex[sorted random numbers], put in order", True)
_EACH = Shuffle("records read one by one, by random numbers", True)
_LARGE, _SMALL = (
    ("images", "volumes", "large"),
    ("pairs", "tokens", "digits", "features", "large-tokens", "large-pairs"),
)
CONTENDERS = [
    Contender(f"Zarr, {name}", "peers", files, write_, open_, shuffle, device_ready=True, workloads=workloads)
    for name, files, write_, shuffle, workloads in (
        ("chunks of batches", "zarr", write(False, None), _MANY, ()),
        ("chunks of batches, Zstandard", "zarr-zstd", write(False, "auto"), _MANY, ()),
        ("chunks of a record", "zarr-records", write(True, None), _EACH, _LARGE),
        ("shards of small chunks", "zarr-shards", write(False, None, sharded=True), _MANY, _SMALL),
    )
]
