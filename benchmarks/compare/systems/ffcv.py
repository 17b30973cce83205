"""FFCV: ``NDArrayField`` records in a ``.beton`` file, read by its ``Loader``."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..contenders import Contender, Epochs, Order, Shuffle
from ..workloads import Pair, Records, Workload


class Indexed:
    """What ``from_indexed_dataset`` wants: records by number, from processes that it forks."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> Pair:
        return self._records[number]


def field(shape: tuple[int, ...], dtype: str) -> Any:
    """An array; or the field for labels, which are in the file's table and not among the arrays."""
    from ffcv.fields import IntField, NDArrayField

    return NDArrayField(np.dtype(dtype), shape) if shape else IntField()


def write(workload: Workload, records: Records, folder: Path) -> None:
    """As many processes as cores and pages of 8 MiB, the defaults."""
    from ffcv.writer import DatasetWriter

    writer = DatasetWriter(str(folder / "data.beton"), {"x": field(*workload.x), "y": field(*workload.y)})
    writer.from_indexed_dataset(Indexed(records))
    records[0]  # counts as all handed over: those that processes asked for are counted there


def loader(os_cache: bool, shuffled: str) -> Callable[[Workload, Path, Order], Epochs]:
    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        from ffcv.fields.decoders import IntDecoder, NDArrayDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import Squeeze, ToTensor

        arrays = [NDArrayDecoder(), ToTensor()]
        labels = [IntDecoder(), ToTensor(), Squeeze(1)]
        feed = Loader(
            str(folder / "data.beton"),
            workload.batch,
            num_workers=2,  # threads; the default is one for each core
            os_cache=os_cache,
            order=OrderOption[shuffled if order == "shuffled" else "SEQUENTIAL"],
            pipelines={"x": arrays, "y": [NDArrayDecoder(), ToTensor()] if workload.y[0] else labels},
        )
        return lambda number: batches(feed)

    return open_


def batches(feed: Any) -> Iterator[tuple[Any, Any]]:
    """An epoch; one that is not wanted to its end is told, as its thread would wait for ever."""
    epoch = iter(feed)
    try:
        yield from epoch
    finally:
        epoch.terminate_event.set()
        while epoch.is_alive():
            epoch.join(2)
            with contextlib.suppress(queue.Empty):
                epoch.output_queue.get_nowait()
        epoch.close()


# Its five buffers are used in turn and are pinned where there is CUDA, so that batches are ready for a device.
CONTENDERS = [
    Contender(
        "FFCV, os_cache=True",  # recommended for data that fits into memory, and the default
        "ffcv",
        "ffcv",
        write,
        loader(True, "RANDOM"),
        Shuffle("OrderOption.RANDOM", True),
        device_ready=True,
    ),
    Contender(
        "FFCV, os_cache=False",  # recommended for data that does not, with this order
        "ffcv",
        "ffcv",
        write,
        loader(False, "QUASI_RANDOM"),
        Shuffle("OrderOption.QUASI_RANDOM", False),
        device_ready=True,
    ),
]
