"""Plain files of arrays behind ``np.memmap``: the machine's limits, and PyTorch's ``DataLoader`` over them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..contenders import Contender, Epochs, Order, Shuffle
from ..memory import Buffers
from ..workloads import Pair, Records, Workload


def write(workload: Workload, records: Records, folder: Path) -> None:
    with (folder / "x.bin").open("wb") as x_file, (folder / "y.bin").open("wb") as y_file:
        for x, y in records.chunks():
            for file, array in ((x_file, x), (y_file, y)):
                memory = array.reshape(-1).data.cast("B")
                for start in range(0, len(memory), 1 << 20):  # in larger pieces it is slower on some systems
                    file.write(memory[start : start + (1 << 20)])


def arrays(workload: Workload, folder: Path) -> tuple[np.memmap, np.memmap]:
    (x_shape, x_dtype), (y_shape, y_dtype) = workload.x, workload.y
    return (
        np.memmap(folder / "x.bin", x_dtype, "r").reshape(-1, *x_shape),
        np.memmap(folder / "y.bin", y_dtype, "r").reshape(-1, *y_shape),
    )


def batches_of_numbers(n: int, size: int, order: Order, epoch: int) -> Iterator[np.ndarray]:
    numbers = np.arange(n)
    if order == "shuffled":
        np.random.default_rng(epoch).shuffle(numbers)
    for first in range(0, n - size + 1, size):
        yield numbers[first : first + size]


def take(workload: Workload, folder: Path, order: Order) -> Epochs:
    """What a careful person writes with NumPy alone: no file format, no checks, no order to resume."""
    x, y = (np.asarray(array) for array in arrays(workload, folder))
    buffers = Buffers(workload)

    def epoch(number: int) -> Iterator[Pair]:
        for numbers in batches_of_numbers(len(x), workload.batch, order, number):
            to_x, to_y = buffers.next()
            gather(x, numbers, to_x)
            np.take(y, numbers, axis=0, out=to_y, mode="clip")
            yield to_x, to_y

    return epoch


def take_with_two_threads(workload: Workload, folder: Path, order: Order) -> Epochs:
    """The same with a batch in the making by each of two threads while another is handed over."""
    x, y = (np.asarray(array) for array in arrays(workload, folder))
    pool, buffers = ThreadPoolExecutor(2), Buffers(workload, 4)

    def gathered(numbers: np.ndarray, to: Pair) -> Pair:
        gather(x, numbers, to[0])
        np.take(y, numbers, axis=0, out=to[1], mode="clip")
        return to

    def epoch(number: int) -> Iterator[Pair]:
        making: deque[Future[Pair]] = deque()
        for numbers in batches_of_numbers(len(x), workload.batch, order, number):
            making.append(pool.submit(gathered, numbers, buffers.next()))
            if len(making) == 3:  # the fourth pair of buffers is with the consumer
                yield making.popleft().result()
        while making:
            yield making.popleft().result()

    return epoch


def gather(array: np.ndarray, numbers: np.ndarray, out: np.ndarray) -> None:
    """``np.take``; or for large records a loop of copies, where that is the quicker of the two."""
    if array[0].nbytes < 64 << 10:
        np.take(array, numbers, axis=0, out=out, mode="clip")
    else:
        for row, number in enumerate(numbers.tolist()):
            out[row] = array[number]


def copy(workload: Workload, folder: Path, order: Order) -> Epochs:
    """One batch after another into buffers: what one thread can do."""
    x, y = (np.asarray(array) for array in arrays(workload, folder))
    buffers = Buffers(workload)
    size = workload.batch

    def epoch(number: int) -> Iterator[Pair]:
        for first in range(0, len(x) - size + 1, size):
            yield _copied(x, y, first, buffers.next())

    return epoch


def copy_with_two_threads(workload: Workload, folder: Path, order: Order) -> Epochs:
    """The same by two threads, each a stretch of batches at a time: to hand over one costs more than it."""
    x, y = (np.asarray(array) for array in arrays(workload, folder))
    buffers = Buffers(workload)
    pool = ThreadPoolExecutor(2)
    size = workload.batch
    n_batches = len(x) // size
    n_together = max(1, min(n_batches // 2, (64 << 20) // (size * workload.record_nbytes)))

    def stretch(begin: int, pair: Pair) -> Pair:
        for batch in range(begin, min(begin + n_together, n_batches)):
            _copied(x, y, batch * size, pair)
        return pair

    def epoch(number: int) -> Iterator[Pair]:
        begins = list(range(0, n_batches, n_together))
        for two in (begins[i : i + 2] for i in range(0, len(begins), 2)):
            pairs = pool.map(stretch, two, [buffers.next() for _ in two])
            for begin, pair in zip(two, pairs, strict=True):
                for _ in range(begin, min(begin + n_together, n_batches)):
                    yield pair

    return epoch


def _copied(x: np.ndarray, y: np.ndarray, first: int, to: Pair) -> Pair:
    size = len(to[0])
    np.copyto(to[0], x[first : first + size])
    np.copyto(to[1], y[first : first + size])
    return to


def in_memory(workload: Workload, folder: Path, order: Order) -> Epochs:
    """Arrays in memory, indexed by a shuffled list: what people do whose data fit."""
    x, y = (np.array(array) for array in arrays(workload, folder))

    def epoch(number: int) -> Iterator[Pair]:
        for numbers in batches_of_numbers(len(x), workload.batch, order, number):
            yield x[numbers], y[numbers]

    return epoch


def one_batch(workload: Workload, folder: Path, order: Order) -> Epochs:
    """The same batch over and over: training that never waits."""
    batch = workload.make(0, workload.batch)
    return lambda number: [batch] * (workload.n_records // workload.batch)


class Memmap:
    """What people write who have arrays on disk: a map-style data set, by record or by batch of record numbers."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        self.x, self.y = arrays(workload, folder)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        import torch

        # A record is a view of the file, which PyTorch must not write to; a batch by its numbers is a copy already.
        own = np.asarray if isinstance(index, list) else np.array
        return torch.from_numpy(own(self.x[index])), torch.from_numpy(own(self.y[index]))


def loader(batched: bool, workers: int) -> Callable[[Workload, Path, Order], Epochs]:
    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        feed = data_loader(Memmap(workload, folder), order, workload.batch, batched, workers)
        return lambda number: feed

    return open_


def data_loader(data: Any, order: Order, size: int, batched: bool, workers: int) -> Any:
    """PyTorch's, over something that gives a record for its number, or a batch for a list of numbers."""
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

    sampler = RandomSampler(data) if order == "shuffled" else SequentialSampler(data)
    kept = {"num_workers": workers, "persistent_workers": workers > 0}
    if batched:
        return DataLoader(data, sampler=BatchSampler(sampler, size, drop_last=True), batch_size=None, **kept)
    return DataLoader(data, sampler=sampler, batch_size=size, drop_last=True, **kept)


_TAKE = Shuffle("np.random.shuffle of all numbers", True)
_UNSHUFFLED = Shuffle("none: what copying takes by itself", False)
_SAMPLER = Shuffle("RandomSampler", True)
CONTENDERS = [
    *(
        Contender(name, "peers", "memmap", write, open_, shuffle, device_ready=True, kind="limit")
        for name, open_, shuffle in (
            ("one copy", copy, _UNSHUFFLED),
            ("one copy, two threads", copy_with_two_threads, None),
            ("np.take into aligned buffers", take, _TAKE),
            ("np.take into aligned buffers, two threads", take_with_two_threads, _TAKE),
        )
    ),
    Contender("arrays in memory, x[numbers]", "peers", "memmap", write, in_memory, _TAKE, kind="limit", in_memory=True),
    Contender("one batch over and over", "peers", "memmap", write, one_batch, _TAKE, kind="limit", only_trains=True),
    *(
        Contender(
            f"DataLoader over np.memmap, by {'batch' if batched else 'record'}, {workers} workers",
            "peers",
            "memmap",
            write,
            loader(batched, workers),
            _SAMPLER,
        )
        for batched in (True, False)
        for workers in (0, 2)
    ),
]
