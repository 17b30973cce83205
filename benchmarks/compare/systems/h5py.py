"""h5py: data sets of HDF5, contiguous and in chunks, read by slices and into buffers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..contenders import Contender, Epochs, Order, Shuffle
from ..memory import Buffers
from ..workloads import Pair, Records, Workload
from .memmap import batches_of_numbers

#: Chunks are recommended to have 10 KiB to 1 MiB.
CHUNK = 1 << 20


def write(chunked: bool) -> Callable[[Workload, Records, Path], None]:
    """Data sets of the right size, filled part by part, in the newest version of the format, which is the fastest."""

    def write_(workload: Workload, records: Records, folder: Path) -> None:
        import h5py

        n = len(records)
        with h5py.File(folder / "data.h5", "w", libver="latest") as file:
            for name, (shape, dtype), nbytes in (
                ("x", workload.x, workload.x_nbytes),
                ("y", workload.y, workload.y_nbytes),
            ):
                chunks = (min(n, max(1, CHUNK // nbytes)), *shape) if chunked else None
                file.create_dataset(name, (n, *shape), dtype, chunks=chunks)
            first = 0
            for x, y in records.chunks():
                file["x"][first : first + len(x)] = x
                file["y"][first : first + len(x)] = y
                first += len(x)
            file.attrs["n_records"] = first

    return write_


def open_file(folder: Path) -> tuple[Any, Any, int]:
    """Data sets and how many records they have.

    An epoch reads nothing twice: without a cache for whole chunks, HDF5 reads just the parts that are asked for.
    """
    import h5py

    file = h5py.File(folder / "data.h5", "r", rdcc_nbytes=0)
    return file["x"], file["y"], int(file.attrs["n_records"])


def slices(workload: Workload, folder: Path, order: Order) -> Epochs:
    x, y, n = open_file(folder)

    def epoch(number: int) -> Iterator[Pair]:
        for numbers in batches_of_numbers(n, workload.batch, order, number):
            if order == "shuffled":
                yield gathered(x, numbers), gathered(y, numbers)
            else:
                part = slice(numbers[0], numbers[-1] + 1)
                yield x[part], y[part]

    return epoch


def at_once(data: Any) -> bool:
    """Whether one read of many numbers, which must rise, is quicker than one for each; as measured."""
    nbytes = math.prod(data.shape[1:]) * data.dtype.itemsize
    return nbytes < (256 if data.chunks else 64 << 10)


def gathered(data: Any, numbers: np.ndarray) -> np.ndarray:
    out = np.empty((len(numbers), *data.shape[1:]), data.dtype)
    if at_once(data):
        rows = np.argsort(numbers)
        out[rows] = data[numbers[rows]]
    else:
        for row, number in enumerate(numbers.tolist()):
            out[row] = data[number]
    return out


def into_buffers(workload: Workload, folder: Path, order: Order) -> Epochs:
    x, y, n = open_file(folder)
    buffers, scratch = Buffers(workload), Buffers(workload, 1).next()

    def epoch(number: int) -> Iterator[Pair]:
        for numbers in batches_of_numbers(n, workload.batch, order, number):
            batch = buffers.next()
            for data, to, unsorted in zip((x, y), batch, scratch, strict=True):
                if order == "sequential":
                    data.read_direct(to, np.s_[numbers[0] : numbers[-1] + 1])
                elif at_once(data):
                    rows = np.argsort(numbers)
                    data.read_direct(unsorted, numbers[rows])
                    to[rows] = unsorted
                else:
                    for row, record in enumerate(numbers.tolist()):
                        data.read_direct(to, record, row)
            yield batch

    return epoch


_SLICES = Shuffle("dataset[random numbers], sorted or one by one", True)
_DIRECT = Shuffle("read_direct of random numbers, sorted or one by one", True)
CONTENDERS = [
    Contender("h5py, contiguous, slices", "peers", "h5py-contiguous", write(False), slices, _SLICES),
    Contender(
        "h5py, contiguous, read_direct",
        "peers",
        "h5py-contiguous",
        write(False),
        into_buffers,
        _DIRECT,
        device_ready=True,
    ),
    Contender("h5py, chunks of 1 MiB, slices", "peers", "h5py-chunks", write(True), slices, _SLICES),
]
