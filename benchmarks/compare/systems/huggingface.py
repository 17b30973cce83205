"""Hugging Face Datasets: Arrow files in memory maps, formatted as NumPy arrays or tensors, or read by hand."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..contenders import Contender, Epochs, Order, Shuffle
from ..memory import Buffers
from ..workloads import Pair, Records, Workload
from .memmap import batches_of_numbers, gather

_PIECE = 64 << 20
_DTYPE = "dtype=None, or else the format silently makes float64 float32 and every integer int64"


def library(folder: Path) -> Any:
    """The package, without network and with its caches where the data is."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    os.environ["HF_HOME"] = str(folder / "home")
    import datasets

    return datasets


def write(flat: bool) -> Callable[[Workload, Records, Path], None]:
    """With features of fixed shapes, or with flat lists instead of the arrays that have several axes."""

    def feature(shape: tuple[int, ...], dtype: str) -> Any:
        import datasets

        if len(shape) < 2 or flat:
            return datasets.List(datasets.Value(dtype), length=math.prod(shape)) if shape else datasets.Value(dtype)
        return getattr(datasets, f"Array{len(shape)}D")(shape, dtype)

    def write_(workload: Workload, records: Records, folder: Path) -> None:
        """Record batches of 64 MiB, by the writer to which ``from_generator`` gives single records, which is slower."""
        datasets = library(folder)
        from datasets.arrow_writer import ArrowWriter

        features = datasets.Features({"x": feature(*workload.x), "y": feature(*workload.y)})
        piece = max(1, _PIECE // workload.record_nbytes)
        with ArrowWriter(features=features, path=str(folder / "data.arrow"), writer_batch_size=piece) as writer:
            pending: list[Pair] = []
            for x, y in records.chunks():
                pending.append((x.reshape(len(x), -1), y.reshape(len(y), -1) if y.ndim > 1 else y) if flat else (x, y))
                if sum(len(each) for each, _ in pending) >= piece:
                    put(writer, pending)
            put(writer, pending)
            writer.finalize()

    return write_


def put(writer: Any, pending: list[Pair]) -> None:
    if pending:
        x, y = (np.concatenate(arrays) for arrays in zip(*pending, strict=True))
        writer.write_batch({"x": x, "y": y})
        pending.clear()


def opened(folder: Path) -> Any:
    return library(folder).Dataset.from_file(str(folder / "data.arrow"))


def iterated(workload: Workload, folder: Path, order: Order) -> Epochs:
    """``Dataset.iter``, shuffled by an indices mapping that is kept in memory instead of a new file for every epoch."""
    data = opened(folder).with_format("numpy", dtype=None)

    def epoch(number: int) -> Iterator[Any]:
        feed = data.shuffle(seed=number, keep_in_memory=True) if order == "shuffled" else data
        for batch in feed.iter(workload.batch, drop_last_batch=True):
            yield batch["x"], batch["y"]

    return epoch


def indexed(workload: Workload, folder: Path, order: Order) -> Epochs:
    """A slice, or as many record numbers as a batch has, in brackets."""
    data = opened(folder).with_format("numpy", dtype=None)

    def epoch(number: int) -> Iterator[Any]:
        for numbers in batches_of_numbers(len(data), workload.batch, order, number):
            batch = data[numbers if order == "shuffled" else slice(int(numbers[0]), int(numbers[-1]) + 1)]
            yield batch["x"].reshape(-1, *workload.x[0]), batch["y"].reshape(-1, *workload.y[0])

    return epoch


def view(column: Any, shape: tuple[int, ...]) -> np.ndarray:
    """An Arrow array of nested lists of one shape as an array, without a copy."""
    n, values = len(column), getattr(column, "storage", column)
    for _ in shape:
        values = values.flatten()
    return values.to_numpy().reshape(n, *shape)


def by_hand(workload: Workload, folder: Path, order: Order) -> Epochs:
    """Views of the memory-mapped record batches, from which batches are put together."""
    pieces = opened(folder).data.table.to_batches()
    views = [(view(piece.column("x"), workload.x[0]), view(piece.column("y"), workload.y[0])) for piece in pieces]
    starts = np.cumsum([0] + [len(piece) for piece in pieces])
    buffers = Buffers(workload)

    def epoch(number: int) -> Iterator[Pair]:
        for numbers in batches_of_numbers(int(starts[-1]), workload.batch, order, number):
            where = np.searchsorted(starts, numbers, side="right") - 1
            batch = buffers.next()
            for piece in np.unique(where).tolist():
                rows = np.flatnonzero(where == piece)
                inside = numbers[rows] - starts[piece]
                for to, values in zip(batch, views[piece], strict=True):
                    if order == "sequential":
                        to[rows[0] : rows[-1] + 1] = values[inside[0] : inside[-1] + 1]
                    elif len(rows) == len(numbers):
                        gather(values, inside, to)
                    elif values[0].nbytes < 64 << 10:
                        to[rows] = values[inside]
                    else:
                        for row, one in zip(rows.tolist(), inside.tolist(), strict=True):
                            to[row] = values[one]
            yield batch

    return epoch


def streamed(workload: Workload, folder: Path, order: Order) -> Epochs:
    """Shards in any order through a buffer of records, which the documentation recommends as an exact shuffle is slow.

    Its NumPy format has no ``dtype``, so the batches are Arrow tables.
    """
    data = opened(folder)
    feed = data.to_iterable_dataset(num_shards=min(64, len(data) // workload.batch)).with_format("arrow")
    if order == "shuffled":
        feed = feed.shuffle(seed=0, buffer_size=min(10_000, max(workload.batch, (256 << 20) // workload.record_nbytes)))

    def epoch(number: int) -> Iterator[Pair]:
        feed.set_epoch(number)
        for table in feed.iter(workload.batch, drop_last_batch=True):
            x, y = table.column("x"), table.column("y")
            xs, ys = [view(each, workload.x[0]) for each in x.chunks], [view(each, workload.y[0]) for each in y.chunks]
            yield xs[0] if len(xs) == 1 else np.concatenate(xs), ys[0] if len(ys) == 1 else np.concatenate(ys)

    return epoch


def loader(batched: bool, workers: int) -> Callable[[Workload, Path, Order], Epochs]:
    """Tensors, by record as the documentation has it, or by batch, which saves putting records together again."""

    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        data = opened(folder).with_format("torch", dtype=None)
        from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

        sampler: Any = RandomSampler(data) if order == "shuffled" else SequentialSampler(data)
        kept = {"num_workers": workers, "persistent_workers": workers > 0}
        if batched:
            feed = DataLoader(data, sampler=BatchSampler(sampler, workload.batch, True), batch_size=None, **kept)
        else:
            feed = DataLoader(data, sampler=sampler, batch_size=workload.batch, drop_last=True, **kept)
        return lambda number: ((batch["x"], batch["y"]) for batch in feed)

    return open_


_SHUFFLE = Shuffle("Dataset.shuffle(seed)", True)
_NUMBERS = Shuffle("np.random.shuffle of all numbers", True)
_SAMPLER = Shuffle("RandomSampler", True)
_BUFFER = Shuffle("IterableDataset.shuffle: 64 shards, a buffer of 256 MiB and at most 10,000 records", False)
CONTENDERS = [
    *(
        Contender(
            f"HF Datasets, {name}",
            "peers",
            "huggingface",
            write(False),
            open_,
            shuffle,
            device_ready=ready,
            kind="loop" if ready else "loader",
            note=note,
        )
        for name, open_, shuffle, ready, note in (
            ("iter of NumPy arrays", iterated, _SHUFFLE, False, _DTYPE),
            ("NumPy arrays by index", indexed, _NUMBERS, False, _DTYPE),
            ("Arrow by hand into aligned buffers", by_hand, _NUMBERS, True, ""),
            ("IterableDataset", streamed, _BUFFER, False, "Arrow tables, as its NumPy format has no dtype"),
            *(
                (f"DataLoader by {by}, {workers} workers", loader(by == "batch", workers), _SAMPLER, False, _DTYPE)
                for by in ("batch", "record")
                for workers in (0, 2)
            ),
        )
    ),
    Contender(
        "HF Datasets, NumPy arrays by index, stored as flat lists",
        "peers",
        "huggingface-flat",
        write(True),
        indexed,
        _NUMBERS,
        workloads=("images", "pairs", "digits", "volumes", "large-pairs"),
        note="not as documented; Array2D and Array3D cost more for every record looked up, which shows if it is small",
    ),
]
