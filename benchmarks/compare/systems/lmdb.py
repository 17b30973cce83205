"""LMDB: one key a record, the arrays' bytes behind it; by hand, and PyTorch's ``DataLoader`` over it."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..contenders import Contender, Epochs, Order, Shuffle
from ..memory import Buffers
from ..workloads import Pair, Records, Workload
from .memmap import batches_of_numbers, data_loader

_DATABASE = b"records"
_LARGE = 64 << 10  # records from here on are copied one by one, smaller ones are joined first
_OPENED: dict[tuple[int, Path, bool], tuple[Any, Any]] = {}


def key(number: int) -> bytes:
    """What ``integerkey=True`` wants: a C integer."""
    return number.to_bytes(4, sys.byteorder)


def write(workload: Workload, records: Records, folder: Path) -> None:
    """Keys ascend, so they are appended; a transaction every few MiB, and the disk is waited for at the end."""
    import lmdb

    first, nbytes = 0, workload.record_nbytes
    # A map far larger than the file costs nothing on 64 bits; nothing secret is in the memory that is not cleared.
    with lmdb.open(str(folder), map_size=1 << 40, max_dbs=1, sync=False, meminit=False) as environment:
        database = environment.open_db(_DATABASE, integerkey=True)
        for x, y in records.chunks():
            n = len(x)
            both = np.concatenate([array.reshape(n, -1).view(np.uint8) for array in (x, y)], axis=1)
            values = both.data.cast("B")
            items = [(key(first + row), values[row * nbytes : (row + 1) * nbytes]) for row in range(n)]
            with environment.begin(database, write=True) as transaction, transaction.cursor() as cursor:
                cursor.putmulti(items, append=True)
            first += n
        environment.sync(True)


def transaction(folder: Path, readahead: bool) -> Any:
    """A read transaction whose values are memory of the map: one in each process, as LMDB does not survive a fork."""
    import lmdb

    me = (os.getpid(), folder, readahead)
    if me not in _OPENED:
        environment = lmdb.open(
            str(folder), max_dbs=1, readonly=True, lock=False, meminit=False, readahead=readahead, create=False
        )
        database = environment.open_db(_DATABASE, integerkey=True, create=False)
        _OPENED[me] = environment, environment.begin(database, buffers=True)
    return _OPENED[me][1]


def reads_ahead(workload: Workload, order: Order) -> bool:
    """LMDB advises against it for random reads of what does not fit into memory, and only there."""
    return order == "sequential" or workload.memory_nbytes is None


def n_records(folder: Path) -> int:
    """Asked without leaving anything open, as a process may open a database once, and workers must not inherit it."""
    import lmdb

    while _OPENED:
        _, (environment, reading) = _OPENED.popitem()
        reading.abort()
        environment.close()
    with lmdb.open(str(folder), max_dbs=1, readonly=True, lock=False, create=False) as environment:
        database = environment.open_db(_DATABASE, integerkey=True, create=False)
        with environment.begin() as asking:
            return asking.stat(database)["entries"]


def copy(workload: Workload, values: Sequence[memoryview], to_x: np.ndarray, to_y: np.ndarray) -> None:
    """Values of records into the arrays of a batch, which they fill."""
    (x_shape, x_dtype), (y_shape, y_dtype) = workload.x, workload.y
    if workload.record_nbytes < _LARGE:
        record = np.dtype([("x", x_dtype, x_shape), ("y", y_dtype, y_shape)])
        joined = np.frombuffer(b"".join(values), record)
        to_x[...], to_y[...] = joined["x"], joined["y"]
    else:
        for row, value in enumerate(values):
            to_x[row] = np.frombuffer(value[: workload.x_nbytes], x_dtype).reshape(x_shape)
            to_y[row] = np.frombuffer(value[workload.x_nbytes :], y_dtype).reshape(y_shape)


def by_hand(workload: Workload, folder: Path, order: Order) -> Epochs:
    """A cursor goes through the records in order, with the kernel reading ahead; shuffled ones are looked up by key."""
    total, size = n_records(folder), workload.batch
    reading = transaction(folder, reads_ahead(workload, order))
    buffers = Buffers(workload)

    def epoch(number: int) -> Iterator[Pair]:
        with reading.cursor() as cursor:
            following = cursor.iternext(keys=False)
            for numbers in batches_of_numbers(total, size, order, number):
                if order == "sequential":
                    values = list(itertools.islice(following, size))
                else:
                    values = [reading.get(key(each)) for each in numbers.tolist()]
                to_x, to_y = buffers.next()
                copy(workload, values, to_x, to_y)
                yield to_x, to_y

    return epoch


class ByRecord:
    """A map-style data set; every process opens the database when it reads for the first time."""

    def __init__(self, workload: Workload, folder: Path, order: Order) -> None:
        self.workload, self.folder, self.readahead = workload, folder, reads_ahead(workload, order)
        self.n_records = n_records(folder)

    def __len__(self) -> int:
        return self.n_records

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        import torch

        (x_shape, x_dtype), (y_shape, y_dtype) = self.workload.x, self.workload.y
        value, split = bytearray(transaction(self.folder, self.readahead).get(key(index))), self.workload.x_nbytes
        x = np.frombuffer(memoryview(value)[:split], x_dtype).reshape(x_shape)
        y = np.frombuffer(memoryview(value)[split:], y_dtype).reshape(y_shape)
        return torch.from_numpy(x), torch.from_numpy(y)


class ByBatch(ByRecord):
    """The same by batch of record numbers."""

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        import torch

        (x_shape, x_dtype), (y_shape, y_dtype) = self.workload.x, self.workload.y
        reading = transaction(self.folder, self.readahead)
        x, y = np.empty((len(index), *x_shape), x_dtype), np.empty((len(index), *y_shape), y_dtype)
        copy(self.workload, [reading.get(key(number)) for number in index], x, y)
        return torch.from_numpy(x), torch.from_numpy(y)


def loader(batched: bool, workers: int) -> Callable[[Workload, Path, Order], Epochs]:
    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        data = (ByBatch if batched else ByRecord)(workload, folder, order)
        feed = data_loader(data, order, workload.batch, batched, workers)
        return lambda number: feed

    return open_


CONTENDERS = [
    Contender(
        "LMDB, by hand into aligned buffers",
        "peers",
        "lmdb",
        write,
        by_hand,
        Shuffle("np.random.shuffle of all keys", True),
        device_ready=True,
        kind="loop",
        note="one integer key a record, both arrays' bytes in one value",
    ),
    *(
        Contender(
            f"LMDB, DataLoader by {'batch' if batched else 'record'}, {workers} workers",
            "peers",
            "lmdb",
            write,
            loader(batched, workers),
            Shuffle("RandomSampler", True),
        )
        for batched in (True, False)
        for workers in (0, 2)
    ),
]
