"""MosaicML Streaming: shards of records at known places, read one by one in PyTorch's ``DataLoader``."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from ..contenders import Contender, Epochs, Order, Shuffle
from ..workloads import Records, Workload


def streaming() -> Any:
    """The library, which imports torchvision for data sets not used here; names stand in for it where it is missing."""
    try:
        found = importlib.util.find_spec("torchvision") is not None
    except ValueError:  # imported, but by nobody's loader
        found = True
    if not found:
        for name in ("", ".datasets", ".transforms", ".transforms.functional"):
            sys.modules["torchvision" + name] = importlib.util.module_from_spec(ModuleSpec("torchvision" + name, None))
        sys.modules["torchvision.datasets"].VisionDataset = object  # pyright: ignore[reportAttributeAccessIssue]
        sys.modules["torchvision.transforms.functional"].to_tensor = None  # pyright: ignore[reportAttributeAccessIssue]
    import streaming

    return streaming


def encoding(shape: tuple[int, ...], dtype: str) -> str:
    """Of arrays whose shape and dtype need not be stored with each of them."""
    return f"ndarray:{dtype}:{','.join(map(str, shape))}" if shape else dtype


def write(workload: Workload, records: Records, folder: Path) -> None:
    """Without compression and hashes, in shards of 64 MiB: the defaults."""
    columns = {"x": encoding(*workload.x), "y": encoding(*workload.y)}
    with streaming().MDSWriter(out=str(folder), columns=columns) as out:
        for x, y in records:
            out.write({"x": x, "y": y})


def dataset(folder: Path, **settings: Any) -> Any:
    """A ``StreamingDataset``, opened so that nothing is left behind.

    Lock files lie in the folder, and names of shared memory are removed, while this process and the workers, which are
    forked, keep the memory itself.
    """
    base = streaming().base
    usual, tempfile.tempdir = tempfile.tempdir, tempfile.mkdtemp(dir=folder)
    base.util.clean_stale_shared_memory()
    try:
        return base.StreamingDataset(local=str(folder), **settings)
    finally:
        tempfile.tempdir = usual
        base.util.clean_stale_shared_memory()


def loader(algorithm: str, workers: int) -> Callable[[Workload, Path, Order], Epochs]:
    """``StreamingDataset``, which orders records itself; without an algorithm ``LocalDataset``, ordered by PyTorch."""

    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        from torch.utils.data import DataLoader

        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # it is copied into a batch
        size, shuffled = workload.batch, order == "shuffled"
        kept: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
        if algorithm:
            data = dataset(folder, batch_size=size, shuffle=shuffled, shuffle_algo=algorithm)
        else:
            data = streaming().LocalDataset(local=str(folder))
            kept["shuffle"] = shuffled
        feed = DataLoader(data, batch_size=size, drop_last=True, **kept)

        def epoch(number: int) -> Iterator[tuple[Any, Any]]:
            for batch in feed:
                yield batch["x"], batch["y"]

        return epoch

    return open_


_LOCAL = Shuffle("RandomSampler", True)
_NAIVE = Shuffle('shuffle_algo="naive"', True)
_DEFAULT = Shuffle('shuffle_algo="py1e", the default: each shard is spread over 4 million records around it', False)
CONTENDERS = [
    Contender(f"MosaicML Streaming, {way}, {workers} workers", "streaming", "mosaicml", write, open_, shuffle)
    for way, workers, open_, shuffle in (
        ("LocalDataset", 0, loader("", 0), _LOCAL),
        ("LocalDataset", 2, loader("", 2), _LOCAL),
        ("naive", 0, loader("naive", 0), _NAIVE),
        ("naive", 2, loader("naive", 2), _NAIVE),
        ("py1e", 2, loader("py1e", 2), _DEFAULT),
    )
]
