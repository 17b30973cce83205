"""ArrayRecord: by hand and with Grain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..contenders import Contender, Epochs, Order, Shuffle
from ..workloads import Pair, Records, Workload

#: Records of a file to read batches from; a multiple of every batch.
FILE = 1 << 20


def write(small: bool) -> Callable[[Workload, Records, Path], None]:
    """Records are their arrays' bytes, each on its own (``group_size:1``) as Grain wants it, and not compressed.

    Args:
        small: Whether to make small files, but not more than a process may open. Asking a file for one record, as Grain
            does, or for some takes time in proportion to all that it has; batches come quicker from a few large files.
    """

    def write_(workload: Workload, records: Records, folder: Path) -> None:
        from array_record.python.array_record_module import ArrayRecordWriter

        per_file = max(4096, -(-workload.n_records // 512)) if small else FILE
        writer: Any = None
        for number, (x, y) in enumerate(records):
            if number % per_file == 0:
                if writer is not None:
                    writer.close()
                path = folder / f"data-{number // per_file:05d}.array_record"
                writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
            writer.write(x.tobytes() + y.tobytes())
        writer.close()

    return write_


def source(folder: Path) -> Any:
    import grain

    return grain.sources.ArrayRecordDataSource(sorted(str(path) for path in folder.glob("*.array_record")))


def by_batch(workload: Workload, folder: Path, order: Order) -> Epochs:
    """The records of a batch are asked for at once, which reads them in parallel, and decoded at once."""
    from array_record.python.array_record_module import ArrayRecordReader

    records, size = source(folder), workload.batch
    readers = [ArrayRecordReader(path) for path in records.paths]
    dtype = np.dtype([("x", workload.x[1], workload.x[0]), ("y", workload.y[1], workload.y[0])])

    def epoch(number: int) -> Iterator[Pair]:
        n = len(records)
        numbers = np.random.default_rng(number).permutation(n).tolist() if order == "shuffled" else []
        for first in range(0, n - size + 1, size):
            if numbers:
                taken = records.__getitems__(numbers[first : first + size])
            else:
                taken = readers[first // FILE].read(first % FILE, first % FILE + size)
            batch = np.frombuffer(b"".join(taken), dtype)
            yield batch["x"], batch["y"]

    return epoch


def decoder(workload: Workload) -> Any:
    import grain

    (x_shape, x_dtype), (y_shape, y_dtype) = workload.x, workload.y
    n_x, n_y, x_nbytes = math.prod(x_shape), math.prod(y_shape), workload.x_nbytes

    class Decode(grain.transforms.Map):
        def map(self, element: bytes) -> Pair:
            x, y = np.frombuffer(element, x_dtype, n_x), np.frombuffer(element, y_dtype, n_y, x_nbytes)
            return x.reshape(x_shape), y.reshape(y_shape)

    return Decode()


def data_loader(workers: int, own: bool = True) -> Callable[[Workload, Path, Order], Epochs]:
    """``DataLoader``, which Grain recommends wherever it suffices.

    Args:
        workers: Processes.
        own: Whether to choose threads and read-ahead for data in memory or on a local disk. Grain's own, 16 threads and
            500 records, are meant for disks at the other end of a network.
    """

    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        import grain

        records, size, is_shuffled = source(folder), workload.batch, order == "shuffled"
        # whole batches of every worker, as they take records in turn: none goes over the end of an epoch
        n_batches = len(records) // size // max(1, workers) * max(1, workers)
        # no threads for data in memory, says Grain: to hand a small record over takes longer than to read it
        threads = 2 if workload.record_nbytes >= 64 << 10 and not workers else 0
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * size) if own else grain.ReadOptions()

        def begin(number: int) -> Any:
            sampler = grain.samplers.IndexSampler(
                n_batches * size, shuffle=is_shuffled, seed=number if is_shuffled else None
            )
            return grain.DataLoader(
                data_source=records,
                sampler=sampler,
                operations=[decoder(workload), grain.transforms.Batch(size, drop_remainder=True)],
                worker_count=workers,
                worker_buffer_size=2,
                read_options=options,
            )

        return endless(begin, n_batches)

    return open_


def map_dataset(workers: int) -> Callable[[Workload, Path, Order], Epochs]:
    """``MapDataset``: batches are made by two threads, or by workers."""

    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        import grain

        records = source(folder)
        # elements are batches here
        options = grain.ReadOptions(num_threads=0 if workers else 2, prefetch_buffer_size=4)

        def begin(number: int) -> Any:
            data = grain.MapDataset.source(records)
            data = data.shuffle(seed=number) if order == "shuffled" else data
            data = data.map(decoder(workload)).batch(workload.batch, drop_remainder=True).repeat()
            feed = data.to_iter_dataset(options)
            return feed.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=2))

        return endless(begin, len(records) // workload.batch)

    return open_


def endless(begin: Callable[[int], Any], n_batches: int) -> Epochs:
    """Epochs of one iterator without end, so that workers go on. It is closed when an epoch is left half-way."""
    kept: list[Any] = []

    def epoch(number: int) -> Iterator[Any]:
        batches = kept.pop() if kept else iter(begin(number))
        try:
            for _ in range(n_batches):
                yield next(batches)
            kept.append(batches)
        finally:
            if not kept and hasattr(batches, "close"):  # DataLoader's closes when it is deleted
                batches.close()

    return epoch


_TAKE = Shuffle("permutation of all numbers", True)
_SAMPLER = Shuffle("IndexSampler(shuffle=True)", True)
_SHUFFLE = Shuffle("MapDataset.shuffle", True)
_IN_TURN = "In order, a worker's batch holds every second record."
CONTENDERS = [
    Contender(
        name,
        "grain",
        files,
        write(files == "array_record_small"),
        open_,
        shuffle,
        note=note,
        kind="loop" if open_ is by_batch else "loader",
    )
    for name, files, open_, shuffle, note in (
        ("ArrayRecord, by hand", "array_record", by_batch, _TAKE, ""),
        ("Grain, DataLoader, its own read options", "array_record_small", data_loader(0, own=False), _SAMPLER, ""),
        ("Grain, DataLoader, 0 workers", "array_record_small", data_loader(0), _SAMPLER, ""),
        ("Grain, DataLoader, 2 workers", "array_record_small", data_loader(2), _SAMPLER, _IN_TURN),
        ("Grain, MapDataset, 2 threads", "array_record_small", map_dataset(0), _SHUFFLE, ""),
        ("Grain, MapDataset, 2 workers", "array_record_small", map_dataset(2), _SHUFFLE, ""),
    )
]
