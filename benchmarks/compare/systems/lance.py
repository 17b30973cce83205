"""Lance: columns of fixed-size lists; by hand, its PyTorch data sets, and LanceDB's, which read the same files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..contenders import Contender, Epochs, Order, Shuffle
from ..memory import Buffers
from ..workloads import Pair, Records, Workload
from .memmap import batches_of_numbers

_NAME = "data.lance"
#: LanceDB sorts what it shuffles, in 100 MB unless told otherwise, which eight million records do not fit.
_SORT_NBYTES = 4 << 30


def write(workload: Workload, records: Records, folder: Path) -> None:
    """As a stream, with the library's settings: the stable format, and 2**20 rows a file."""
    import lance
    import pyarrow as pa

    def type_(shape: tuple[int, ...], dtype: str) -> Any:
        value = pa.from_numpy_dtype(dtype)
        return pa.list_(pa.field("item", value, nullable=False), math.prod(shape)) if shape else value

    def column(array: np.ndarray, type_: Any) -> Any:
        values = pa.array(array.reshape(-1))
        return pa.FixedSizeListArray.from_arrays(values, type=type_) if array.ndim > 1 else values

    types = type_(*workload.x), type_(*workload.y)
    schema = pa.schema([pa.field(name, each, nullable=False) for name, each in zip("xy", types, strict=True)])
    batches = (
        pa.RecordBatch.from_arrays(
            [column(array, each) for array, each in zip(pair, types, strict=True)], schema=schema
        )
        for pair in records.chunks()
    )
    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches), str(folder / _NAME))


def views(workload: Workload, batch: Any) -> Pair:
    """Columns of an Arrow batch, or of a table of one, as arrays, without a copy."""
    columns = [batch.column(name) for name in "xy"]
    columns = [each.combine_chunks() if hasattr(each, "chunks") else each for each in columns]
    shapes = workload.x[0], workload.y[0]
    return tuple(  # pyright: ignore[reportReturnType]
        (each.flatten() if shape else each).to_numpy().reshape(-1, *shape)
        for each, shape in zip(columns, shapes, strict=True)
    )


def take(workload: Workload, data: Any, numbers: np.ndarray, to_x: np.ndarray, to_y: np.ndarray) -> None:
    """Any records: asked for in ascending order, or else the library copies them once more to put them in order."""
    ascending = np.argsort(numbers)
    to_x[ascending], to_y[ascending] = views(workload, data.take(numbers[ascending]))


def by_hand(scheme: str) -> Callable[[Workload, Path, Order], Epochs]:
    """Scanned in order, or taken by number; ``file+uring://`` reads the same files through io_uring."""

    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        import lance

        data = lance.dataset(scheme + str(folder / _NAME))
        total, buffers = data.count_rows(), Buffers(workload)

        def epoch(number: int) -> Iterator[Pair]:
            if order == "sequential":
                for batch in data.to_batches(batch_size=workload.batch):
                    to_x, to_y = (array[: batch.num_rows] for array in buffers.next())
                    to_x[...], to_y[...] = views(workload, batch)
                    yield to_x, to_y
            else:
                for numbers in batches_of_numbers(total, workload.batch, order, number):
                    pair = buffers.next()
                    take(workload, data, numbers, *pair)
                    yield pair

        return epoch

    return open_


def iterable(workload: Workload, folder: Path, order: Order) -> Epochs:
    """``LanceDataset`` gives whole batches, which the library's threads read ahead; no worker processes for that."""
    import lance
    from lance.sampler import ShardedBatchSampler
    from lance.torch.data import LanceDataset

    data = lance.dataset(str(folder / _NAME))

    def epoch(number: int) -> Iterator[Any]:
        sampler = ShardedBatchSampler(0, 1, randomize=True, seed=number) if order == "shuffled" else None
        for batch in LanceDataset(data, workload.batch, sampler=sampler):
            yield batch["x"].reshape(-1, *workload.x[0]), batch["y"].reshape(-1, *workload.y[0])

    return epoch


class Taken:
    """A map-style data set like ``SafeLanceDataset``, but of arrays instead of lists of Python's numbers."""

    def __init__(self, workload: Workload, path: str, n_records: int) -> None:
        self.workload, self.path, self.n_records = workload, path, n_records
        self.data: Any = None

    def __len__(self) -> int:
        return self.n_records

    def __getitems__(self, indices: Sequence[int]) -> tuple[Any, Any]:
        import lance
        import torch

        self.data = self.data or lance.dataset(self.path)
        shapes = [(len(indices), *shape) for shape in (self.workload.x[0], self.workload.y[0])]
        x, y = np.empty(shapes[0], self.workload.x[1]), np.empty(shapes[1], self.workload.y[1])
        take(self.workload, self.data, np.array(indices), x, y)
        return torch.from_numpy(x), torch.from_numpy(y)


class Collate:
    """Batches: those of ``Taken`` are ready; lists of numbers get the dtypes that were written."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    def __call__(self, rows: Any) -> tuple[Any, Any]:
        """One batch."""
        import torch

        if isinstance(rows, tuple):
            return rows
        (x_shape, x_dtype), (y_shape, y_dtype) = self.workload.x, self.workload.y
        x, y = (np.array([row[name] for row in rows], dtype) for name, dtype in (("x", x_dtype), ("y", y_dtype)))
        return torch.from_numpy(x.reshape(-1, *x_shape)), torch.from_numpy(y.reshape(-1, *y_shape))


def loader(safe: bool) -> Callable[[Workload, Path, Order], Epochs]:
    """The library's loader with two workers, which it spawns, as it does not survive a fork."""

    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        from lance.torch.data import SafeLanceDataset, get_safe_loader

        path = str(folder / _NAME)
        data: Any = SafeLanceDataset(path)
        data = data if safe else Taken(workload, path, len(data))
        more = {"shuffle": order == "shuffled", "drop_last": True, "collate_fn": Collate(workload)}
        feed = get_safe_loader(data, workload.batch, num_workers=2, **more)
        return lambda number: feed

    return open_


def permutation(workload: Workload, folder: Path, order: Order) -> Epochs:
    """Arrow batches of a ``Permutation``, a new one for every epoch."""
    import lancedb
    from lancedb.permutation import Permutation, permutation_builder

    os.environ["LANCEDB_PERM_BUILDER_MEMORY_LIMIT"] = str(_SORT_NBYTES)
    table = lancedb.connect(str(folder)).open_table("data")

    def epoch(number: int) -> Iterator[Pair]:
        chosen = permutation_builder(table).shuffle(seed=number).execute() if order == "shuffled" else None
        feed = Permutation.from_tables(table, chosen).with_format("arrow")
        for batch in feed.iter(workload.batch, skip_last_batch=True):
            yield views(workload, batch)

    return epoch


def streaming(workload: Workload, folder: Path, order: Order) -> Epochs:
    """``StreamingDataset`` in a ``DataLoader`` without workers, as recommended: its threads read whole batches."""
    import warnings

    import lancedb
    import torch
    from lancedb.streaming import StreamingDataset

    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor does anybody write to it
    os.environ["LANCEDB_PERM_BUILDER_MEMORY_LIMIT"] = str(_SORT_NBYTES)
    table = lancedb.connect(str(folder)).open_table("data")

    def rows(batch: Any) -> list[tuple[Any, Any]]:
        return list(zip(*(torch.from_numpy(array) for array in views(workload, batch)), strict=True))

    def epoch(number: int) -> Iterable[Any]:
        shuffle: dict[str, Any] = {"shuffle": order == "shuffled", "shuffle_seed": 1, "epoch": number}
        data = StreamingDataset(table, read_batch_size=workload.batch, transform=rows, **shuffle)
        return torch.utils.data.DataLoader(data, workload.batch, drop_last=True)

    return epoch


_NUMBERS = Shuffle("np.random.shuffle of all numbers", True)
_BATCHES = Shuffle("ShardedBatchSampler(randomize=True): batches in any order", False)
_SAMPLER = Shuffle("RandomSampler", True)
_LISTS = "records become lists of Python's numbers; collate_fn gives back the dtypes, which would be float64 and int64"
_URING = "the library has it, its guide does not tell of it; Linux only, where io_uring is allowed"
_ORDER = "with shuffle=False it does not quite keep the order of the file"
CONTENDERS = [
    Contender(
        name, "peers", "lance", write, open_, shuffle, device_ready=ready, kind="loop" if ready else "loader", note=note
    )
    for name, open_, shuffle, ready, note in (
        ("Lance, by hand into aligned buffers", by_hand(""), _NUMBERS, True, ""),
        ("Lance, by hand over io_uring into aligned buffers", by_hand("file+uring://"), _NUMBERS, True, _URING),
        ("Lance, LanceDataset", iterable, _BATCHES, False, ""),
        ("Lance, take in a DataLoader, 2 workers", loader(False), _SAMPLER, False, ""),
        ("Lance, SafeLanceDataset, 2 workers", loader(True), _SAMPLER, False, _LISTS),
        ("LanceDB, Permutation", permutation, Shuffle("permutation_builder.shuffle(seed)", True), False, ""),
        ("LanceDB, StreamingDataset", streaming, Shuffle("StreamingDataset(shuffle=True)", True), False, _ORDER),
    )
]
