"""tensordict: a memory-mapped ``TensorDict``, indexed by hand and by PyTorch's ``DataLoader``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..contenders import Contender, Epochs, Order, Shuffle
from ..workloads import Records, Workload


def write(workload: Workload, records: Records, folder: Path) -> None:
    """Tensors of the right size are made on disk first and filled part by part."""
    import torch
    from tensordict import TensorDict

    n = len(records)
    shapes = {
        name: torch.empty((), dtype=getattr(torch, dtype)).expand(n, *shape)
        for name, (shape, dtype) in (("x", workload.x), ("y", workload.y))
    }
    data = TensorDict(shapes, batch_size=[n]).memmap_like(folder / "data")
    first = 0
    for x, y in records.chunks():
        part = TensorDict({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, batch_size=[len(x)])
        data[first : first + len(x)] = part
        first += len(x)
    (folder / "n_records").write_text(str(first))


def load(folder: Path) -> Any:
    """What was written of it."""
    from tensordict import TensorDict

    return TensorDict.load_memmap(folder / "data")[: int((folder / "n_records").read_text())]


def by_hand(workload: Workload, folder: Path, order: Order) -> Epochs:
    """One index of the whole ``TensorDict`` for a batch: a slice, which copies nothing, or shuffled numbers."""
    import torch

    data, size = load(folder), workload.batch

    def epoch(number: int) -> Iterator[tuple[Any, Any]]:
        shuffled = torch.randperm(len(data)) if order == "shuffled" else None
        for first in range(0, len(data) - size + 1, size):
            numbers = slice(first, first + size)
            batch = data[numbers if shuffled is None else shuffled[numbers]]
            yield batch["x"], batch["y"]

    return epoch


def same(batch: Any) -> Any:
    """For ``collate_fn``: ``__getitems__`` of a ``TensorDict`` gives a whole batch already."""
    return batch


def loader(workers: int) -> Callable[[Workload, Path, Order], Epochs]:
    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        from torch.utils.data import DataLoader

        feed: Any = DataLoader(
            load(folder),
            workload.batch,
            shuffle=order == "shuffled",
            num_workers=workers,
            collate_fn=same,
            drop_last=True,
            persistent_workers=workers > 0,
        )
        return lambda number: ((batch["x"], batch["y"]) for batch in feed)

    return open_


CONTENDERS = [
    Contender(f"tensordict, {name}", "peers", "tensordict", write, open_, shuffle)
    for name, open_, shuffle in (
        ("td[numbers]", by_hand, Shuffle("td[numbers], from torch.randperm", True)),
        ("DataLoader, 0 workers", loader(0), Shuffle("shuffle=True", True)),
        ("DataLoader, 2 workers", loader(2), Shuffle("shuffle=True", True)),
    )
]
