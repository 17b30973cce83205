"""LitData: chunks of records, mapped into memory, and its own loader over PyTorch's workers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..contenders import Contender, Epochs, Order, Shuffle
from ..workloads import Records, Workload


def write(workload: Workload, records: Records, folder: Path) -> None:
    """As ``optimize`` does in a worker, here in this process as records are in its memory.

    Chunks have the default size, or the one that is recommended for records of some MB. Arrays are tensors, which are
    views of the file when they are read; labels are numbers.
    """
    import torch
    from litdata.streaming import Cache

    cache = Cache(str(folder), chunk_bytes="64MB" if workload.record_nbytes < 1 << 20 else "256MB")
    for number, (x, y) in enumerate(records):
        cache[number] = {"x": torch.from_numpy(x), "y": torch.from_numpy(y) if y.shape else int(y)}
    cache.done()
    cache.merge()


def write_tokens(workload: Workload, records: Records, folder: Path) -> None:
    """One long row of tokens. It has no labels, so these are the first tokens of a window."""
    import torch
    from litdata import TokensLoader
    from litdata.streaming import Cache

    block = window(workload)
    cache = Cache(str(folder), chunk_size=block * (64_000_000 // (4 * block)), item_loader=TokensLoader(block))
    for number, (x, y) in enumerate(records.chunks()):
        rows = np.concatenate([y.view(x.dtype).reshape(len(y), -1), x], axis=1)
        cache[number] = torch.from_numpy(rows.reshape(-1))
    cache.done()
    cache.merge()


def window(workload: Workload) -> int:
    """Tokens of a record and its label."""
    return workload.record_nbytes // np.dtype(workload.x[1]).itemsize


def loader(workers: int, blocks: bool = False, tokens: bool = False) -> Callable[[Workload, Path, Order], Epochs]:
    """Shuffles all records of a chunk; for ``blocks`` the blocks of a chunk and the records of a block, the default.

    Neighbours are taken from the file 256 at a time, others one at a time. Left to itself the loader takes 32 tensors
    at a time, which in shuffled blocks of 256 takes most of them many times.
    """

    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        os.environ["LITDATA_CHECK_UPDATES"] = "0"
        os.environ["LITDATA_POSIX_PAGE_BYTES"] = "0"  # else each record's neighbours are looked up, for nothing
        import torch
        from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

        warnings.filterwarnings("ignore", "The given buffer is not writable")  # it is copied into a batch
        items = TokensLoader(window(workload)) if tokens else None
        settings: dict[str, Any] = {"shuffle": order == "shuffled", "drop_last": True, "seed": 1}
        if blocks or order == "sequential":
            settings |= {"item_shuffle_window": 256, "batch_decode": 256}
        else:
            settings |= {"item_shuffle_window": "full", "batch_decode": 0}
        data = StreamingDataset(str(folder), item_loader=items, **settings)
        kept = {"num_workers": workers, "persistent_workers": workers > 0}
        feed = StreamingDataLoader(data, batch_size=workload.batch, drop_last=True, **kept)

        def epoch(number: int) -> Iterator[tuple[Any, Any]]:
            for batch in feed:
                if tokens:
                    label = batch.shape[1] - workload.x[0][0]
                    yield batch[:, label:], batch[:, :label].contiguous().view(torch.int64)[:, 0]
                else:
                    yield batch["x"], batch["y"]

        return epoch

    return open_


_CHUNK = Shuffle('chunks, and all records of a chunk: item_shuffle_window="full"', False)
_BLOCK = Shuffle("chunks, blocks of 256 records in them, and records of a block: the default", False)
CONTENDERS = [
    Contender("LitData, 0 workers", "litdata", "litdata", write, loader(0), _CHUNK),
    Contender("LitData, 2 workers", "litdata", "litdata", write, loader(2), _CHUNK),
    Contender("LitData, 2 workers, blocks", "litdata", "litdata", write, loader(2, blocks=True), _BLOCK),
    *(
        Contender(
            f"LitData, TokensLoader, {workers} workers",
            "litdata",
            "litdata-tokens",
            write_tokens,
            loader(workers, tokens=True),
            _CHUNK,
            workloads=("tokens", "large-tokens"),
        )
        for workers in (0, 2)
    ),
]
