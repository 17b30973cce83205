"""HyperSequence: the loader, the plain sequence, PyTorch and Keras."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..contenders import Contender, Epochs, Order, Shuffle
from ..workloads import Records, Workload


def write(workload: Workload, records: Records, folder: Path) -> None:
    import hypersequence as hs

    with hs.HyperSequenceWriter(folder / "data.hsq", workload.batch) as writer:
        for x, y in records.chunks():
            writer.extend(x, y)


def sequence(folder: Path, order: Order, by: str) -> Any:
    """In order, or as shuffled as is said."""
    import hypersequence as hs

    seq = hs.open(folder / "data.hsq")
    return seq.shuffled(1, by=by) if order == "shuffled" else seq


def loader(by: str, buffers: str) -> Callable[[Workload, Path, Order], Epochs]:
    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        import hypersequence as hs

        feed = hs.Loader(sequence(folder, order, by), buffers=buffers)
        return lambda number: feed

    return open_


def plain(by: str) -> Callable[[Workload, Path, Order], Epochs]:
    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        seq = sequence(folder, order, by)
        return lambda number: seq.at_epoch(number)

    return open_


def torch(workload: Workload, folder: Path, order: Order) -> Epochs:
    feed = sequence(folder, order, "window").as_torch()
    return lambda number: feed


def keras(workload: Workload, folder: Path, order: Order) -> Epochs:
    """As Keras asks for a pass of NumPy arrays, and says when it is over."""
    import os

    os.environ["KERAS_BACKEND"] = "tensorflow"
    feed = sequence(folder, order, "window").as_keras()

    def epoch(number: int) -> Any:
        feed.on_epoch_begin()
        yield from feed.get_numpy_iterator()
        feed.on_epoch_end()

    return epoch


_WINDOW = Shuffle("shuffled(seed), the default: windows of 512 MiB", True, within=512 << 20)
_RECORD = Shuffle('shuffled(seed, by="record")', True)
_BATCH = Shuffle('shuffled(seed, by="batch")', False)
CONTENDERS = [
    Contender(name, "keras" if open_ is keras else "peers", "hypersequence", write, open_, shuffle, device_ready=ready)
    for name, open_, shuffle, ready in (
        ("HyperSequence, Loader into buffers", loader("window", "reuse"), _WINDOW, True),
        ("HyperSequence, Loader", loader("window", "own"), _WINDOW, False),
        ("HyperSequence, Loader into buffers, by record", loader("record", "reuse"), _RECORD, True),
        ("HyperSequence, Loader, whole batches", loader("batch", "view"), _BATCH, False),
        ("HyperSequence, plain sequence", plain("window"), _WINDOW, False),
        ("HyperSequence, plain sequence, whole batches", plain("batch"), _BATCH, False),
        ("HyperSequence, as_torch", torch, _WINDOW, False),
        ("HyperSequence, as_keras", keras, _WINDOW, False),
    )
]
